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


class Stopwatch:
    """Seconds of the parts of the steps that were looked at; the loop calls `begin`, `acted`, `stepped` and `end`.

    The device learns while the environments step. What it takes longer than they do is waited for before the next
    action, and only that wait is `learning` (of updates, and of storing what came), so the parts add up to what the
    user waits. It is told apart from `acting` by waiting twice, which costs a step the time of one dispatch.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.compiling: Callable[[], float] = lambda: 0.0
        """Seconds of compiling so far; a step in which they grew is not counted."""
        self.empty()

    def empty(self) -> None:
        """Forget all that was counted."""
        self.steps, self.seconds, self._marks = 0, [0.0] * (len(PARTS) + 1), []

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
            jax.block_until_ready(waited)
            self._mark()

    def acted(self) -> None:
        """The actions are there."""
        self._mark_if_looking()

    def stepped(self) -> None:
        """The environments have answered."""
        self._mark_if_looking()

    def end(self) -> None:
        """All of the step is done or dispatched."""
        self._mark_if_looking()
        if self.looking and self.compiling() == self._compiled:
            self.steps += 1
            parts = [after - before for before, after in zip(self._marks, self._marks[1:])]
            self.seconds = [total + part for total, part in zip(self.seconds, parts)]

    def each(self) -> dict[str, float]:
        """Mean seconds per step of each part; empty where none was looked at. What is left of a step is dispatching."""
        return {name: total / self.steps for name, total in zip(PARTS, self.seconds)} if self.steps else {}

    def _mark_if_looking(self) -> None:
        if self.looking:
            self._mark()

    def _mark(self) -> None:
        self._marks.append(self._clock())
