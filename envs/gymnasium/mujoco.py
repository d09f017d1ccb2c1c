"""The MuJoCo tasks of Gymnasium (HalfCheetah-v5 and its kin) behind the host environment contract.

Rewards, terminations and time limits are Gymnasium's own. Actions are in [-1, 1] and rescaled to each actuator's range
(Humanoid-v5: +-0.4). An action may be held for `action_repeat` of Gymnasium's steps, each of which holds it for several
physics steps already.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import numpy as np

from envs.episodes import action_limits
from envs.gymnasium.tasks import GymnasiumSettings, find_task, import_mujoco_tasks, time_limit
from envs.mujoco.base import MujocoEnv
from envs.types import ArraySpec, EnvSpec, observe

if TYPE_CHECKING:
    import mujoco
    from gymnasium.envs.mujoco import MujocoEnv as GymnasiumMujocoEnv
    from jaxtyping import Float, Float32


class MujocoTask(MujocoEnv[np.ndarray]):
    """One MuJoCo task. An episode is a function of its seed and its actions alone.

    Raises:
      ValueError: a camera that the model does not have, or no time limit.
      RuntimeError: `pixels`, and no OpenGL.
    """

    def __init__(self, name: str, settings: GymnasiumSettings) -> None:
        gymnasium = import_mujoco_tasks(pixels=settings.pixels)
        task = find_task(name)
        assert task is not None
        steps = time_limit(name, task, settings)
        self._env = gymnasium.make(task, disable_env_checker=True, max_episode_steps=steps)
        self._mujoco = cast("GymnasiumMujocoEnv", self._env.unwrapped)
        cameras = range(-1, self._mujoco.model.ncam)
        camera = min(0, cameras[-1]) if settings.camera_id is None else settings.camera_id
        if camera not in cameras:
            choices = " or ".join(map(str, cameras))
            raise ValueError(f"env.camera_id must be a camera of {name}, {choices}, got {camera}")
        self._draw_with(settings, camera)
        actions = self._env.action_space  # float32 [actions]
        self._act_within(*action_limits(name, actions.low, actions.high))
        spec = EnvSpec(
            name=name,
            scene=ArraySpec(self._env.observation_space.shape, np.dtype(np.float32)),
            observe=observe,
            action_dim=actions.shape[0],
            action_repeat=settings.action_repeat,
            episode_steps=math.ceil(steps / settings.action_repeat),
            pixels=settings.pixels,
        )
        self.spec = self._with_pixels(spec) if settings.pixels else spec
        if settings.pixels:
            self._renderer(self._size)

    def _model(self) -> mujoco.MjModel:
        return self._mujoco.model

    def _simulation(self) -> mujoco.MjData:
        return self._mujoco.data

    def _states(self) -> Float32[np.ndarray, " features"]:
        assert self._observation is not None
        return self._observation.astype(np.float32)

    def _start(self, seed: int) -> None:
        self._observation, _ = self._env.reset(seed=seed)

    def _frame(self, control: Float[np.ndarray, " actions"]) -> tuple[float, bool, bool]:
        self._observation, reward, terminated, truncated, _ = self._env.step(control)
        return float(reward), terminated, truncated

    def close(self) -> None:
        """Ends the environment; safe to call twice."""
        super().close()
        self._env.close()
