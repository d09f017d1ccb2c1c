"""The numbers of a run at a log point: of its networks, of its updates and returns, of the process."""

from __future__ import annotations

import resource
import sys
from typing import Any

import jax
import numpy as np

from agents.updates import train_states
from experiments.build.experiment import Experiment
from experiments.train.loop import Run


class Readings:
    """Reads them from the device, [seeds] each."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._initial: tuple[int, dict[str, Any]] | None = None  # what the networks began with, once it is asked for

    def plasticity(self, run: Run) -> dict[str, np.ndarray]:
        """What is measured of the networks, [seeds] each."""
        experiment, schedule = self._experiment, self._experiment.schedule
        task = schedule.task(max(run.step - 1, 0)) if schedule.renews else 0
        if self._initial is None or self._initial[0] != task:
            networks = train_states(run.learner.agent) if run.step == 0 else None  # not begun to learn
            self._initial = (
                task,
                (
                    {name: jax.device_get(model.params) for name, model in networks.items()}
                    if networks
                    else experiment.steps.initial(experiment.keys, np.int32(task), experiment.numbers)
                ),
            )
        now, initial = schedule.at(run.step), self._initial[1]
        found = jax.device_get(experiment.steps.measure(run.learner, run.rollout, experiment.keys, initial, now))
        return {f"plasticity/{name}": value for name, value in found.items()}

    def training(self, run: Run, steps: int, seconds: float) -> dict[str, np.ndarray]:
        """Every metric since the last log point, so many steps ago, [seeds] each; NaN where nothing was measured."""
        experiment, updates = self._experiment, self._experiment.schedule.updates(run.step)
        losses, returns = experiment.devices.numbers((run.learner.metrics, run.rollout.returns))
        seeds = len(experiment.config.seeds)
        speed = seeds * experiment.frame(steps) / seconds
        values = {"train/return": _mean(returns.total, returns.count)}
        values |= {_column(name): _mean(total, losses.count) for name, total in losses.total.items()}
        ready = jax.vmap(experiment.replay.ready)(run.rollout.replay_state)
        values["replay/size"] = experiment.devices.numbers(ready)
        if run.rollout.distance is not None:
            distance = experiment.devices.numbers(run.rollout.distance)
            values["replay/distance"] = _mean(distance.total, distance.count)
        values["train/updates"] = np.full(seeds, updates)
        values["time/frames_per_second"] = np.full(seeds, speed if steps else np.nan)
        values |= {f"time/{name}": np.full(seeds, size) for name, size in peak_memory().items()}
        return values


def peak_memory() -> dict[str, float]:
    """The most memory in MiB that this process has had at once, workers apart, and the device where it tells."""
    unit = 2**20 if sys.platform == "darwin" else 2**10  # macOS counts bytes, others KiB
    found = {"peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}
    of_device = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return found | ({"peak_device_memory_mib": of_device / 2**20} if of_device is not None else {})


def _column(name: str) -> str:
    """Where a metric of the updates stands: with the losses, unless it has a group of its own."""
    return name if "/" in name else f"train/{name}"


def _mean(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
