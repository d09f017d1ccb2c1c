"""From rows to answers: what was lost, which share of the gap a method closes, and whether a stream may rank at all.

A is the performance of an arm: for each seed the mean over the late tasks, over seeds the interquartile mean (IQM).

    lost(arm) = 1 - (A - A_random) / (A_fresh - A_random)
    gap closed(arm) = (A - A_dense) / (A_fresh - A_dense)

Both are ratios of differences of IQMs. Seeds are paired, for a seed has the same tasks in every arm: a bootstrap sample
draws seeds with replacement, takes the same ones in all arms, forms each arm's IQM anew, and then the ratio (Efron and
Tibshirani 1993, section 8: resample the independent unit, which is the seed with all that was measured on it). A ratio
per seed would be worse: its denominator is small in some seeds. The interval is the middle 95 % of 10,000 samples.
Where more than 2.5 % of them have a denominator of zero or less, the percentiles mean nothing, and the interval is
(-inf, inf).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from experiments.record.statistics import bootstrap_ci, iqm
from experiments.streams.types import DENSE, FRESH, RANDOM, TaskRow

LEAST_LOSS = 0.2
"""The share of what a fresh network learns that the dense one must lose."""
LEVEL, SAMPLES = 0.95, 10_000
Values = Float[np.ndarray, " seeds"]


class Estimate(NamedTuple):
    """A number with its interval; NaN where it is none."""

    value: float
    low: float
    high: float


class Verdict(NamedTuple):
    """Does a stream rank methods, and why."""

    passed: bool
    sentence: str


def late_means(rows: Sequence[TaskRow], late: int, field: str = "auc") -> dict[str, Values]:
    """For each arm the mean of `auc` or `end`, or of a measure, over the tasks from `late` on, one value a seed.

    Seeds are in ascending order, and the same in all arms. NaN for a seed in which a value is missing or not finite.

    Raises:
        ValueError: arms differ in their seeds, or a seed has no late task.
    """
    found: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        of_seed = found.setdefault(row.method, {}).setdefault(row.seed, [])
        if row.task >= late:
            of_seed.append(getattr(row, field) if field in ("auc", "end") else row.measures.get(field, np.nan))
    seeds = {arm: sorted(of_arm) for arm, of_arm in found.items()}
    if len({tuple(each) for each in seeds.values()}) > 1:
        raise ValueError(f"arms must have the same seeds, got {seeds}")
    for arm, of_arm in found.items():
        for seed, values in of_arm.items():
            if not values:
                raise ValueError(f"{arm} has no task from {late} on with seed {seed}")
    return {arm: np.array([np.mean(of_arm[seed]) for seed in seeds[arm]]) for arm, of_arm in found.items()}


def interval(values: Values) -> Estimate:
    """IQM over seeds and its bootstrap interval; all NaN if a value is not finite."""
    if not np.isfinite(values).all():
        return Estimate(np.nan, np.nan, np.nan)
    return Estimate(float(iqm(values)), *bootstrap_ci(values, level=LEVEL, samples=SAMPLES))


def lost(arms: Mapping[str, Values], name: str) -> Estimate:
    """1 - (A - A_random) / (A_fresh - A_random): 0 as a fresh network, 1 no better than chance."""
    share = _ratio(arms[name], arms[RANDOM], arms[FRESH])
    return Estimate(1 - share.value, 1 - share.high, 1 - share.low)


def gap_closed(arms: Mapping[str, Values], name: str) -> Estimate:
    """(A - A_dense) / (A_fresh - A_dense): 0 as the dense network, 1 as a fresh one."""
    return _ratio(arms[name], arms[DENSE], arms[FRESH])


def _ratio(values: Values, zero: Values, one: Values) -> Estimate:
    """Where `values` lie between `zero` and `one`, by their IQMs, seeds resampled together."""
    stacked = np.stack([values, zero, one])
    if not np.isfinite(stacked).all():
        return Estimate(np.nan, np.nan, np.nan)
    value, _ = _share(stacked)
    drawn = np.random.default_rng(0).integers(stacked.shape[1], size=(SAMPLES, stacked.shape[1]))
    shares, positive = _share(stacked[:, drawn])
    tail = (1 - LEVEL) / 2
    if np.mean(~positive) > tail:
        return Estimate(float(value), -np.inf, np.inf)
    low, high = np.quantile(shares[positive], [tail, 1 - tail])
    return Estimate(float(value), float(low), float(high))


def _share(stacked: Float[np.ndarray, "3 *lots seeds"]) -> tuple[Float[np.ndarray, "*lots"], np.ndarray]:
    middle, zero, one = iqm(stacked)
    gap = one - zero
    with np.errstate(divide="ignore", invalid="ignore"):
        return (middle - zero) / gap, gap > 0


def gate(arms: Mapping[str, Values]) -> Verdict:
    """A stream ranks methods only if there is something to lose, and the dense network loses it.

    The fresh network's interval must lie above the random policy's, the dense network must lose at least a fifth of
    what the fresh one learns, and their intervals must not touch.
    """
    missing = [name for name in (FRESH, RANDOM, DENSE) if name not in arms]
    if missing:
        return Verdict(False, f"Ranks nothing: without {' and '.join(missing)} nobody knows what there is to lose.")
    fresh, random, dense = (interval(arms[name]) for name in (FRESH, RANDOM, DENSE))
    broken = [name for name, each in ((FRESH, fresh), (RANDOM, random), (DENSE, dense)) if np.isnan(each.value)]
    if broken:
        return Verdict(False, f"Ranks nothing: some seeds of {' and '.join(broken)} have no finite performance.")
    if not fresh.low > random.high:
        return Verdict(False, f"Ranks nothing: fresh {said(fresh)} does not learn, for random has {said(random)}.")
    loss = lost(arms, DENSE)
    share = f"dense loses {loss.value:.0%} of what fresh learns"
    if loss.value < LEAST_LOSS:
        return Verdict(False, f"Ranks nothing: {share}, less than {LEAST_LOSS:.0%}, so there is nothing to keep.")
    both = f"dense {said(dense)}, fresh {said(fresh)}"
    if not dense.high < fresh.low:
        return Verdict(False, f"Ranks nothing: {share}, but their intervals touch: {both}.")
    return Verdict(True, f"Ranks: fresh learns, and {share}, intervals apart: {both}, random {said(random)}.")


def said(estimate: Estimate, percent: bool = False) -> str:
    """An estimate in words, with as many digits as its size bears."""
    value, low, high = estimate
    if np.isnan(value):
        return "no number"
    if percent:
        digits = ".0%"
    else:
        finite = [abs(each) for each in estimate if np.isfinite(each) and each]
        digits = f",.{int(np.clip(2 - np.floor(np.log10(max(finite))), 0, 3)) if finite else 0}f"
    return f"{value:{digits}} [{low:{digits}}, {high:{digits}}]"
