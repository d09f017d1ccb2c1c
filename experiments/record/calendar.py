"""What there is to do at a step of a run, beside training."""

from __future__ import annotations

from typing import NamedTuple

from ml_collections import ConfigDict

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
        self.every = {
            "log": experiment.every(config.log_every),
            "evaluation": config.eval.every and experiment.every(config.eval.every),
            "checkpoint": experiment.every(config.checkpoint_every),
        }
        """Steps from one of each to the next; 0: there are none."""
        self._stop = stop_step(config, experiment.schedule.total)

    def due(self, step: int) -> Due:
        """What there is to do before this step."""
        schedule, (log_every, eval_every, save_every) = self._schedule, self.every.values()
        last, switched = step == schedule.total, self._tasks is not None and self._tasks.switches(step)
        evaluation = eval_every > 0 and (step % eval_every == 0 or last or switched)
        log = step % log_every == 0 or last or switched or evaluation
        measured = log if not schedule.measure_every else schedule.measures(step) or last or switched
        return Due(evaluation, log, measured, (step % save_every == 0 and step > 0) or last or step == self._stop)

    def next_due(self, step: int) -> int:
        """The first step after this one at which there is something to do."""
        schedule, periods = self._schedule, [each for each in self.every.values() if each]
        due = [schedule.total, schedule.next_measure(step), *((step // every + 1) * every for every in periods)]
        due += [self._stop] if self._stop > step else []
        return min(due + ([self._tasks.next_switch(step)] if self._tasks else []))


def stop_step(config: ConfigDict, total: int) -> int:
    """The first step at or after `stop_at_frame`; `total`, the last one, where that is 0 or later."""
    frames = config.env.action_repeat * config.env.num_envs
    return min(total, -(-config.stop_at_frame // frames)) if config.stop_at_frame else total
