"""How long a run still takes: each kind of work at its own pace, and no time for compiling, which comes once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from experiments.train.schedule import Schedule

HALF_LIFE = 300.0
"""Seconds of training after which what was timed counts half: the pace of a machine changes."""
COMPILING = "compiling"
"""What was compiled in pieces, among what `RemainingTime.spent` knows."""


class Pace:
    """Seconds per step, the newest counting most."""

    def __init__(self) -> None:
        self._seconds = self._steps = 0.0

    def add(self, steps: int, seconds: float) -> None:
        """So many steps took so long."""
        kept = 0.5 ** (seconds / HALF_LIFE)
        self._seconds, self._steps = kept * self._seconds + seconds, kept * self._steps + steps

    def seconds(self, steps: int, other: Pace | None = None) -> float | None:
        """What so many steps take, at the pace of `other` where none was timed; None: not known yet."""
        if not steps:
            return 0.0
        if not self._steps:
            return other.seconds(steps) if other else None
        return steps * self._seconds / self._steps


class RemainingTime:
    """Times what a run does, and says how long the rest takes.

    Steps before the first update, with whatever is done at them, and steps of training have a pace each. All else is
    timed by the piece: `with remaining.timed("evaluation"): ...`. What was compiled meanwhile is left out.

    Args:
        begin: the step that this process starts from.
        left: of each kind of piece, how many come after a step.
        compiled: seconds that this process has compiled so far.
    """

    def __init__(
        self,
        schedule: Schedule,
        begin: int,
        left: Mapping[str, Callable[[int], int]],
        compiled: Callable[[], float],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._schedule, self._left, self._compiled, self._clock = schedule, left, compiled, clock
        self._seeding, self._learning = Pace(), Pace()
        self._pieces: dict[str, list[float]] = {kind: [] for kind in left}
        self.spent: dict[str, float] = dict.fromkeys([*left, COMPILING], 0.0)
        """Seconds so far of each kind of piece, and apart from them those that all pieces have compiled."""
        self._rough: dict[str, float] = {}  # of kinds that were timed while something was compiled only
        self._step, self._at, self._compiled_at = begin, clock(), compiled()

    def trained(self, step: int) -> None:
        """The run has come to `step`; what was timed since it was last said is no training."""
        now, compiled = self._clock(), self._compiled()
        steps = step - self._step
        if steps and compiled == self._compiled_at:
            seeding = self._schedule.seeding(step) - self._schedule.seeding(self._step)
            (self._seeding if seeding == steps else self._learning).add(steps, now - self._at)
        self._step, self._at, self._compiled_at = step, now, compiled

    @contextmanager
    def timed(self, kind: str) -> Iterator[None]:
        """A piece of work of this kind."""
        begun, compiled = self._clock(), self._compiled()
        yield
        seconds, compiling = self._clock() - begun, self._compiled() - compiled
        self.spent[kind] += seconds - compiling
        self.spent[COMPILING] += compiling
        if compiling:
            self._rough[kind] = max(seconds - compiling, 0.0)
        else:
            self._pieces[kind].append(seconds)
        self._at += seconds
        self._compiled_at += compiling

    def seconds(self) -> float | None:
        """What comes after the step that was last said; None while something of it was not timed yet."""
        schedule, step = self._schedule, self._step
        seed_steps = schedule.seeding(schedule.total) - schedule.seeding(step)
        learn_steps = schedule.total - step - seed_steps
        found = [self._seeding.seconds(seed_steps, self._learning), self._learning.seconds(learn_steps)]
        found += [self._of_pieces(kind, left(step)) for kind, left in self._left.items()]
        known = [each for each in found if each is not None]
        return sum(known) if len(known) == len(found) else None

    def _of_pieces(self, kind: str, left: int) -> float | None:
        """What so many pieces take. A kind that never came yet is left out: what it is like shows when it comes."""
        timed = self._pieces[kind]
        each = sum(timed) / len(timed) if timed else self._rough.get(kind, 0.0)
        return left * each


def regular(every: int, total: int) -> Callable[[int], int]:
    """How many steps after a given one are multiples of `every`, or the last one; none where `every` is 0."""

    def left(step: int) -> int:
        if not every or step >= total:
            return 0
        return total // every - step // every + (total % every > 0)

    return left
