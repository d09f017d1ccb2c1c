"""Agents small enough for tests, batches for them, and what tests of several agents look for in a program."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from agents.drq import DrQSettings, make_drq
from agents.encoder import VisionSettings
from agents.td3 import TD3Settings, make_td3
from agents.types import Clock, Transition
from configs.dmc_pixels import get_config
from experiments.build.optimisers import make_optimisers

OBS, ACTIONS, BATCH, RATE, UPDATES, EVERY = (11, 11, 2), 2, 6, 3e-3, 40, 5
STATES = (5,)
VISION = VisionSettings(channels=3, strides=(2, 1), projection=5, shift_pad=1, conv="im2col")
CONFIG = DrQSettings(learning_rate=RATE, hidden=(16, 12), random_steps=10)
TD3 = TD3Settings(learning_rate=RATE, hidden=(16, 12), random_steps=10)
QUICK = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiles twice as fast


def settings(method, every=EVERY) -> ConfigDict:
    config = get_config()
    config.plasticity.update(dict(method=method, every=every, grow_until=0.8, birth="lecun"))
    return config


def drq(config=CONFIG, method="none", vision=VISION):
    return make_drq(config, vision, OBS, ACTIONS, make_optimisers(settings(method), UPDATES))


def td3(config=TD3, method="none", vision: VisionSettings | None = None, every=EVERY):
    shape = OBS if vision else STATES
    return make_td3(config, vision, shape, ACTIONS, make_optimisers(settings(method, every), UPDATES))


@functools.cache
def initialiser(method):
    return QUICK(drq(method=method).init)


@functools.cache
def start(method: str = "none", seed: int = 1) -> Any:
    """A fresh state. Drawing orthogonal weights is slow to compile, so tests share the program."""
    return initialiser(method)(jax.random.key(seed))


@functools.cache
def updater(config: Any, vision: VisionSettings | None = VISION):
    """The compiled update of a dense agent."""
    agent: Any = td3 if isinstance(config, TD3Settings) else drq
    return QUICK(agent(config, vision=vision).update)


def batches(count, seed=0, shape=OBS):
    """Pixels, or states if `shape` is that of a state."""
    rng = np.random.default_rng(seed)
    obs, next_obs = rng.integers(0, 256, (2, count, BATCH, *shape), np.uint8)
    action, (reward, discount) = rng.uniform(-1, 1, (count, BATCH, ACTIONS)), rng.uniform(0, 1, (2, count, BATCH))
    if len(shape) == 1:
        obs, next_obs = ((each / 128 - 1).astype(np.float32) for each in (obs, next_obs))
    each: Any = (obs, *(values.astype(np.float32) for values in (action, reward, discount)), next_obs)
    return Transition(*each)


def now(number: Any) -> Clock:
    """The time of update `number`, in a run that updates once a step."""
    number = jnp.int32(number)
    return Clock(number, number)


def pick(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


def operations(jaxpr, depth=0):
    """(name, how many conds are around it, shapes of its results) of every operation, nested programs included."""
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        yield name, depth, tuple(out.aval.shape for out in equation.outvars)
        for leaf in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            nested = getattr(leaf, "jaxpr", leaf)
            if hasattr(nested, "eqns"):
                yield from operations(nested, depth + (name == "cond"))
