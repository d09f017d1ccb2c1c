"""A DrQ agent small enough for tests, and batches for it."""

import functools
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from agents.drq import DrQConfig, make_drq
from agents.types import Step, Transition
from configs.dmc_pixels import get_config
from experiments.optimisers import make_optimisers

OBS, ACTIONS, BATCH, RATE, UPDATES, EVERY = (11, 11, 2), 2, 6, 3e-3, 40, 5
CONFIG = DrQConfig(channels=3, strides=(2, 1), projection=5, hidden=(16, 12), shift_pad=1, random_steps=10, im2col=True)
QUICK = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiles twice as fast


def settings(method) -> ConfigDict:
    config = get_config()
    config.agent.learning_rate = RATE
    config.plasticity.update(dict(method=method, every=EVERY, grow_until=0.8, birth="lecun"))
    return config


def drq(config=CONFIG, method="none"):
    return make_drq(config, OBS, ACTIONS, make_optimisers(settings(method), UPDATES))


@functools.cache
def initialiser(method):
    return QUICK(drq(method=method).init)


@functools.cache
def start(method: str = "none", seed: int = 1) -> Any:
    """A fresh state. Drawing orthogonal weights is slow to compile, so tests share the program."""
    return initialiser(method)(jax.random.key(seed))


def batches(count, seed=0):
    rng = np.random.default_rng(seed)
    obs, next_obs = rng.integers(0, 256, (2, count, BATCH, *OBS), np.uint8)
    action, (reward, discount) = rng.uniform(-1, 1, (count, BATCH, ACTIONS)), rng.uniform(0, 1, (2, count, BATCH))
    each: Any = (obs, *(values.astype(np.float32) for values in (action, reward, discount)), next_obs)
    return Transition(*each)


def now(number: Any) -> Step:
    """The time of update `number`, in a run that updates once a step."""
    number = np.int32(number)
    return Step(number, number)


def pick(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)
