"""The MuJoCo tasks of gymnasium (HalfCheetah-v5 and its kin) behind the host environment contract.

Rewards, terminations and time limits are gymnasium's own. Actions are in [-1, 1] and rescaled to each actuator's range
(Humanoid-v5: +-0.4). An action may be held for `action_repeat` of gymnasium's steps, each of which holds it for several
physics steps already.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import logging
import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from envs.mujoco import gl
from envs.mujoco.base import MujocoEnv, check_settings
from envs.types import ArraySpec, EnvSpec, observe

if TYPE_CHECKING:
    from jaxtyping import Float32

VERSION = 5  # older versions of the tasks need an older mujoco, or are known to be flawed


def make_gymnasium(
    name: str,
    *,
    pixels: bool = False,
    image_size: int = 84,
    action_repeat: int = 1,
    camera_id: int | None = None,
    render_quality: gl.RenderQuality = "fast",
) -> GymnasiumEnv:
    """Makes one MuJoCo task of gymnasium, such as `HalfCheetah-v5`, `Hopper-v5` or `Humanoid-v5`.

    Args:
      name: the id that gymnasium knows the task by, with its version.
      pixels: scenes are frames, uint8 [image_size, image_size, 3]; else the task's observation, float32 [features].
      image_size: height and width of a frame, in pixels.
      action_repeat: steps of gymnasium's environment per agent step.
      camera_id: the model's camera, -1 for the free one; None takes 0, which follows the robot, where there is one.
      render_quality: `fast` leaves out the shadows, reflections and multisampling of `canonical`.

    Raises:
      ValueError: an unknown task, one that is no MuJoCo task, or a setting that cannot be.
      RuntimeError: gymnasium or its MuJoCo part is not installed; `pixels`, and no OpenGL.
    """
    check_gymnasium(
        name,
        pixels=pixels,
        image_size=image_size,
        action_repeat=action_repeat,
        camera_id=camera_id,
        render_quality=render_quality,
    )
    return GymnasiumEnv(name, pixels, image_size, action_repeat, camera_id, render_quality)


def check_gymnasium(
    name: str,
    *,
    pixels: bool = False,
    image_size: int = 84,
    action_repeat: int = 1,
    camera_id: int | None = None,
    render_quality: gl.RenderQuality = "fast",
) -> None:
    """Raises what `make_gymnasium` would raise for these settings, without loading the task; see there."""
    check_settings(pixels, image_size, action_repeat, camera_id, render_quality)
    gymnasium = import_gymnasium(pixels=pixels)
    tasks = task_names()
    if name in tasks:
        return
    if _has_discrete_actions(gymnasium, name):
        raise ValueError(
            f"env.name={name!r} has discrete actions, and agents here act in [-1, 1]: choose a MuJoCo task of "
            f"gymnasium ({', '.join(tasks)})."
        )
    close = difflib.get_close_matches(str(name), tasks, n=5, cutoff=0.5) or tasks
    raise ValueError(
        f"env.name={name!r} is no MuJoCo task (v{VERSION}) of gymnasium; close names are {', '.join(close)}."
    )


def task_names() -> list[str]:
    """The names of all tasks that `make_gymnasium` makes."""
    return [
        name
        for name, spec in import_gymnasium(pixels=False).registry.items()
        if str(spec.entry_point).startswith("gymnasium.envs.mujoco.") and spec.version == VERSION
    ]


def import_gymnasium(*, pixels: bool) -> Any:
    """Imports gymnasium with its MuJoCo part, and returns the module `gymnasium`.

    Raises:
      RuntimeError: a package is missing; or `pixels`, and OpenGL is disabled or cannot be loaded.
    """
    gl.import_suite(pixels=pixels)  # first: MUJOCO_GL must be right when mujoco is imported
    try:
        gymnasium = importlib.import_module("gymnasium")
        importlib.import_module("gymnasium.envs.mujoco.mujoco_rendering")  # what the tasks import beyond mujoco itself
    except ImportError as error:
        package = (error.name or "gymnasium").split(".")[0]
        raise RuntimeError(
            f"env.kind='gymnasium' needs the package {package}, which cannot be imported ({error}): "
            'install it with `pip install "gymnasium[mujoco]>=1.3,<1.4"`, the extra `gymnasium` of this project.'
        ) from error
    logging.getLogger("absl").addFilter(_is_not_of_old_xml)
    return gymnasium


def _is_not_of_old_xml(record: logging.LogRecord) -> bool:
    """Whether this is not the one line that every new HalfCheetah would have dm_control's logger print."""
    return "'settotalmass' is deprecated" not in record.getMessage()


def _has_discrete_actions(gymnasium: Any, name: str) -> bool:
    """Whether this is another environment of gymnasium, with discrete actions. It must be made to find out."""
    if name not in gymnasium.registry:
        return False
    try:
        env = gymnasium.make(gymnasium.registry[name], disable_env_checker=True)  # by name it may warn of its age
    except Exception:  # any environment may need packages of its own: this is only for a better message
        return False
    discrete = not isinstance(env.action_space, gymnasium.spaces.Box)
    env.close()
    return discrete


class GymnasiumEnv(MujocoEnv):
    """One MuJoCo task; see `make_gymnasium`. An episode is a function of its seed and its actions alone."""

    def __init__(
        self,
        name: str,
        pixels: bool,
        image_size: int,
        action_repeat: int,
        camera_id: int | None,
        render_quality: gl.RenderQuality,
    ) -> None:
        gymnasium = import_gymnasium(pixels=pixels)
        task = dataclasses.replace(gymnasium.spec(name), order_enforce=False)  # `step` sees to the order itself
        self._env = gymnasium.make(task, disable_env_checker=True)
        self._mujoco = self._env.unwrapped  # has the MuJoCo `model` and `data`
        cameras = range(-1, self._mujoco.model.ncam)
        camera = min(0, cameras[-1]) if camera_id is None else int(camera_id)
        if camera not in cameras:
            choices = " or ".join(map(str, cameras))
            raise ValueError(f"env.camera_id={camera} is no camera of {name}; choose {choices}.")
        self._draw_with(image_size, camera, render_quality)
        low, high = self._env.action_space.low, self._env.action_space.high  # float32 [actions]
        self._middle, self._reach = (high + low) / 2, (high - low) / 2
        self._observation: np.ndarray | None = None  # None: no episode is under way
        features = ArraySpec(self._env.observation_space.shape, np.dtype(np.float32))
        self.spec = EnvSpec(
            name=name,
            **(self._seen() if pixels else dict(scene=features, observe=observe)),
            action_dim=low.size,
            action_repeat=int(action_repeat),
            episode_steps=math.ceil(task.max_episode_steps / action_repeat),
            pixels=pixels,
        )
        if pixels:
            self._renderer(self._size)

    def _model(self) -> Any:
        from dm_control.mujoco import wrapper  # the renderer takes models as dm_control wraps them

        return wrapper.MjModel(self._mujoco.model)

    def _data(self) -> SimpleNamespace:
        return SimpleNamespace(ptr=self._mujoco.data)  # as dm_control wraps it

    def _states(self) -> Float32[np.ndarray, " features"]:
        assert self._observation is not None
        return self._observation.astype(np.float32)

    def _start(self, seed: int) -> None:
        self._observation, _ = self._env.reset(seed=seed)

    def _advance(self, action: Float32[np.ndarray, " actions"]) -> tuple[float, bool, bool]:
        """Holds one action for `action_repeat` steps of gymnasium; gives reward, terminated, truncated."""
        if self._observation is None:
            raise RuntimeError(f"The episode of {self.spec.name} is over or was never started: call reset(seed) first.")
        if np.shape(action) != self._middle.shape:
            raise ValueError(f"An action of {self.spec.name} has shape {self._middle.shape}, not {np.shape(action)}.")
        if not np.isfinite(action).all():  # MuJoCo would go on with zeros, and gymnasium with a reward of nan
            raise ValueError(f"An action of {self.spec.name} must be finite, not {action}.")
        control = self._middle + self._reach * np.clip(action, -1, 1).astype(np.float32)
        reward, terminated, truncated = 0.0, False, False
        for _ in range(self.spec.action_repeat):
            self._observation, gain, terminated, truncated, _ = self._env.step(control)
            reward += float(gain)
            if terminated or truncated:
                break
        return reward, terminated, truncated and not terminated

    def close(self) -> None:
        super().close()
        self._env.close()
