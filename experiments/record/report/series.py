"""Curves over the seeds of a run: the interquartile mean at each frame, its interval, and the seeds themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from experiments.record.report.runs import Line, RunData
from experiments.record.statistics import iqm, iqm_bands

POINTS = 200
"""Of a curve at most; of longer ones every k-th is drawn, and --csv writes all."""
SEEDS_FOR_AN_INTERVAL = 3

Values = Float[np.ndarray, " points"]


@dataclass(frozen=True)
class Curve:
    """A curve of a chart.

    Args:
        style: which colour, dash and marker; that of the run.
        middle: the interquartile mean over the seeds that have a number there; NaN where none has.
        low: of the 95 % interval; NaN where fewer than three seeds have a number.
        counts: how many seeds have a number.
        seeds: the seeds' own lines.
    """

    label: str
    style: int
    frames: Values
    middle: Values
    low: Values
    high: Values
    counts: Int[np.ndarray, " points"]
    seeds: list[Line]

    def __bool__(self) -> bool:
        return bool(np.isfinite(self.middle).any())


def curve(run: RunData, column: str, seeds: bool = True) -> Curve:
    """A column of a run over all its seeds."""
    lines = run.lines(column)
    frames, values = _aligned(lines)
    middle, low, high = band(values)
    shown = [_thinned(line) for line in lines if len(line[0])] if seeds else []
    return Curve(run.label, run.style, frames, middle, low, high, np.isfinite(values).sum(axis=1), shown)


def band(values: Float[np.ndarray, "points seeds"]) -> tuple[Values, Values, Values]:
    """The interquartile mean of each row over what is a number in it, and the interval where there are three."""
    middle, low, high = (np.full(len(values), np.nan) for _ in range(3))
    present = np.isfinite(values)
    for pattern in np.unique(present, axis=0):
        count = int(pattern.sum())
        rows = (present == pattern).all(axis=1)
        if not count:
            continue
        among = values[rows][:, pattern]
        middle[rows] = iqm(among)
        if count >= SEEDS_FOR_AN_INTERVAL:
            low[rows], high[rows] = iqm_bands(among)
    return middle, low, high


def _aligned(lines: list[Line]) -> tuple[Values, Float[np.ndarray, "points seeds"]]:
    """All frames at which some seed has a row, and the values there; NaN where a seed has none."""
    everywhere = [frames for frames, _ in lines if len(frames)]
    frames = np.unique(np.concatenate(everywhere)) if everywhere else np.zeros(0)
    values = np.full((len(frames), len(lines)), np.nan)
    for i, (own, found) in enumerate(lines):
        values[np.searchsorted(frames, own), i] = found
    keep = _some(len(frames))
    return frames[keep], values[keep]


def _thinned(line: Line) -> Line:
    keep = _some(len(line[0]))
    return line[0][keep], line[1][keep]


def _some(count: int) -> Int[np.ndarray, " kept"]:
    """Indices of points to draw: all, or evenly spread ones with both ends."""
    return np.unique(np.linspace(0, count - 1, min(count, POINTS)).round().astype(int)) if count else np.zeros(0, int)
