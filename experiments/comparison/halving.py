"""Successive halving (Karnin et al. 2013; Jamieson and Talwalkar 2016): who is trained how far, and who goes on.

All candidates are trained for a part of their frames, the best third of them for three times as many, and so on. The
lengths are those of Hyperband's brackets (Li et al. 2018): the last comparison, of three at most, is of whole runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

ETA = 3
"""One in so many goes on, so many times further."""


class Rung(NamedTuple):
    """One round: so many candidates have been trained up to a frame when they are compared."""

    candidates: int
    frames: int


def rungs_of(candidates: int, total: int, every: int, eta: int = ETA) -> list[Rung]:
    """The rounds by which the best of so many candidates is found.

    Args:
        total: frames of a whole run.
        every: frames from one evaluation to the next. Each round ends with one, so its share is rounded up to that.

    Raises:
        ValueError: two rounds would end with the same evaluation.
    """
    counts = [candidates]
    while counts[-1] > eta:
        counts.append(-(-counts[-1] // eta))
    shares = [eta ** (len(counts) - 1 - i) for i in range(len(counts))]
    frames = [min(total, -(-total // (share * every)) * every) if share > 1 else total for share in shares]
    if len(set(frames)) < len(frames):
        raise ValueError(
            f"{candidates} candidates are tried in {len(counts)} rounds, the first of 1/{shares[0]} of the run, and "
            "two of these would end with the same evaluation; lower eval.every, or try fewer"
        )
    return [Rung(*each) for each in zip(counts, frames, strict=True)]


def cost(rungs: Sequence[Rung]) -> int:
    """Frames that all candidates are trained for together, with one seed."""
    before = [0, *(rung.frames for rung in rungs)]
    return sum(rung.candidates * (rung.frames - begun) for rung, begun in zip(rungs, before))


def within(budget: float, most: int, total: int, every: int, eta: int = ETA) -> int:
    """How many candidates can be tried for so many frames in all, up to `most`.

    More of them may cost less than fewer, for a round that comes before them all is short.

    Raises:
        ValueError: not even two can.
    """
    costs = {}
    for n in range(most, 1, -1):
        with suppress(ValueError):  # too many for so few evaluations
            costs[n] = cost(rungs_of(n, total, every, eta))
    found = next((n for n, each in costs.items() if each <= budget), None)
    if found is None:
        least = min(costs.values())
        raise ValueError(
            f"--budget={budget / total:g} runs are too few to compare two settings: {least / total:.3g} are the least"
        )
    return found


def best(scores: Mapping[str, float], count: int) -> list[str]:
    """The candidates with the highest scores, at most so many, in their order; of equal ones the first.

    One without a score is never among them.
    """
    known = [name for name, score in scores.items() if math.isfinite(score)]
    chosen = sorted(known, key=lambda name: -scores[name])[:count]
    return [name for name in known if name in chosen]
