"""Kinds of environments from outside, on the host and on the device, with and without settings."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from envs.types import (
    ArraySpec,
    DeviceEnv,
    DeviceKind,
    EnvSpec,
    HostKind,
    NoSettings,
    TimeStep,
    observe,
)
from settings import setting


@dataclass(frozen=True)
class LineSettings:
    speed: float = setting(0.1, "of the point", above=0)
    goal: int | None = setting(None, "where to go", least=-1, most=1)


def spec(name, steps=10):
    return EnvSpec(name, ArraySpec((2,), np.dtype(np.float32)), observe, 1, 1, steps, False)


class Line:
    """A point on a line, on the host."""

    def __init__(self, name, settings):
        self.spec, self._speed, self._goal = spec(name), settings.speed, settings.goal or 0

    def _scene(self):
        return np.array([self._x, self._steps], np.float32)

    def reset(self, seed):
        self._x, self._steps = seed % 7 / 7, 0
        return self._scene()

    def step(self, action):
        self._x += self._speed * float(action[0])
        self._steps += 1
        reward = np.float32(-abs(self._x - self._goal))
        return TimeStep(self._scene(), reward, np.bool_(False), np.bool_(self._steps == 10))

    def replay(self, seed, actions):
        return [self.reset(seed), *(self.step(action).scene for action in actions)][-1]

    def picture(self, size):
        return np.full((size, size, 3), self._steps, np.uint8)

    def close(self):
        pass


def make_point(name, settings):
    """The same on the device, without settings. Where the point is `brittle`, it breaks beyond 1.2."""

    def reset(key):
        x = jax.random.uniform(key, (2,), minval=-1, maxval=1).at[1].set(0)
        return x, x

    def step(state, action, key):
        after = state + jnp.stack([0.1 * jnp.clip(action[0], -1, 1), 1.0])
        if name == "brittle":
            after = after.at[0].set(jnp.where(jnp.abs(after[0]) > 1.2, jnp.nan, after[0]))
        return after, TimeStep(after, -jnp.abs(after[0]), jnp.array(False), after[1] >= 10)

    def draw(picture, size):
        return jnp.broadcast_to((100 + 50 * picture[0]).astype(jnp.uint8), (size, size, 3))

    return DeviceEnv(spec(name), reset, step, lambda state: state, draw)


def refuse_left(name, settings):
    if name == "left":
        raise ValueError("env.name='left' is not to be had")


HOST = HostKind("line", Line, LineSettings, check=refuse_left, packages=("numpy",))
DEVICE = DeviceKind("point", make_point, NoSettings, tasks=lambda: ["centre", "right", "brittle"])
NO_KIND = LineSettings()
