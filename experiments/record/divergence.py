"""Seeds that have diverged, in words: which, since when, and what went first. What the run does about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from agents.updates import train_states
from experiments.build.experiment import Experiment
from experiments.record.metrics_files import read_metrics
from experiments.train.health import Health, intact
from experiments.train.loop import Run
from experiments.train.seeds import NEVER

COLUMN, RESTARTS = "train/diverged", "train/restarts"
KEPT = ("train/updates", "replay/size", "eval/random_return", "continual/task")
"""Columns that say nothing of what a seed has learned: those of a frozen seed have numbers too, and so has `time/`."""


class Divergence(NamedTuple):
    """How one seed came to diverge."""

    seed: str
    """What it is called."""
    frame: int
    what: str

    def __str__(self) -> str:
        return f"{self.seed} diverged at frame {self.frame:,}: {self.what}"


class DivergenceGuard:
    """Reads from a run, at log points, which seeds have diverged, and says so once for each."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment, self._told = experiment, set[str]()
        self.found: list[Divergence | None] = [None] * len(experiment.rows)
        """Of each seed, as it was last read."""

    @property
    def frozen(self) -> Bool[np.ndarray, " seeds"]:
        """The seeds that have diverged."""
        return np.array([each is not None for each in self.found])

    def read(self, run: Run) -> list[str]:
        """Sentences about seeds that were not known to have diverged."""
        health, broken = self._experiment.devices.numbers((run.learner.health, run.rollout.broken))
        assert health is not None and broken is not None
        metrics, networks = sorted(run.learner.metrics.total), sorted(train_states(run.learner.agent))
        repeat = self._experiment.spec.action_repeat
        for i, row in enumerate(self._experiment.rows):
            env = min(int(health.env[i]), int(broken[i].min()))
            if env == NEVER:
                self.found[i] = None
                continue
            parts = [name for name, at in zip(("observation", "reward"), broken[i], strict=True) if at == env]
            what = f"the environment sent an {' and a '.join(parts)} that is no finite number".replace("an r", "a r")
            if int(health.env[i]) <= broken[i].min():
                what = _of_update(health, i, metrics, networks)
            self.found[i] = Divergence(row.name, env * repeat, what)
        new = [str(each) for each in self.found if each is not None and str(each) not in self._told]
        self._told.update(new)
        return new

    def restarts(self, run: Run) -> np.ndarray:
        """How often each seed got new networks."""
        assert run.learner.health is not None
        return self._experiment.devices.numbers(run.learner.health.restarts)

    def restart(self, run: Run) -> Run:
        """The run with new networks for the seeds that have diverged; what their replays hold stays."""
        assert run.rollout.broken is not None
        again, devices = self.frozen, self._experiment.devices
        learner = self._experiment.steps.restart(run.learner, self._experiment.keys, jnp.asarray(again))
        broken = np.where(again[:, None], np.asarray(intact()), devices.numbers(run.rollout.broken))
        self.found = [None] * len(again)
        return Run(run.step, learner, replace(run.rollout, broken=devices.fill(jnp.asarray(broken))))


def _of_update(health: Health, i: int, metrics: Sequence[str], networks: Sequence[str]) -> str:
    """What was not finite in the update after which a seed was frozen."""

    def named(bits: int, names: Sequence[str]) -> str:
        return ", ".join(name for place, name in enumerate(names) if bits >> place & 1)

    losses, gradients = named(int(health.losses[i]), metrics), named(int(health.networks[i]), networks)
    parts = ([losses] if losses else []) + ([f"the gradient of {gradients}"] if gradients else [])
    return f"{' and '.join(parts)} not finite in update {int(health.update[i]):,}"


def without_frozen(values: dict[str, np.ndarray], frozen: Bool[np.ndarray, " seeds"]) -> dict[str, np.ndarray]:
    """What is logged, with NaN for what a frozen seed would say of its learning."""
    if not frozen.any():
        return values
    kept = {name for name in values if name in KEPT or name.startswith("time/")}
    return {name: each if name in kept else np.where(frozen, np.nan, each) for name, each in values.items()}


def diverged_seeds(folder: Path, seeds: Sequence[int]) -> list[int]:
    """The seeds of a finished or running run whose newest metrics say that they have diverged."""
    rows = {seed: read_metrics(folder / str(seed) / "metrics.jsonl") for seed in seeds}
    return [seed for seed, found in rows.items() if found and found[-1].get(COLUMN)]
