"""Programs of whole runs for a platform that need not be here: from shapes alone, nothing is allocated or compiled."""

import re
from typing import Any

import jax
import numpy as np

from experiments.build.experiment import Experiment, setup
from ne_jax.target import made_for

PLATFORMS = ("cuda", "tpu")
OF_THEIR_OWN = {"cuda": {"cusolver_potrf_ffi"}, "tpu": set[str]()}
"""Custom calls that a training program may hold there: the Cholesky factors of MJX, which a TPU has built in."""


def custom_calls(text: str) -> set[str]:
    """The targets of the custom calls of a program in StableHLO."""
    return set(re.findall(r'stablehlo\.custom_call @"?([\w.$]+)', text))


def foreign(text: str, platform: str) -> set[str]:
    """Custom calls that this platform does not have."""
    return custom_calls(text) - OF_THEIR_OWN[platform]


def shapes(built: Experiment) -> tuple[Any, ...]:
    """The arguments of a chunk of the device loop, as shapes."""
    pool: Any = built.pool
    worlds, scene = jax.eval_shape(pool._reset, pool._keys, pool._seeds, np.int32(0))
    learner, rollout = jax.eval_shape(built.steps.init, built.keys, scene)
    return learner, rollout, worlds, built.keys, np.int32(0), np.int32(1)


def lowered(fn: Any, *args: Any) -> dict[str, str]:
    """StableHLO of a jitted function for each platform, from one trace."""
    traced = fn.trace(*args)
    return {each: traced.lower(lowering_platforms=(each,)).as_text() for each in PLATFORMS}


def chunk(config: Any) -> dict[str, str]:
    """A chunk of the device loop of a config, made for accelerators."""
    with made_for("cuda"):
        built = setup(config)
        return lowered(built.advance, *shapes(built))


def host_programs(config: Any) -> list[dict[str, str]]:
    """The programs of acting and of learning that the host loop of a config calls in each step."""
    with made_for("cuda"):
        built = setup(config)
        try:
            steps, keys, now = built.steps, built.keys, built.schedule.at(1)
            scene = jax.tree.map(lambda leaf: np.zeros((len(keys), *leaf.shape), leaf.dtype), built.spec.scene)
            state = jax.eval_shape(steps.init, keys, scene)
            return [lowered(fn, *state, keys, now) for fn in (steps.act, steps.learn)]
        finally:
            built.close()
