"""From `config.env` to environments: of which kind, with which settings, and many of them side by side."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import jax
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from envs.pools.batch import BatchPool
from envs.pools.host import HostPool
from envs.pools.sequence import alike, fit_device
from envs.registry import KINDS, check_task, find_kind, make_settings
from envs.relabel import relabel
from envs.types import DeviceEnv, DeviceKind, EnvSpec, HostKind, Kind, MakeTogether
from experiments.build.default_settings import EnvSettings
from experiments.build.tasks import relabelling, task_names
from settings import settings_of

OF_THE_RUN = ("kind", "name", "backend", "frame_stack", "num_envs", "workers", "worker_timeout")
OF_THE_RUN += ("sequence", "switch_every", "relabel")
"""Keys of `config.env` that are not settings of one environment."""
OF_EVERY_SPEC = ("pixels", "action_repeat", "image_size")
"""Keys that say what the environment must be where its kind has no such setting."""
TRAIN_STREAM, EVAL_STREAM = range(2)

Made = TypeVar("Made")


def kind_of(config: ConfigDict) -> HostKind | DeviceKind:
    """The kind of environment that a config asks for.

    Raises:
        ValueError: there is none, or it needs another config.
    """
    name = config.env.kind
    kind = find_kind(name)
    if kind.backends:
        backends, backend = dict(kind.backends), config.env.get("backend", kind.backends[0][0])
        if backend not in backends:
            raise ValueError(f"env.backend must be one of {', '.join(backends)}, got {backend!r}")
        if backends[backend] != kind.name:
            return find_kind(backends[backend])  # it takes no workers
    elif config.env.get("backend", "mujoco") != "mujoco":
        raise ValueError(f"env.backend={config.env.backend!r} is for kind dmc, not for {name}; set it to mujoco")
    on_device = isinstance(kind, DeviceKind)
    if on_device == ("workers" in config.env):
        fitting = "gymnax_*.py" if on_device else "dmc_*.py or mujoco_*.py"
        raise ValueError(f"env.kind={name!r} needs another config; take one of configs/{fitting}")
    return kind


def env_settings(config: ConfigDict, kind: Kind) -> Any:
    """The settings of the kind that the config has; those that it lacks are at their defaults.

    Raises:
        ValueError: a value that cannot be, or a key that the kind does not have and that is not as it always is.
    """
    known = {each.key for each in settings_of(kind.settings)}
    values = {}
    for key, value in config.env.to_dict().items():
        if key in known:
            values[key] = value
        elif key not in OF_THE_RUN + OF_EVERY_SPEC and not _is_neutral(key, value):
            usual = _usual(key)
            cure = f"leave it at {usual[0]}" if usual else "leave it out of the config"
            raise ValueError(f"env.{key}={value!r} is no setting of kind {kind.name}; {cure}")
    return make_settings(kind, values)


def _is_neutral(key: str, value: Any) -> bool:
    """Whether this value asks for nothing, so that a kind without the key can be used with the same config."""
    if isinstance(value, Mapping):
        return not any(value.values())
    return value in _usual(key)


def _usual(key: str) -> list[Any]:
    """The defaults that the kinds of this repository give to a key."""
    found = [find_kind(name).settings for name in KINDS]
    return [each.default for settings in found for each in settings_of(settings) if each.key == key]


def with_keys_of_kind(
    name: str | None, given: Collection[str], load: Callable[[str], ConfigDict], argument: str
) -> ConfigDict:
    """A config file with the keys that its kind of environment has and it lacks, so that they can be set.

    Args:
        name: of another kind, all of whose keys are added; None keeps the file's own, and adds those that are `given`.
    """
    config = load(argument)
    if name is None and not set(given) - set(config.env):
        return config
    kind = find_kind(name or config.env.kind)
    with config.unlocked():
        for each in settings_of(kind.settings):
            wanted = name is not None or each.key in given
            settable = each.default is not None or each.type in (int, float, str)
            if wanted and settable and each.key not in config.env:
                config.env[each.key] = placeholder(each.type) if each.default is None else each.default
    return config


def make_device_envs(config: ConfigDict, kind: DeviceKind) -> list[DeviceEnv]:
    """Each different task; in the same shapes where there are several.

    Raises:
        ValueError: an unknown task, or a setting that cannot be.
        RuntimeError: something that a task needs is not installed.
    """
    envs = _each_task(config, kind, kind.make)
    for env in envs:
        _check_spec(config, env.spec)
    labels = relabelling(config)
    if labels.every:
        return [relabel(env, labels) for env in envs]
    if len(envs) == 1:
        return envs
    return [fit_device(env, spec) for env, spec in zip(envs, alike([env.spec for env in envs]), strict=True)]


@contextmanager
def open_host_pools(config: ConfigDict, kind: HostKind) -> Iterator[tuple[list[HostPool], list[HostPool]]]:
    """Pools to train and to evaluate in, one per different task; closed if what follows in the `with` fails.

    Raises:
        ValueError: an unknown task, or a setting that cannot be.
        RuntimeError: something that a task needs is not installed, such as OpenGL.
    """
    if relabelling(config).every:
        raise ValueError(
            f"env.relabel is for environments on the device, and kind {kind.name} is on the host; set "
            "--config.env.relabel.every=0, or take kind gymnax or mjx"
        )
    together = _together(config, kind)
    makers = _each_task(
        config, kind, lambda name, settings: (partial(kind.make, name, settings), together(name) if together else None)
    )
    streams = [(seed, TRAIN_STREAM, lane) for seed in config.seeds for lane in range(config.env.num_envs)]
    opened: list[HostPool] = []
    timeout = config.env.get("worker_timeout", EnvSettings.worker_timeout)  # not every config names it
    try:
        for make, join in makers:
            for lanes in (streams, [(seed, EVAL_STREAM) for seed in config.seeds]):
                pool = BatchPool(make, join, lanes) if join else HostPool(make, lanes, config.env.workers, timeout)
                opened.append(pool)
                _check_spec(config, opened[-1].spec)
        if config.video.every and not opened[0].spec.pixels:
            for pool in opened[1::2]:
                _check_video(pool, config.video.size)
        yield opened[::2], opened[1::2]
    except BaseException:
        for pool in opened:
            pool.close()
        raise


def _together(config: ConfigDict, kind: HostKind) -> Callable[[str], MakeTogether] | None:
    """For `env.workers=batch`, what the kind has for it."""
    if config.env.workers != "batch":
        return None
    if kind.together is None:
        raise ValueError(f"env.workers='batch' is for kind dmc, not for {kind.name}; set --config.env.workers=thread")
    return kind.together


def _each_task(config: ConfigDict, kind: Kind, make: Callable[[str, Any], Made]) -> list[Made]:
    """`make(name, settings)` of each different task, once the kind has checked it."""
    settings, made = env_settings(config, kind), []
    for name in dict.fromkeys(task_names(config)):
        try:
            check_task(kind, name, settings)
            made.append(make(name, settings))
        except ValueError as error:
            if name == config.env.name:
                raise
            found = str(error).replace("env.name=", "env.sequence: ").replace("env.name:", "env.sequence:")
            raise ValueError(found) from error
    return made


def _check_spec(config: ConfigDict, spec: EnvSpec) -> None:
    """ValueError where the environment is not as the config says that it is, and has no setting to make it so."""
    found: dict[str, bool | int] = {"pixels": spec.pixels, "action_repeat": spec.action_repeat}
    if spec.pixels:
        found["image_size"] = jax.eval_shape(spec.observe, spec.scene).shape[0]
    for key, value in found.items():
        if config.env.get(key, value) != value:
            raise ValueError(
                f"env.{key}={config.env[key]} is no setting of kind {config.env.kind}, whose {spec.name} has {value}; "
                f"set --config.env.{key}={value}"
            )


def _check_video(pool: HostPool, size: int) -> None:
    """RuntimeError at the start, not at the first video, where states are learned from and nothing can be drawn."""
    try:
        pool.reset()
        pool.pictures(size)
    except (RuntimeError, ValueError) as error:
        raise RuntimeError(f"{error} Or train without videos: --config.video.every=0") from error
