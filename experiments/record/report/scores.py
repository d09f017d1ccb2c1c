"""What a run has come to, seed by seed: final score, sample efficiency, and how often one run beats another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from experiments.record.report.runs import Line, RunData
from experiments.record.report.series import SEEDS_FOR_AN_INTERVAL
from experiments.record.statistics import FINAL_SHARE, bootstrap_ci, iqm, probability_of_improvement

SHARES = (0.5, 0.9)
"""Of the way from the random policy, or the worst first evaluation, to the best final score."""

Values = Float[np.ndarray, " seeds"]


@dataclass(frozen=True)
class Score:
    """A statistic over the seeds that have one: interquartile mean, and its 95 % interval, NaN below three seeds."""

    values: Values
    middle: float
    low: float
    high: float

    @property
    def finite(self) -> Values:
        """The seeds' values that are numbers."""
        return self.values[np.isfinite(self.values)]


@dataclass(frozen=True)
class Reached:
    """When the seeds of a run came to a goal: `frames` of those that did, of `count` in all."""

    frames: Values
    count: int


def score(values: Sequence[float]) -> Score:
    """The statistic of one value per seed."""
    array = np.array(values, np.float64)
    finite = array[np.isfinite(array)]
    if not len(finite):
        return Score(array, np.nan, np.nan, np.nan)
    low, high = bootstrap_ci(finite) if len(finite) >= SEEDS_FOR_AN_INTERVAL else (np.nan, np.nan)
    return Score(array, float(iqm(finite)), low, high)


def final_score(run: RunData, column: str) -> Score:
    """Each seed's mean over the evaluations in the last fifth of what it has run; no number if one of them is none."""
    return score([_mean(line, (1 - FINAL_SHARE) * run.reached) for line in run.lines(column)])


def mean_score(run: RunData, column: str) -> Score:
    """Each seed's mean over all evaluations but that of the untrained networks: the area under its curve."""
    return score([_mean(line, 0.0) for line in run.lines(column)])


def last_value(run: RunData, column: str) -> Score:
    """Each seed's newest value of a column."""
    return score([line[1][-1] if len(line[1]) else np.nan for line in run.lines(column)])


def median_value(run: RunData, column: str) -> float:
    """Median over log points and seeds; NaN if there is none."""
    values = np.concatenate([np.zeros(0), *(line[1] for line in run.lines(column))])
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else np.nan


def way(runs: Sequence[RunData], column: str) -> tuple[float, float] | None:
    """The way up, from the random policy's return to the best final score; None where no run has one or has risen."""
    finals = [final_score(run, column).middle for run in runs]
    starts = [value for run in runs for line in run.lines("eval/random_return") for value in line[1]]
    starts = starts or [line[1][0] for run in runs for line in run.lines(column) if len(line[1])]
    starts = [value for value in starts if np.isfinite(value)]
    if not np.isfinite(finals).any() or not starts:
        return None
    bottom, top = float(np.mean(starts)), float(np.nanmax(finals))
    return (bottom, top) if top > bottom else None


def goals(ends: tuple[float, float] | None) -> dict[float, float]:
    """The return at each share of the `way`; none where there is no way."""
    return {share: ends[0] + share * (ends[1] - ends[0]) for share in SHARES} if ends else {}


def reached(run: RunData, column: str, goal: float) -> Reached:
    """The frame of each seed's first evaluation at `goal` or above."""
    lines = [line for line in run.lines(column) if len(line[0])]
    hits = [frames[values >= goal] for frames, values in lines]
    return Reached(np.array([frames[0] for frames in hits if len(frames)]), len(lines))


def improvement(ours: Score, theirs: Score) -> tuple[float, float, float] | None:
    """How often a seed of ours beats one of theirs, with the interval where both have three; None without seeds."""
    if not (len(ours.finite) and len(theirs.finite)):
        return None
    share, low, high = probability_of_improvement(ours.finite, theirs.finite)
    if min(len(ours.finite), len(theirs.finite)) < SEEDS_FOR_AN_INTERVAL:
        return share, np.nan, np.nan
    return share, low, high


def _mean(line: Line, after: float) -> float:
    """Mean of what was measured beyond a frame; NaN if any of it is, or nothing was."""
    frames, values = line
    values = values[frames > after]
    return float(values.mean()) if len(values) else np.nan
