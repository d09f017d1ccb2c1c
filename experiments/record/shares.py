"""What share of a run's time goes to what, between two rows of its log and in all."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from experiments.record.progress import in_percent
from experiments.record.remaining import COMPILING
from experiments.train.stopwatch import PARTS, Stopwatch

PIECES = {"log": "logging", "evaluation": "evaluation", "checkpoint": "checkpoints"}
"""What `RemainingTime.timed` calls them, and what they are called here."""


class Shares:
    """Shares of the time since the last call, which add up to one.

    On the host: `learning`, `acting`, `environments` as a `Stopwatch` saw them, and `other`, what else the loop does.
    On the device that is one program, and one share: `training`. Both: `compiling`, and what comes between steps.

    Args:
        stopwatch: None where the loop runs on the device.
        spent: seconds so far of each piece in `PIECES`, without those that all of them have compiled, `COMPILING`.
        compiled: seconds of compiling so far.
    """

    def __init__(self, stopwatch: Stopwatch | None, spent: Mapping[str, float], compiled: Callable[[], float]) -> None:
        self._stopwatch, self._spent, self._compiled = stopwatch, spent, compiled
        self._told, self._total = self._now(), dict[str, float]()
        if stopwatch:
            stopwatch.compiling = compiled

    def _now(self) -> dict[str, float]:
        pieces = {name: self._spent[kind] for kind, name in PIECES.items()}
        return {"compiling": self._compiled(), "of pieces": self._spent[COMPILING], **pieces}

    def since(self, steps: int, seconds: float) -> dict[str, float]:
        """The shares since the last call, in which so many steps of the loop took so long, compiling included.

        Args:
            seconds: of the loop alone, without the pieces.
        """
        now = self._now()
        found = {name: now[name] - self._told[name] for name in now}
        self._told = now
        in_loop = found["compiling"] - found.pop("of pieces")
        found = self._of_loop(steps, max(seconds - in_loop, 0.0)) | found
        self._total = {name: self._total.get(name, 0.0) + each for name, each in found.items()}
        return _shares(found)

    def _of_loop(self, steps: int, seconds: float) -> dict[str, float]:
        if self._stopwatch is None:
            return {"training": seconds}
        each = self._stopwatch.each()
        self._stopwatch.empty()
        parts = {name: each.get(name, 0.0) * steps for name in PARTS}
        scale = min(1.0, seconds / max(sum(parts.values()), 1e-9))  # a few steps stand for all: they may say too much
        parts = {name: scale * part for name, part in parts.items()}
        return parts | {"other": seconds - sum(parts.values())}

    def told(self) -> str:
        """Those of all of the run so far, but for steps since the last call of `since`, in words."""
        self.since(0, 0.0)
        return in_percent(_shares(self._total))


def _shares(seconds: Mapping[str, float]) -> dict[str, float]:
    total = sum(seconds.values())
    return {name: each / total if total > 0 else math.nan for name, each in seconds.items()}
