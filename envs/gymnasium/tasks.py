"""Gymnasium's ids: finding what one stands for, and saying in a sentence why it cannot be used."""

from __future__ import annotations

import dataclasses
import importlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from envs.mujoco import gl
from envs.mujoco.base import MujocoSettings
from envs.names import import_named
from settings import setting

if TYPE_CHECKING:
    from types import ModuleType

    import gymnasium
    from gymnasium.envs.registration import EnvSpec

MUJOCO = "gymnasium.envs.mujoco."
VERSION = 5  # older versions of the MuJoCo tasks need an older mujoco, or are known to be flawed


@dataclass(frozen=True)
class GymnasiumSettings(MujocoSettings):
    """How an environment of Gymnasium is seen.

    MuJoCo tasks draw with a renderer of this project, through the usual camera 0, which follows the robot, or else the
    free one. All others draw themselves, and know nothing of `camera_id` and `render_quality`.
    """

    max_episode_steps: int | None = setting(
        None, "Gymnasium's steps after which an episode is truncated; unset: as registered", least=1
    )


def import_gymnasium() -> ModuleType:
    """The module `gymnasium`; RuntimeError where it is not installed."""
    gl.import_suite(pixels=False)  # first: MUJOCO_GL must be right when mujoco is imported
    return _import("gymnasium")


def import_mujoco_tasks(*, pixels: bool) -> ModuleType:
    """The module `gymnasium`, once all is there that its MuJoCo tasks need.

    Raises:
      RuntimeError: a package is missing; or `pixels`, and OpenGL is disabled or cannot be loaded.
    """
    gl.import_suite(pixels=pixels)
    gymnasium = _import("gymnasium")
    _import("gymnasium.envs.mujoco.mujoco_rendering")  # what the tasks import beyond mujoco itself
    logging.getLogger("absl").addFilter(_is_not_of_old_xml)
    return gymnasium


def _import(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = (error.name or "gymnasium").split(".")[0]
        raise RuntimeError(
            f"env.kind='gymnasium' needs the package {package}, which cannot be imported ({error}): "
            'install it with `pip install "gymnasium[mujoco]>=1.3,<1.4"`, the extra `gymnasium` of this project.'
        ) from error


def _is_not_of_old_xml(record: logging.LogRecord) -> bool:
    """Whether this is not the one line that every new HalfCheetah would have dm_control's logger print."""
    return "'settotalmass' is deprecated" not in record.getMessage()


def find_task(name: str) -> EnvSpec | None:
    """What an id stands for, such as `Hopper-v5` or `package.module:Name-v0`; None for an unknown one.

    The part before a colon is imported first, as Gymnasium does, so that it can register its environments.

    Raises:
      ValueError: there is no such module.
    """
    module, colon, own_name = name.rpartition(":")
    gymnasium = import_gymnasium()
    if colon:
        import_named("env.name", name, module)
    task = gymnasium.registry.get(own_name)
    return dataclasses.replace(task, order_enforce=False) if task else None  # `step` sees to the order itself


def is_mujoco(task: EnvSpec) -> bool:
    """Whether this is made by one of Gymnasium's own MuJoCo classes, of any version, whatever its id."""
    return _entry_point(task).startswith(MUJOCO)


def is_current(task: EnvSpec) -> bool:
    """Whether the class of a MuJoCo task is of version `VERSION`; ids of one's own have versions of their own."""
    return f"_v{VERSION}:" in _entry_point(task)


def _entry_point(task: EnvSpec) -> str:
    """What makes an environment, as module:name, also where it is registered as the class itself."""
    entry = task.entry_point
    return f"{entry.__module__}:{getattr(entry, '__qualname__', '')}" if callable(entry) else str(entry)


def why_old(task: EnvSpec, name: str) -> str:
    """Why a MuJoCo task that is not current cannot be used, and what to take instead."""
    current = f"{task.name}-v{VERSION}"
    if current in mujoco_names():
        return f"env.name={name!r} is an old version; take {current}"
    return f"env.name={name!r} is made by an old class, {_entry_point(task)}; register its version {VERSION}"


def time_limit(name: str, task: EnvSpec, settings: GymnasiumSettings) -> int:
    """Gymnasium's steps after which an episode is truncated; ValueError where neither id nor settings have any."""
    steps = settings.max_episode_steps or task.max_episode_steps
    if steps is None:
        raise ValueError(f"env.name={name!r} is registered without a time limit; set --config.env.max_episode_steps")
    return steps


def has_images(env: gymnasium.Env) -> bool:
    """Whether the observations are images: uint8, of three axes."""
    space = env.observation_space
    return space.dtype == "uint8" and len(space.shape or ()) == 3


def mujoco_names() -> list[str]:
    """The names of Gymnasium's MuJoCo tasks, HalfCheetah-v5 and its kin."""
    registry = cast("dict[str, EnvSpec]", import_gymnasium().registry)
    return [name for name, task in registry.items() if is_mujoco(task) and is_current(task)]


def all_names() -> list[str]:
    """The names of all registered environments, but for outdated MuJoCo tasks."""
    registry = cast("dict[str, EnvSpec]", import_gymnasium().registry)
    return [name for name, task in registry.items() if not is_mujoco(task) or is_current(task)]


def why_not(env: gymnasium.Env, name: str) -> str:
    """Why agents here cannot act in an environment, or learn from it; empty where they can."""
    import numpy as np
    from gymnasium.spaces import Box

    actions, observations = env.action_space, env.observation_space
    if not isinstance(actions, Box) or not np.issubdtype(actions.dtype, np.floating):
        found = "discrete actions" if not isinstance(actions, Box) else f"actions of type {actions.dtype}"
        return (
            f"env.name={name!r} has {found}, and agents here act in [-1, 1]: choose one with continuous actions, such "
            f"as Pendulum-v1 or a MuJoCo task ({', '.join(mujoco_names())})"
        )
    if not isinstance(observations, Box):
        return (
            f"env.name={name!r} has observations of type {type(observations).__name__}, and must have Box: wrap it "
            "with gymnasium.wrappers.FlattenObservation and register that"
        )
    return ""
