"""Seeds on one device, and over the cores of a CPU as devices: which is faster."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

from configs import dmc_pixels, gymnax_states
from experiments.benches.timing import Row
from experiments.build.experiment import setup

ROUNDS = 12
"""In each of which every variant has its turn."""
NUMBER = 5_001
"""Of the step whose updates are made; no round of growth is due there."""


def bench_devices(variant: str) -> Iterator[Row]:
    """The least milliseconds of an update of all seeds, as runs make it; variants in turn, in one process.

    The replays are empty: what is drawn from them is zeros, which takes as long.

    Raises:
        ValueError: jax has begun in this process, and a CPU can no longer be cut into two devices.
    """
    for name, make, seeds in (
        ("td3", gymnax_states.get_config, 8),
        (f"drq {variant or 'quick'}", partial(dmc_pixels.get_config, variant or "quick"), 2),
    ):
        updates = {count: _update(make(), seeds, count) for count in (2, 1)}  # two first: jax has not begun
        least = dict.fromkeys(updates, np.inf)
        for _ in range(ROUNDS):
            for count, update in updates.items():
                least[count] = min(least[count], update())
        for count in (1, 2):
            yield f"update {name}, {seeds} seeds, devices={count}", least[count], "ms"


def _update(config: Any, seeds: int, count: int, repeats: int = 5) -> Callable[[], float]:
    """A function that makes some updates, and returns the milliseconds of the fastest."""
    config.update(seeds=tuple(range(seeds)), devices=count)
    experiment = setup(config)
    steps, keys, now = experiment.steps, experiment.keys, experiment.schedule.at(NUMBER)
    learner, rollout = steps.init(keys, experiment.pool.reset())
    experiment.close()

    def update() -> float:
        nonlocal learner
        times = []
        for _ in range(repeats):
            begin = time.perf_counter()
            learner = jax.block_until_ready(steps.learn(learner, rollout, keys, now))
            times.append(1e3 * (time.perf_counter() - begin))
        return min(times)

    return update
