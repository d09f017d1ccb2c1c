"""What a run takes of a device's memory, told before any of it is taken."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from agents.replay import nbytes
from envs.pools.device import DevicePool
from envs.pools.sequence import DeviceTurns
from experiments.build.experiment import Experiment
from experiments.train.loop import Run


class Memory(NamedTuple):
    """Bytes in the memory of one device; parts of a CPU share one."""

    state: int
    """What stays there: replays, networks with their optimisers, environments."""
    working: int | None
    """What the program that learns takes beside it while it runs; None where it was not compiled."""

    @property
    def total(self) -> int:
        """Both together."""
        return self.state + (self.working or 0)


def predict_memory(experiment: Experiment, run: Run, compiled: bool) -> Memory:
    """What the loop of an experiment will take, from the shapes of its run.

    On the device the program that learns is the chunk, on the host the update. Evaluations and measurements are
    programs of their own, which run between its calls.

    Args:
        run: its shapes; of its arrays none is needed. Environments on the device are reset already.
        compiled: compile the program that learns. When it is called afterwards, it is not compiled again.
    """
    devices = experiment.devices
    kept = nbytes((run.learner, run.rollout))
    if isinstance(experiment.pool, DevicePool | DeviceTurns):
        kept += nbytes(experiment.pool.snapshot())
    working = working_memory(experiment, run) if compiled else None
    if working is not None:  # as one device has it
        working *= 1 if devices.own_memories else devices.count
    return Memory(kept * devices.in_one_memory // devices.places if devices.seeds else kept, working)


def working_memory(experiment: Experiment, run: Run) -> int:
    """Bytes of temporaries, and of results that take nobody's place, of the program that learns, on one device."""
    learner, rollout = experiment.devices.places_of((run.learner, run.rollout))
    if experiment.advance is not None:
        pool: Any = experiment.pool
        program, rest = experiment.advance, (pool.state, experiment.keys, np.int32(0), np.int32(1))
    else:
        program, rest = experiment.steps.learn, (experiment.keys, experiment.schedule.at(0))
    found = program.lower(learner, rollout, *rest).compile().memory_analysis()  # pyright: ignore[reportFunctionMemberAccess]
    return found.temp_size_in_bytes + max(0, found.output_size_in_bytes - found.alias_size_in_bytes)
