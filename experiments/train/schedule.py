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
    task_steps: int = 0
    """Steps of a task, where something begins anew with each; else 0."""
    clears: bool = False
    """The replay is emptied with each task, and updates begin again `first_update` steps later."""
    explores: bool = False
    """What an agent does by the number of its steps, such as acting randomly at first, begins again."""
    renews: bool = False
    """Networks and optimisers are new ones with each task, and so is what they do by the number of updates."""

    def due(self, step: Any) -> Any:
        """Are there updates in this step?"""
        since = step % self.task_steps if self.clears else step
        return (since >= self.first_update) & ((since - self.first_update) % self.every == 0)

    def forgets(self, step: Any) -> Any:
        """Is the dynamic replay checked in this step, after its updates?"""
        return (step > 0) & (step % self.forget_every == 0) if self.forget_every else False

    def updates(self, step: Any) -> Any:
        """Updates made before this step."""
        if not self.clears:
            return self._updates_from(step)
        return step // self.task_steps * self._updates_from(self.task_steps) + self._updates_from(
            step % self.task_steps
        )

    def _updates_from(self, step: Any) -> Any:
        """Updates made in so many steps after the replay was empty."""
        rounds = -((self.first_update - step) // self.every)
        return rounds * (rounds > 0) * self.updates_each

    @property
    def lifetime(self) -> int:
        """Updates that one and the same network gets."""
        if not self.renews:
            return self.updates(self.total)
        return self.updates(2 * self.task_steps) - self.updates(self.task_steps)

    def next_start(self, step: int) -> int:
        """The first step after this one with which updates begin, at first or after the replay was emptied."""
        tasks = (step - self.first_update) // self.task_steps + 1 if self.clears and step >= self.first_update else 0
        return self.first_update + tasks * self.task_steps

    def seeding(self, step: int) -> int:
        """Steps before this one that come before updates begin, at first or after the replay was emptied."""
        if not self.clears:
            return min(step, self.first_update)
        tasks, since = divmod(step, self.task_steps)
        return tasks * min(self.task_steps, self.first_update) + min(since, self.first_update)

    def task(self, step: Any) -> Any:
        """The number of the task of a step, where something begins anew with each; else 0."""
        return step // self.task_steps if self.task_steps else 0

    def at(self, step: Any) -> Clock:
        """The time as agents count it."""
        return Clock(step * self.num_envs, self.updates(step))

    def seen(self, now: Clock) -> Clock:
        """The time by which an agent acts and learns: that since the last switch, as far as it begins anew there."""
        start = self.task(now.env // self.num_envs) * self.task_steps
        env = now.env - start * self.num_envs if self.explores else now.env
        return Clock(env, now.update - self.updates(start) if self.renews else now.update)

    def measures(self, step: int) -> bool:
        """Have the updates before this step just come to a multiple of `measure_every`?"""
        every = self.measure_every
        return bool(every) and (step == 0 or self.updates(step) // every > self.updates(step - 1) // every)

    def next_measure(self, step: int) -> int:
        """The first step after this one that `measures`; the end where none does."""
        if not self.measure_every:
            return self.total
        wanted, start = (self.updates(step) // self.measure_every + 1) * self.measure_every, 0
        if self.clears:
            tasks, wanted = divmod(wanted - 1, max(self._updates_from(self.task_steps), 1))
            start, wanted = tasks * self.task_steps, wanted + 1
        return start + self.first_update + (-(-wanted // self.updates_each) - 1) * self.every + 1
