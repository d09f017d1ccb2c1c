"""Which devices the seeds of a run are spread over."""

from __future__ import annotations

import math
import os

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from experiments.train.devices import AXIS, SeedDevices


def choose_devices(config: ConfigDict) -> SeedDevices:
    """The devices of this process that `devices` and `over_seeds` ask for, no more than its seeds need.

    Where a run has several processes, each takes as many.

    Raises:
        ValueError: there are too few.
    """
    seeds, wanted = len(config.seeds), config.devices
    cut_cpu(config, seeds)
    if _on_one(config):
        return SeedDevices(seeds)
    fewest = min(len(jax.local_devices(i)) for i in range(jax.process_count()))
    there = jax.local_devices()[:fewest]
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


def _on_one(config: ConfigDict) -> bool:
    return config.over_seeds in ("vmap", "map") or config.devices == 1


def cut_cpu(config: ConfigDict, most: float = math.inf) -> None:
    """Let jax see the CPU as the devices that are wanted, if it has not begun and nobody has told it otherwise."""
    if _on_one(config):
        return
    count = min(most, config.devices or (_cores() if config.over_seeds == "shard" else 1))
    told = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if count < 2 or told or jax.config.values["jax_num_cpu_devices"] > 0:
        return
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:  # it has begun
        return


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
