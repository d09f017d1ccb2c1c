"""Finding a kind of environment by its name, checking a task and its settings, and making environments of it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import settings as settings_package
from envs.names import check_task_name, did_you_mean, import_named
from envs.types import DeviceEnv, DeviceKind, HostKind, Kind, MakeHostEnv

# name -> module:attribute. A kind is imported when it is asked for: some import jax, none imports its simulator.
KINDS: dict[str, str] = {
    "dmc": "envs.dmc.env:KIND",
    "gymnasium": "envs.gymnasium.env:KIND",
    "dm_env": "envs.dm_env.env:KIND",
    "gymnax": "envs.gymnax.env:KIND",
    "mjx": "envs.mjx.env:KIND",
}


def find_kind(name: str) -> HostKind | DeviceKind:
    """The kind of environment that `env.kind` names: one of `KINDS`, or anyone's, as `package.module:KIND`.

    Raises:
      ValueError: there is no such kind, module or attribute, or it is no `envs.types.Kind`.
    """
    if name not in KINDS and ":" not in name:
        raise ValueError(f"env.kind must be one of {', '.join(KINDS)}, or package.module:KIND, got {name!r}")
    module_name, _, attribute = KINDS.get(name, name).partition(":")
    module = import_named("env.kind", name, module_name)
    if not hasattr(module, attribute):
        kinds = [key for key, value in vars(module).items() if isinstance(value, Kind)]
        hint = f"; did you mean {', '.join(kinds)}?" if kinds else " and no other Kind"
        raise ValueError(f"env.kind={name!r}: the module {module_name} has no {attribute!r}{hint}")
    kind = getattr(module, attribute)
    if not isinstance(kind, HostKind | DeviceKind):
        raise ValueError(
            f"env.kind={name!r} must name a HostKind or a DeviceKind of envs.types, got an object of type "
            f"{type(kind).__name__}"
        )
    return kind


def make_settings(kind: Kind, values: Mapping[str, Any]) -> Any:
    """The settings of a kind with these values; the others are at their defaults.

    Raises:
      ValueError: no setting of the kind, or a value that it cannot have; the sentence names the key.
    """
    known = [each.key for each in settings_package.settings_of(kind.settings)]
    for key in values:
        if key not in known:
            raise ValueError(f"env.{key} is no setting of kind {kind.name}; {did_you_mean(key, known)}")
    made = kind.settings(**values)
    settings_package.check(kind.settings, made, "env.")
    return made


def check_task(kind: Kind, name: str, settings: Any) -> None:
    """What the kind itself refuses, and a name that is none of its tasks.

    Raises:
      ValueError: an unknown task, or settings that do not go with it.
      RuntimeError: something that the task needs is not installed, such as OpenGL for pixels.
    """
    kind.check(name, settings)
    tasks = kind.tasks()
    if tasks:
        check_task_name(name, tasks, kind.name)


def host_env(kind: str, name: str, **values: Any) -> MakeHostEnv:
    """A picklable maker of one host environment, for `envs.pools.host.HostPool`; task and settings are checked at once.

    Args:
      kind: a name for `find_kind`.
      name: the task, as that kind names it.
      values: settings of the kind, such as those of `envs.dmc.env.DmcSettings`.

    Raises:
      ValueError: an unknown kind, task or setting, or a value that cannot be.
      RuntimeError: something that the task needs is not installed.
    """
    found = find_kind(kind)
    if not isinstance(found, HostKind):
        raise ValueError(f"env.kind={kind!r} lives on the device, not on the host")
    settings = make_settings(found, values)
    check_task(found, name, settings)
    return partial(found.make, name, settings)


def device_env(kind: str, name: str, **values: Any) -> DeviceEnv:
    """One environment of pure JAX functions; arguments and errors are those of `host_env`."""
    found = find_kind(kind)
    if not isinstance(found, DeviceKind):
        raise ValueError(f"env.kind={kind!r} lives on the host, not on the device")
    settings = make_settings(found, values)
    check_task(found, name, settings)
    return found.make(name, settings)
