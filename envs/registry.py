"""Environments behind one contract (`envs.types`).

`host_env` makes makers of those that live on the host, `device_env` makes those that are pure JAX functions.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from envs.types import DeviceEnv, MakeHostEnv

# kind -> (module, maker, check). A check takes what the maker takes, and raises what it would raise, at little cost.
HOST_KINDS: dict[str, tuple[str, str, str]] = {
    "dmc": ("envs.dmc.env", "make_dmc", "check_dmc"),
    "gymnasium": ("envs.gymnasium.env", "make_gymnasium", "check_gymnasium"),
}
DEVICE_KINDS: dict[str, tuple[str, str, str]] = {
    "gymnax": ("envs.gymnax.env", "make_gymnax", "check_gymnax"),
    "mjx": ("envs.mjx.env", "make_mjx", "check_mjx"),
}


def host_env(kind: str, name: str, **settings: Any) -> MakeHostEnv:
    """A picklable maker of one host environment, for `envs.pools.host.HostPool`; the settings are checked at once.

    Args:
      kind: a family of environments, a key of `HOST_KINDS`.
      name: the task, as that family names it.
      settings: what the family's maker takes; see there (for `dmc`, `envs.dmc.env.make_dmc`).

    Raises:
      ValueError: an unknown kind, task or setting, or a value that cannot be.
      RuntimeError: pixels are wanted and there is no OpenGL.
    """
    return partial(_checked_maker("host", HOST_KINDS, kind, name, settings), name, **settings)


def device_env(kind: str, name: str, **settings: Any) -> DeviceEnv:
    """One environment of pure JAX functions.

    Args:
      kind: a family of environments, a key of `DEVICE_KINDS`.
      name: the task, as that family names it.
      settings: what the family's maker takes; see there (for `gymnax`, `envs.gymnax.env.make_gymnax`).

    Raises:
      ValueError: an unknown kind, task or setting, or a value that cannot be.
    """
    return _checked_maker("device", DEVICE_KINDS, kind, name, settings)(name, **settings)


def _checked_maker(
    where: str, kinds: dict[str, tuple[str, str, str]], kind: str, name: str, settings: dict[str, Any]
) -> Callable[..., Any]:
    """The maker of a kind, once its check has passed these settings."""
    if kind not in kinds:
        raise ValueError(f"env.kind={kind!r} is no kind of {where} environment; choose from {', '.join(kinds)}.")
    module_name, maker, check = kinds[kind]
    module = importlib.import_module(module_name)
    known = [key for key in inspect.signature(getattr(module, maker)).parameters if key != "name"]
    for key in settings:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=3) or known
            raise ValueError(f"env.{key} is no setting of {kind!r} environments; did you mean {' or '.join(close)}?")
    getattr(module, check)(name, **settings)
    return getattr(module, maker)
