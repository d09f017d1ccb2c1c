"""Small tasks for sequences, on the device and on the host, whose scenes say where they come from."""

import jax
import jax.numpy as jnp
import numpy as np

from envs.types import ArraySpec, DeviceEnv, EnvSpec, TimeStep, observe

TASKS = {"one": (4, 1, 5), "two": (6, 3, 7), "three": (4, 2, 3)}
"""Features, actions and episode steps."""


def spec_of(name, pixels=False):
    features, actions, steps = TASKS[name]
    look = (lambda scene: draw(scene, 4)) if pixels else observe
    scene = ArraySpec((features,), np.dtype(np.float32))
    return EnvSpec(name, scene, look, actions, 2, steps, pixels, draw if pixels else None)


def draw(scene, size):
    return jnp.broadcast_to(scene[:3].astype(jnp.uint8), (size, size, 3))


def scene_of(name, state, xp):
    """Task, a mark of the episode, steps since the reset, actions so far; the rest are ones."""
    width, (mark, steps, gained) = TASKS[name][0], state
    task = list(TASKS).index(name) + 1
    values = [xp.float32(value) for value in (task, mark, steps, gained)]
    return xp.stack([*values, *[xp.float32(1)] * (width - 4)])


def device_task(name, pixels=False) -> DeviceEnv:
    """Truncated after its episode steps; terminated when its actions sum to more than two."""
    spec = spec_of(name, pixels)

    def reset(key):
        state = (jax.random.randint(key, (), 1, 250), jnp.int32(0), jnp.float32(0))
        return state, scene_of(name, state, jnp)

    def step(state, action, key):
        assert action.shape == (spec.action_dim,)
        mark, steps, gained = state
        state = (mark, steps + 1, gained + jnp.clip(action, -1, 1).sum())
        terminated = state[2] > 2
        truncated = (state[1] == spec.episode_steps) & ~terminated
        return state, TimeStep(scene_of(name, state, jnp), state[2], terminated, truncated)

    return DeviceEnv(spec, reset, step, lambda state: scene_of(name, state, jnp), draw)


class HostTask:
    """The same on the host."""

    def __init__(self, name, pixels=False):
        self.spec = spec_of(name, pixels)

    def _scene(self):
        return scene_of(self.spec.name, (self._mark, self._steps, self._gained), np)

    def reset(self, seed):
        self._mark, self._steps, self._gained = seed % 250 + 1, 0, 0.0
        return self._scene()

    def step(self, action):
        assert action.shape == (self.spec.action_dim,)
        self._steps += 1
        self._gained += float(np.clip(action, -1, 1).sum())
        terminated = self._gained > 2
        truncated = self._steps == self.spec.episode_steps and not terminated
        return TimeStep(self._scene(), np.float32(self._gained), np.bool_(terminated), np.bool_(truncated))

    def replay(self, seed, actions):
        return [self.reset(seed), *(self.step(action).scene for action in actions)][-1]

    def picture(self, size):
        return self._scene()

    def close(self):
        pass
