"""What several runs say together: the interquartile mean, and confidence intervals by bootstrap."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

FINAL_SHARE = 0.2
"""The share of a run, at its end, whose evaluations make its final return."""
Statistic = Callable[[Float[np.ndarray, "*lots runs"]], Float[np.ndarray, "*lots"]]


def iqm(values: Float[np.ndarray, "*lots runs"]) -> Float[np.ndarray, "*lots"]:
    """Mean of the middle half of the values along the last axis, a quarter of them left out at each end.

    Where a quarter is no whole number, the values at the edges count in part: of five runs the middle one counts 1, its
    neighbours 3/4 each, the outer ones nothing, together 5/2. After Agarwal et al. 2021, whose `trim_mean` rounds the
    quarter down instead. Not a number if any value is not.

    Raises:
        ValueError: there are no values.
    """
    values = np.asarray(values, np.float64)
    _check_runs(values)
    runs = values.shape[-1]
    # Value i covers [i, i + 1] of the axis from 0 to `runs`, whose middle half counts.
    edges = np.clip(np.arange(runs + 1), runs / 4, 3 * runs / 4)
    return np.sort(values, axis=-1) @ (np.diff(edges) / (runs / 2))


def bootstrap_ci(
    values: Float[np.ndarray, " runs"],
    statistic: Statistic = iqm,
    *,
    level: float = 0.95,
    samples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap: the interval that holds the middle `level` of the statistic over resampled runs.

    Runs are drawn with replacement, as many as there are (Efron 1979). With few runs it is too narrow: the mean of five
    normal values lies in its 95 % interval about 83 % of the time.

    Args:
        statistic: reduces the last axis, such as `iqm`, or `lambda x: np.mean(x, axis=-1)`.
        level: share of the distribution inside, in (0, 1).

    Raises:
        ValueError: `values` is not a list of one run or more, all finite, or `level` or `samples` is out of range.
    """
    values = np.asarray(values, np.float64)
    _check_runs(values)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError(f"a bootstrap needs one finite value per run, got {values}; leave out what was not measured")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}; 95 % is 0.95")
    if samples < 1:
        raise ValueError(f"samples must be a positive number of resamples, got {samples}")
    drawn = np.random.default_rng(seed).integers(len(values), size=(samples, len(values)))
    low, high = np.quantile(statistic(values[drawn]), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _check_runs(values: Float[np.ndarray, "*lots runs"]) -> None:
    if values.ndim < 1 or values.shape[-1] < 1:
        raise ValueError(f"there is no run to take a statistic of: values of shape {values.shape}")


def iqm_bands(
    values: Float[np.ndarray, "points runs"], *, level: float = 0.95, samples: int = 10_000, seed: int = 0
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """The intervals that `bootstrap_ci` gives for the interquartile mean of each row, once sorted, all at once.

    Which runs are drawn is the same for all rows, so the mean of a resample is a product of the sorted row with weights
    that are computed once: how often each rank was drawn into which place. Of few runs there are few different
    resamples, and each is computed once.

    Raises:
        ValueError: as `bootstrap_ci`.
    """
    values = np.asarray(values, np.float64)
    _check_runs(values)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise ValueError("bands need a finite value of each run at each point; leave out what was not measured")
    runs = values.shape[1]
    drawn = np.sort(np.random.default_rng(seed).integers(runs, size=(samples, runs)), axis=1)
    drawn, counts = np.unique(drawn, axis=0, return_counts=True)
    edges = np.clip(np.arange(runs + 1), runs / 4, 3 * runs / 4)
    weights = np.zeros(drawn.shape)
    np.add.at(weights, (np.arange(len(drawn))[:, None], drawn), np.diff(edges) / (runs / 2))
    means = np.sort(values, axis=1) @ weights.T
    order = np.argsort(means, axis=1)
    means, ends = np.take_along_axis(means, order, axis=1), np.cumsum(counts[order], axis=1)
    low, high = (_quantile(means, ends, share) for share in ((1 - level) / 2, (1 + level) / 2))
    return low, high


def _quantile(
    values: Float[np.ndarray, "points different"], ends: Int[np.ndarray, "points different"], share: float
) -> Float[np.ndarray, " points"]:
    """As `np.quantile` of values that come several times; `ends` counts them and those before, in ascending order."""
    place = share * (ends[0, -1] - 1) if len(ends) else 0.0
    below, above = (
        np.take_along_axis(values, (ends > rank).argmax(axis=1)[:, None], axis=1)[:, 0]
        for rank in (np.floor(place), np.ceil(place))
    )
    return below + (place - np.floor(place)) * (above - below)


def probability_of_improvement(
    ours: Float[np.ndarray, " runs"],
    theirs: Float[np.ndarray, " others"],
    *,
    level: float = 0.95,
    samples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """How often a run of ours ends above one of theirs, over all pairs, a tie as half, and its bootstrap interval.

    After Agarwal et al. 2021. Both sides are resampled, each among its own.

    Raises:
        ValueError: a side has no run, or a value that is no number.
    """
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    for side in (ours, theirs):
        _check_runs(side)
        if side.ndim != 1 or not np.isfinite(side).all():
            raise ValueError(
                f"a comparison needs one finite value per run, got {side}; leave out what was not measured"
            )
    wins = (ours[:, None] > theirs) + 0.5 * (ours[:, None] == theirs)
    random = np.random.default_rng(seed)
    rows = random.integers(len(ours), size=(samples, len(ours)))
    columns = random.integers(len(theirs), size=(samples, len(theirs)))
    drawn = wins[rows[:, :, None], columns[:, None, :]].mean(axis=(1, 2))
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(wins.mean()), float(low), float(high)
