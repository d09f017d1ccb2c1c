"""Environments that register themselves with Gymnasium when this module is imported, as packages from outside do."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete

STEPS = 12


class World(gymnasium.Env):
    """A point with noise of its own. The action's first entry moves it, by 0 to 2; from 9 on it terminates."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012  (as Gymnasium has it)
    observation_space = Box(-np.inf, np.inf, (2, 2), np.float64)
    action_space = Box(np.array([[0.0], [-np.inf]], np.float32), np.array([[2.0], [np.inf]], np.float32))

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def _seen(self):
        return np.array([[self.x, self.noise], [self.steps, self.pushed]])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.noise, self.steps, self.pushed = float(self.np_random.uniform(0, 3)), 0.0, 0, 0.0
        return self._seen(), {}

    def step(self, action):
        assert action.shape == (2, 1) and action.dtype == np.float32
        self.x, self.pushed = self.x + float(action[0, 0]), float(action[1, 0])
        self.noise = float(self.np_random.normal())
        self.steps += 1
        return self._seen(), self.x, self.x >= 9, False, {}

    def render(self) -> Any:
        assert self.render_mode == "rgb_array"
        image = np.zeros((40, 60, 3), np.uint8)
        image[:, : int(6 * min(self.x, 9))] = (250, 10 * self.steps, 0)
        return image


class Blind(World):
    metadata = {"render_modes": []}  # noqa: RUF012  (as Gymnasium has it)


class Switch(World):
    action_space = Discrete(2)


class Whole(World):
    action_space = Box(0, 5, (1,), np.int32)


class Parts(World):
    observation_space = Dict({"x": Box(-1, 1)})


class Broken(World):
    def __init__(self, render_mode=None):
        raise gymnasium.error.DependencyNotInstalled("no box3d; pip install box3d")


class Undrawn(World):
    def render(self) -> Any:
        raise gymnasium.error.DependencyNotInstalled("pygame is not installed")


class Grey(World):
    def render(self) -> Any:
        return np.zeros((40, 60), np.uint8)


class Half(World):
    action_space = Box(0, np.inf, (1,), np.float32)


class Largest(World):
    action_space = Box(np.finfo(np.float32).min, np.finfo(np.float32).max, (1,), np.float32)


class Images(World):
    observation_space = Box(0, 255, (40, 60, 3), np.uint8)


class BlindImages(Images):
    metadata = {"render_modes": []}  # noqa: RUF012  (as Gymnasium has it)


for world in (World, Blind, Switch, Whole, Parts, Broken, Undrawn, Grey, Half, Largest, Images, BlindImages):
    gymnasium.register(f"Test{world.__name__}-v0", f"gym_worlds:{world.__name__}", max_episode_steps=STEPS)
gymnasium.register("TestEndless-v0", "gym_worlds:World")
gymnasium.register("OwnReacher-v0", "gymnasium.envs.mujoco.reacher_v5:ReacherEnv", max_episode_steps=9)
gymnasium.register("OwnReacher-v2", "gymnasium.envs.mujoco.reacher_v4:ReacherEnv", max_episode_steps=9)
gymnasium.register("OwnReacher-v3", "gymnasium.envs.mujoco.reacher_v5:ReacherEnv")
