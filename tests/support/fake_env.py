"""A host environment of plain numbers, in a module of its own: workers import it, and should not import pytest."""

import os
import time

import numpy as np

from envs.types import ArraySpec, EnvSpec, TimeStep


class Unpicklable(Exception):
    def __init__(self, number, text):
        super().__init__(text)


class Counter:
    """Counts to five. Its scene is (seed, steps, sum of actions); the second action asks for trouble."""

    def __init__(self, form="array", fail=None, unready=False):
        if fail is not None:
            raise fail
        self.spec = EnvSpec("counter", ArraySpec((3,), np.dtype(np.float64)), _same, 2, 1, 5, False)
        self._form, self._unready = form, unready

    def _scene(self):
        scene = np.array([self._seed, self._steps, self._sum])
        return scene if self._form == "array" else {"where": scene[:1], "rest": scene[1:]}

    def reset(self, seed):
        if self._unready:
            raise ValueError("not ready")
        self._seed, self._steps, self._sum = seed, 0, 0.0
        return self._scene()

    def step(self, action):
        if action[1] == 0.5:
            raise ValueError("half is too much")
        if action[1] == 0.25:
            raise Unpicklable(1, "a quarter")
        if action[1] == -0.5:
            os._exit(3)
        if action[1] == -0.25:
            time.sleep(60)
        self._steps += 1
        self._sum += float(action[0])
        terminated = np.bool_(action[0] == 1)
        truncated = np.bool_(self._steps == 5) & ~terminated
        return TimeStep(self._scene(), np.float32(action[0]), terminated, truncated)

    def replay(self, seed, actions):
        return [self.reset(seed), *(self.step(action).scene for action in actions)][-1]

    def picture(self, size):
        return np.full((size, size, 3), self._steps, np.uint8)

    def close(self):
        pass


def _same(scene):
    return scene
