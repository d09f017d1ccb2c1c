"""The interquartile mean against copies of every value, the bootstrap against all resamples there are."""

import itertools
import math

import numpy as np
import pytest

from experiments.record.statistics import bootstrap_ci, iqm, iqm_bands, probability_of_improvement


def mean(values):
    return np.mean(values, axis=-1)


def copied(values):
    """Of four copies of each value a quarter is a whole number: drop it at both ends, average the rest."""
    copies = sorted(list(values) * 4)
    middle = copies[len(values) : -len(values)]
    return math.fsum(middle) / len(middle)


@pytest.mark.parametrize("runs", range(1, 14))
def test_iqm_against_copies(runs):
    rng = np.random.default_rng(runs)
    lots = rng.normal(size=(2, 3, runs)) * 10 ** rng.uniform(-1, 3)
    expected = [[copied(values) for values in row] for row in lots.tolist()]
    np.testing.assert_allclose(iqm(lots), expected, rtol=1e-12)
    assert iqm(lots).shape == (2, 3) and isinstance(iqm(lots[0, 0]), float)


def test_iqm_by_hand():
    assert iqm(np.array([100.0, 1, 0, 4, 2])) == pytest.approx((0.75 * 1 + 2 + 0.75 * 4) / 2.5)
    assert iqm(np.array([-1e9, 3, 5, 1e9])) == 4
    assert iqm(np.array([7])) == 7 and iqm(np.array([1, 2])) == 1.5
    assert iqm(np.array([0, 3, 9])) == pytest.approx((0.25 * 0 + 3 + 0.25 * 9) / 1.5)
    assert np.isnan(iqm(np.array([1.0, np.nan, 2, 3, 4])))


@pytest.mark.parametrize("statistic", [mean, iqm])
@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_interval_against_all_resamples(statistic, level):
    """Five runs have 5**5 resamples, all equally likely; 40 000 of them know a quantile to one in a hundred or so."""
    values = np.array([3.0, 1.0, 4.1, 1.5, 9.2])
    every = np.array([statistic(np.array(drawn)) for drawn in itertools.product(values, repeat=5)])
    for end, share in zip(
        bootstrap_ci(values, statistic, level=level, samples=40_000), ((1 - level) / 2, (1 + level) / 2)
    ):
        low, high = np.quantile(every, [share - 0.01, share + 0.01])
        assert low - 1e-9 <= end <= high + 1e-9
        assert high - low < 0.3 * (every.max() - every.min())


def test_interval_of_equal_runs_is_a_point():
    assert bootstrap_ci(np.full(4, 2.5)) == (2.5, 2.5) == bootstrap_ci(np.array([2.5]))


def test_interval_follows_its_seed():
    values = np.random.default_rng(0).normal(size=9)
    first = bootstrap_ci(values, samples=500)
    assert first == bootstrap_ci(values, iqm, level=0.95, samples=500, seed=0)
    assert first != bootstrap_ci(values, samples=500, seed=1)
    narrow = bootstrap_ci(values, level=0.5, samples=500)
    assert first[0] < narrow[0] < float(iqm(values)) < narrow[1] < first[1]


@pytest.mark.parametrize("runs, expected", [(5, 0.83), (40, 0.94)])
def test_coverage(runs, expected):
    """How often 95 % intervals of normal samples hold the mean; the share of 600 has a standard error of 0.01-0.015."""
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(600):
        low, high = bootstrap_ci(rng.normal(loc=3, scale=2, size=runs), mean, samples=400, seed=seed)
        hits += low <= 3 <= high
    assert abs(hits / 600 - expected) < 0.04


@pytest.mark.parametrize(
    "values, settings, message",
    [
        ([], {}, "there is no run"),
        ([[1.0, 2.0]], {}, "one finite value per run"),
        ([1.0, np.nan], {}, "one finite value per run"),
        ([1.0], {"level": 95}, "level must lie between 0 and 1, got 95"),
        ([1.0], {"level": 0.0}, "level must lie between 0 and 1"),
        ([1.0], {"samples": 0}, "samples must be a positive number"),
    ],
)
def test_bad_input(values, settings, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_ci(np.array(values), **settings)


def test_iqm_of_nothing():
    for values in (np.zeros((3, 0)), np.array(1.0)):
        with pytest.raises(ValueError, match="there is no run"):
            iqm(values)


@pytest.mark.parametrize("runs", [1, 3, 5, 12])
def test_bands_are_the_intervals_of_each_sorted_row(runs):
    values = np.random.default_rng(runs).normal(size=(4, runs)) * 100
    bands = np.transpose(iqm_bands(values, samples=2_000))
    np.testing.assert_allclose(bands, [bootstrap_ci(np.sort(row), samples=2_000) for row in values], rtol=1e-9)


def test_bands_want_numbers():
    with pytest.raises(ValueError, match="finite"):
        iqm_bands(np.array([[1.0, np.nan]]))


def test_probability_of_improvement_by_hand_and_against_all_resamples():
    ours, theirs = np.array([1.0, 3.0, 5.0]), np.array([2.0, 3.0, 0.0])
    share, low, high = probability_of_improvement(ours, theirs, samples=40_000)
    assert share == pytest.approx((1 + 2.5 + 3) / 9)
    pairs = itertools.product(itertools.product(ours, repeat=3), itertools.product(theirs, repeat=3))
    every = [np.mean([(a > b) + 0.5 * (a == b) for a in one for b in other]) for one, other in pairs]
    for end, quantile in ((low, 0.025), (high, 0.975)):
        assert np.quantile(every, quantile - 0.01) - 1e-9 <= end <= np.quantile(every, quantile + 0.01) + 1e-9
    assert probability_of_improvement(theirs, ours)[0] == pytest.approx(1 - share)
    with pytest.raises(ValueError, match="finite"):
        probability_of_improvement(ours, np.array([np.nan]))
