"""What there is to do at a step of a run, beside training."""

from __future__ import annotations

from typing import NamedTuple

from experiments.build.experiment import Experiment


class Due(NamedTuple):
    """What there is to do at a step."""

    evaluation: bool
    log: bool
    measured: bool
    save: bool

    @property
    def row(self) -> bool:
        """Whether there is a row of metrics to write."""
        return self.log or self.measured


class Calendar:
    """When a run logs, measures, evaluates and saves."""

    def __init__(self, experiment: Experiment) -> None:
        config = experiment.config
        self._schedule, self._tasks = experiment.schedule, experiment.tasks
        self._log_every = experiment.every(config.log_every)
        self.eval_every = config.eval.every and experiment.every(config.eval.every)
        """Steps from one evaluation to the next; 0: there are none."""
        self._save_every = experiment.every(config.checkpoint_every)

    def due(self, step: int) -> Due:
        """What there is to do before this step."""
        schedule = self._schedule
        last, switched = step == schedule.total, self._tasks is not None and self._tasks.switches(step)
        evaluation = self.eval_every > 0 and (step % self.eval_every == 0 or last or switched)
        log = step % self._log_every == 0 or last or switched or evaluation
        measured = log if not schedule.measure_every else schedule.measures(step) or last or switched
        return Due(evaluation, log, measured, (step % self._save_every == 0 and step > 0) or last)

    def next_due(self, step: int) -> int:
        """The first step after this one at which there is something to do."""
        periods, schedule = (self._log_every, self.eval_every or self._log_every, self._save_every), self._schedule
        due = [schedule.total, schedule.next_measure(step), *((step // every + 1) * every for every in periods)]
        return min(due + ([self._tasks.next_switch(step)] if self._tasks else []))
