"""What several runs say together: the interquartile mean, and confidence intervals by bootstrap."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

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
