"""Environments with dm_env's interface, and functions that make them."""

import dm_env
import numpy as np
from dm_env import specs


class World(dm_env.Environment):
    """A point with noise of its own; reaching 4 ends the episode with a discount of 0, the eighth step with 1."""

    def __init__(self, seed, picture=True, actions=None, shape=(8, 12, 3), dtype: type = np.uint8):
        self._random, self._picture, self._actions = np.random.default_rng(seed), picture, actions
        self._shape, self._dtype = shape, dtype
        self._begun = False

    def observation_spec(self):
        image = {"pixels": specs.Array(self._shape, self._dtype)} if self._picture else {}
        return {"x": specs.Array((), np.float64), **image, "rest": [specs.Array((2, 1), np.float64)]}

    def action_spec(self):
        return self._actions or specs.BoundedArray((1, 2), np.float64, [[0.0, -1e10]], [[1.0, 1e10]])

    def _seen(self):
        colour = [20 * self.steps, 30 * int(self.x), 9][: self._shape[-1]]
        image = {"pixels": np.full(self._shape, colour, self._dtype)}
        rest = [np.array([[self._random.normal()], [self.pushed]])]
        return {"x": np.array(self.x), **(image if self._picture else {}), "rest": rest}

    def reset(self):
        assert not self._begun, "each episode has an environment of its own"
        self._begun = True
        self.x, self.steps, self.pushed = self._random.uniform(), 0, 0.0
        return dm_env.restart(self._seen())

    def step(self, action):
        assert action.shape == (1, 2) and action.dtype == np.float64
        self.x, self.steps, self.pushed = self.x + action[0, 0], self.steps + 1, action[0, 1]
        if self.x >= 4:
            return dm_env.termination(self.x, self._seen())
        if self.steps == 8:
            return dm_env.truncation(self.x, self._seen())
        return dm_env.transition(self.x, self._seen())


def world(seed):
    return World(seed)


def blind(random_state):
    return World(random_state, picture=False)


def discrete(seed):
    return World(seed, actions=specs.DiscreteArray(3))


def unbounded(seed):
    return World(seed, actions=specs.Array((2,), np.float32))


def unseeded():
    return World(0)


def half_bounded(seed):
    return World(seed, actions=specs.BoundedArray((1, 2), np.float64, [[0.0, -1e10]], [[1.0, 5.0]]))


def largest(seed):
    limit = np.finfo(np.float32).max
    return World(seed, actions=specs.BoundedArray((2,), np.float32, -limit, limit))


def float_image(seed):
    return World(seed, dtype=np.float32)


def grey_image(seed):
    return World(seed, shape=(8, 12, 1))


def needy(seed, mass, *more, friction, wind=0):
    return World(seed)


def by_place(seed, /):
    return World(seed)


def cartpole(seed):
    from dm_control import suite

    return suite.load("cartpole", "balance", task_kwargs={"random": seed})
