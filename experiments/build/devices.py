"""Which devices the seeds of a run are spread over."""

from __future__ import annotations

import os

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from experiments.train.devices import AXIS, SeedDevices


def choose_devices(config: ConfigDict) -> SeedDevices:
    """The devices that `devices` and `over_seeds` ask for, no more than the seeds need.

    A CPU is cut into as many devices as are wanted. That is possible until jax has begun.

    Raises:
        ValueError: there are too few.
    """
    seeds, wanted = len(config.seeds), config.devices
    if config.over_seeds in ("vmap", "map") or wanted == 1:
        return SeedDevices(seeds)
    _cut_cpu(min(seeds, wanted or (_cores() if config.over_seeds == "shard" else 1)))
    there = jax.local_devices()
    if wanted > len(there) and seeds > len(there):
        cure = (
            "jax has begun with so many in this process; start another one"
            if there[0].platform == "cpu"
            else "lower it, or leave 0 for all"
        )
        raise ValueError(f"devices={wanted}, and there are {len(there)} ({there[0].platform}): {cure}")
    if not wanted and there[0].platform == "cpu" and config.over_seeds == "auto":
        return SeedDevices(seeds)
    most = min(wanted or len(there), len(there), seeds)
    used = -(-seeds // -(-seeds // most))  # five seeds on four devices are two on each of three
    return SeedDevices(seeds, Mesh(np.array(there[:used]), (AXIS,)) if used > 1 else None)


def _cut_cpu(count: int) -> None:
    """Let jax see the CPU as `count` devices, if it has not begun and nobody has told it otherwise."""
    told = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if count < 2 or told or jax.config.values["jax_num_cpu_devices"] > 0:
        return
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:  # it has begun
        return


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
