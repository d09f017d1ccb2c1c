"""Where the time of a step on the host goes: to the environments, or to waiting for the device."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax

SHARE = 1 / 8
"""Of steps that are looked at."""
GOLDEN = 0.6180339887498949
"""Its multiples, less their whole numbers, lie evenly, so no rhythm of updates is missed or hit too often."""
PARTS = ("learning", "acting", "environments")
_PIECES = ("learning", "acting", "environments", "learning")
"""What lies between two marks of a step, in their order."""


class Stopwatch:
    """Seconds of the parts of the steps that were looked at; the loop calls `begin`, `acted`, `stepped` and `end`.

    The device learns while the environments step. What it takes longer than they do is waited for before what came is
    stored, which an update reads until it is done, or before the next action. Only that wait is `learning` (of updates,
    and of storing), so the parts add up to what the user waits. It is told apart from the others by waiting more
    often than needed, which costs a step the time of a dispatch or two.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.compiling: Callable[[], float] = lambda: 0.0
        """Seconds of compiling so far; a step in which they grew is not counted."""
        self.empty()

    def empty(self) -> None:
        """Forget all that was counted."""
        self.steps, self.seconds, self._marks = 0, [0.0] * (len(_PIECES) + 1), []

    @property
    def looking(self) -> bool:
        """Is the present step looked at?"""
        return bool(self._marks)

    def begin(self, step: int, *waited: Any) -> None:
        """A step begins, with these arrays being computed."""
        self._marks = []
        if step * GOLDEN % 1 < SHARE:
            self._compiled = self.compiling()
            self._mark()
            self._wait(waited)

    def acted(self) -> None:
        """The actions are there."""
        self._mark_if_looking()

    def stepped(self, *waited: Any) -> None:
        """The environments have answered, with these arrays being computed."""
        if self.looking:
            self._mark()
            self._wait(waited)

    def end(self) -> None:
        """All of the step is done or dispatched."""
        self._mark_if_looking()
        if self.looking and self.compiling() == self._compiled:
            self.steps += 1
            parts = [after - before for before, after in zip(self._marks, self._marks[1:])]
            self.seconds = [total + part for total, part in zip(self.seconds, parts)]

    def each(self) -> dict[str, float]:
        """Mean seconds per step of each part; empty where none was looked at. What is left of a step is dispatching."""
        if not self.steps:
            return {}
        totals = dict.fromkeys(PARTS, 0.0)
        for name, seconds in zip(_PIECES, self.seconds):
            totals[name] += seconds
        return {name: seconds / self.steps for name, seconds in totals.items()}

    def _wait(self, arrays: Any) -> None:
        jax.block_until_ready(arrays)
        self._mark()

    def _mark_if_looking(self) -> None:
        if self.looking:
            self._mark()

    def _mark(self) -> None:
        self._marks.append(self._clock())
