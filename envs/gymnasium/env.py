"""Any environment of Gymnasium with Box observations and actions, from states or from pixels by its own `render()`.

An id may be `package.module:Name-v0`: the module is imported first, to register it. Rewards, terminations and time
limits are the environment's own. Actions are in [-1, 1] and rescaled to the limits of the action space.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from envs.episodes import EpisodeEnv, action_limits
from envs.gymnasium.mujoco import MujocoTask
from envs.gymnasium.tasks import (
    GymnasiumSettings,
    all_names,
    find_task,
    has_images,
    import_gymnasium,
    import_mujoco_tasks,
    is_current,
    is_mujoco,
    time_limit,
    why_not,
    why_old,
)
from envs.images import resized
from envs.names import check_task_name
from envs.types import ArraySpec, EnvSpec, HostKind, Scene, image_spec, observe

if TYPE_CHECKING:
    import gymnasium
    from gymnasium.envs.registration import EnvSpec as Task
    from jaxtyping import Float, Float32, UInt8


def make(name: str, settings: GymnasiumSettings) -> MujocoTask | GymnasiumEnv:
    """One environment: a MuJoCo task with this project's renderer, or any other as it is."""
    task = find_task(name)
    return MujocoTask(name, settings) if task and is_mujoco(task) else GymnasiumEnv(name, settings)


def check(name: str, settings: GymnasiumSettings) -> None:
    """Raises what `make` would raise; an environment that is no MuJoCo task is made, and for pixels drawn once.

    Raises:
      ValueError: an unknown id, discrete actions, observations other than Box, no time limit, or no pictures.
      RuntimeError: a package that the environment needs is not installed; for MuJoCo tasks from pixels, no OpenGL.
    """
    task = find_task(name)
    if task is None:
        module, colon, _ = name.rpartition(":")
        check_task_name(name, [module + colon + each for each in all_names()], "gymnasium")
    elif is_mujoco(task):
        import_mujoco_tasks(pixels=settings.pixels)
        if not is_current(task):
            raise ValueError(why_old(task, name))
        time_limit(name, task, settings)
    else:
        _check_other(name, settings)


def _check_other(name: str, settings: GymnasiumSettings) -> None:
    for key, usual in (("camera_id", None), ("render_quality", "fast")):
        if getattr(settings, key) != usual:
            cure = "unset" if usual is None else f"at {usual}"
            raise ValueError(f"env.{key} is for MuJoCo tasks, and {name} draws itself; leave it {cure}")
    env = GymnasiumEnv(name, settings)
    try:
        if settings.pixels:
            env.reset(0)
    finally:
        env.close()


class GymnasiumEnv(EpisodeEnv[np.ndarray]):
    """One environment that is no MuJoCo task. An episode is a function of its seed and its actions if Gymnasium's is.

    Raises: as `check`.
    """

    def __init__(self, name: str, settings: GymnasiumSettings) -> None:
        task = find_task(name)
        assert task is not None
        self._env = _made(name, task, settings, None)
        self._draws = "rgb_array" in (self._env.metadata or {}).get("render_modes", ())
        if self._draws:  # it must be told at its making
            self._env.close()
            self._env = _made(name, task, settings, "rgb_array")
        try:
            self.spec = self._describe(name, task, settings)
            space: Any = self._env.action_space
            self._act_within(*action_limits(name, space.low, space.high))
        except BaseException:
            self._env.close()
            raise
        self._size = settings.image_size

    def _describe(self, name: str, task: Task, settings: GymnasiumSettings) -> EnvSpec:
        refusal = why_not(self._env, name)
        if refusal:
            raise ValueError(refusal)
        steps, images = time_limit(name, task, settings), has_images(self._env)
        if settings.pixels and not self._draws:
            cure = "Give it that mode." if images else "Train from states: --config.env.pixels=False"
            raise ValueError(f"{self._no_picture(name)} {cure}")
        if images and not settings.pixels:
            raise ValueError(
                f"env.name={name!r} observes images; set --config.env.pixels=True to train from what its render() draws"
            )
        states = ArraySpec((math.prod(self._env.observation_space.shape or ()),), np.dtype(np.float32))
        return EnvSpec(
            name=name,
            scene=image_spec(settings.image_size) if settings.pixels else states,
            observe=observe,
            action_dim=math.prod(self._env.action_space.shape or ()),
            action_repeat=settings.action_repeat,
            episode_steps=math.ceil(steps / settings.action_repeat),
            pixels=settings.pixels,
        )

    def _scene(self) -> Scene:
        return self.picture(self._size) if self.spec.pixels else self._states()

    def _states(self) -> Float32[np.ndarray, " features"]:
        assert self._observation is not None
        return np.ravel(self._observation).astype(np.float32)

    def _start(self, seed: int) -> None:
        self._observation, _ = self._env.reset(seed=seed)

    def _frame(self, control: Float[np.ndarray, " actions"]) -> tuple[float, bool, bool]:
        step = self._env.step(control.reshape(self._env.action_space.shape))
        self._observation, reward, terminated, truncated, _ = step
        return float(reward), bool(terminated), bool(truncated)

    def picture(self, size: int) -> UInt8[np.ndarray, "size size 3"]:
        """The environment's own image of its current state, resized.

        Raises:
          ValueError: it has none.
          RuntimeError: it needs a package for it that is not installed.
        """
        if not self._draws:
            raise ValueError(self._no_picture(self.spec.name))
        error = import_gymnasium().error
        try:
            image = self._env.render()
        except (ImportError, error.DependencyNotInstalled) as cause:
            raise RuntimeError(f"{self.spec.name} needs a package to draw itself: {cause}.") from cause
        return resized(image, size, f"render() of {self.spec.name}")

    def _no_picture(self, name: str) -> str:
        return f"{name} cannot draw itself: it has no render mode 'rgb_array'."

    def close(self) -> None:
        """Ends the environment; safe to call twice."""
        self._env.close()


def _made(name: str, task: Task, settings: GymnasiumSettings, render_mode: str | None) -> gymnasium.Env:
    module, drawing = import_gymnasium(), {} if render_mode is None else {"render_mode": render_mode}
    try:
        return module.make(task, max_episode_steps=settings.max_episode_steps, disable_env_checker=True, **drawing)
    except (ImportError, module.error.DependencyNotInstalled) as error:
        raise RuntimeError(f"env.name={name!r} needs a package that is not installed: {error}") from error


KIND = HostKind(
    "gymnasium",
    make,
    GymnasiumSettings,
    check=check,
    packages=("mujoco", "gymnasium"),
)
