"""When things happen in a run."""

from __future__ import annotations

from typing import Any, NamedTuple

from agents.types import Clock


class Schedule(NamedTuple):
    """When things happen, in steps of the loop, in each of which every environment takes one agent step.

    Everything is a function of the step alone, traced or not, so that a run resumes exactly.
    """

    total: int
    first_update: int
    every: int = 1
    """Steps from one that updates to the next."""
    updates_each: int = 1
    """Updates in a step that updates."""
    num_envs: int = 1
    forget_every: int = 0
    """Steps from one check of the dynamic replay to the next; 0 where there is none."""
    measure_every: int = 0
    """Updates from one measurement of plasticity to the next; 0 where that is the log's business."""

    def due(self, step: Any) -> Any:
        """Are there updates in this step?"""
        return (step >= self.first_update) & ((step - self.first_update) % self.every == 0)

    def forgets(self, step: Any) -> Any:
        """Is the dynamic replay checked in this step, after its updates?"""
        return (step > 0) & (step % self.forget_every == 0) if self.forget_every else False

    def updates(self, step: Any) -> Any:
        """Updates made before this step."""
        rounds = -((self.first_update - step) // self.every)
        return rounds * (rounds > 0) * self.updates_each

    def at(self, step: Any) -> Clock:
        """The time as agents count it."""
        return Clock(step * self.num_envs, self.updates(step))

    def measures(self, step: int) -> bool:
        """Have the updates before this step just come to a multiple of `measure_every`?"""
        every = self.measure_every
        return bool(every) and (step == 0 or self.updates(step) // every > self.updates(step - 1) // every)

    def next_measure(self, step: int) -> int:
        """The first step after this one that `measures`; the end where none does."""
        if not self.measure_every:
            return self.total
        wanted = (self.updates(step) // self.measure_every + 1) * self.measure_every
        return self.first_update + (-(-wanted // self.updates_each) - 1) * self.every + 1
