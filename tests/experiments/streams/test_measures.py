"""What was lost and what a method keeps, against numbers worked out by hand, and the gate in both directions."""

import re

import numpy as np
import pytest
from fake_streams import noisy, row

from experiments.record.statistics import iqm
from experiments.streams.measures import Estimate, gap_closed, gate, interval, late_means, lost, said

HAND = {
    "fresh": np.array([10.0, 12.0, 11.0, 13.0]),  # iqm: the middle two, 11.5
    "random": np.array([1.0, 2.0, 3.0, 2.0]),  # 2
    "dense": np.array([4.0, 5.0, 7.0, 5.0]),  # 5
    "ne": np.array([9.0, 8.0, 10.0, 30.0]),  # 9.5
}


def test_lost_and_gap_closed_by_hand():
    assert lost(HAND, "dense").value == pytest.approx(1 - 3 / 9.5)
    assert lost(HAND, "ne").value == pytest.approx(1 - 7.5 / 9.5)
    assert gap_closed(HAND, "ne").value == pytest.approx(4.5 / 6.5)
    assert gap_closed(HAND, "random").value == pytest.approx(-3 / 6.5)
    assert lost(HAND, "fresh") == Estimate(0, 0, 0) and lost(HAND, "random") == Estimate(1, 1, 1)
    assert gap_closed(HAND, "fresh") == Estimate(1, 1, 1) and gap_closed(HAND, "dense") == Estimate(0, 0, 0)


def test_intervals_draw_the_same_seeds_in_all_arms():
    """The 95 % of all 4^4 samples, listed one by one."""
    samples = np.stack(np.meshgrid(*[range(4)] * 4)).reshape(4, -1).T
    middle = {name: iqm(values[samples]) for name, values in HAND.items()}
    every = (middle["ne"] - middle["dense"]) / (middle["fresh"] - middle["dense"])
    found = gap_closed(HAND, "ne")
    assert found.low == pytest.approx(np.quantile(every, 0.025), abs=0.02)
    assert found.high == pytest.approx(np.quantile(every, 0.975), abs=0.1)
    every = 1 - (middle["ne"] - middle["random"]) / (middle["fresh"] - middle["random"])
    found = lost(HAND, "ne")
    assert found.low == pytest.approx(np.quantile(every, 0.025), abs=0.1)
    assert found.high == pytest.approx(np.quantile(every, 0.975), abs=0.02)
    # What all arms of a seed share is no uncertainty of a ratio: drawn apart, the interval would be wide.
    shared = 20 * np.arange(8.0)
    arms = {name: middle + shared for name, middle in {"fresh": 10.0, "random": 0.0, "dense": 2.0, "ne": 6.0}.items()}
    assert gap_closed(arms, "ne") == pytest.approx(Estimate(0.5, 0.5, 0.5))


def test_a_gap_that_may_be_none_has_no_interval():
    arms = noisy({"fresh": 1.0, "random": 0.0, "dense": 0.99, "ne": 0.5}, scatter=0.2)
    assert gap_closed(arms, "ne")[1:] == (-np.inf, np.inf)
    assert np.isfinite(lost(arms, "ne")).all()


@pytest.mark.parametrize("covered", [gap_closed, lost])
def test_intervals_cover_the_truth(covered):
    """Of 200 comparisons of ten seeds about 95 % hold the true share; the bootstrap of ten is a little too narrow."""
    truth, hits = {"fresh": 1.0, "random": 0.0, "dense": 0.2, "ne": 0.6}, 0
    for i in range(200):
        found = covered(noisy(truth, scatter=0.1, seed=i), "ne")
        hits += found.low <= (0.5 if covered is gap_closed else 0.4) <= found.high
    assert 0.84 <= hits / 200 <= 0.98


SPREAD = np.linspace(0.5, 1.5, 10)
PLASTIC = {"fresh": 1.0, "random": 0.0, "dense": 0.5}


def test_the_gate_opens_where_there_is_something_to_keep():
    passed, sentence = gate(noisy(PLASTIC))
    assert passed and re.match(r"Ranks: fresh learns, and dense loses (4|5)\d% of", sentence)
    assert gate(noisy(PLASTIC | {"dense": 0.75}))[0]
    assert gate(noisy({"fresh": -300.0, "random": -1200.0, "dense": -1400.0}, scatter=40.0))[0]


@pytest.mark.parametrize(
    "arms, why",
    [
        (noisy(PLASTIC | {"fresh": 0.01, "dense": -0.5}), "fresh .* does not learn"),
        (noisy(PLASTIC | {"fresh": -1.0}), "does not learn"),
        (noisy(PLASTIC | {"dense": 0.9}), r"loses 1?\d%.*, less than 20%"),
        (noisy(PLASTIC | {"dense": 1.3}), r"loses -\d+% of what fresh learns, less than 20%"),
        (noisy(PLASTIC) | {"fresh": SPREAD, "dense": SPREAD - 0.4}, r"loses \d+% .*, but their intervals touch"),
        ({name: values for name, values in noisy(PLASTIC).items() if name != "random"}, "without random nobody"),
        ({"ne": np.ones(3)}, "without fresh and random and dense nobody"),
        (noisy(PLASTIC) | {"dense": np.array([0.5, np.nan])}, "seeds of dense have no finite"),
    ],
)
def test_the_gate_stays_shut(arms, why):
    passed, sentence = gate(arms)
    assert not passed and sentence.startswith("Ranks nothing: ")
    assert re.search(why, sentence), sentence


def test_late_means_are_those_of_late_tasks():
    rows = [
        row("s", arm, seed, task, 10 * seed + task, dormant=task)
        for arm in "ab"
        for seed in (3, 1)
        for task in (2, 1, 3)
    ]
    assert {arm: values.tolist() for arm, values in late_means(rows, 2).items()} == {
        "a": [12.5, 32.5],
        "b": [12.5, 32.5],
    }
    assert late_means(rows, 3, "end")["a"].tolist() == [13.01, 33.01]
    assert (
        late_means(rows, 2, "dormant")["a"].tolist() == [2.5, 2.5] and np.isnan(late_means(rows, 2, "fau")["a"]).all()
    )
    broken = [*rows[:-1], rows[-1]._replace(auc=np.nan)]
    assert np.isnan(late_means(broken, 3)["b"][0]) and np.isnan(interval(late_means(broken, 3)["b"]).value)
    with pytest.raises(ValueError, match="a has no task from 4 on with seed 3"):
        late_means(rows, 4)
    with pytest.raises(ValueError, match="the same seeds"):
        late_means([*rows, row("s", "c", 1, 3, 0.0)], 2)


def test_estimates_in_words():
    assert said(Estimate(-1234.56, -1300.4, -1200.0)) == "-1,235 [-1,300, -1,200]"
    assert said(Estimate(0.5234, 0.5, 0.55)) == "0.523 [0.500, 0.550]"
    assert said(Estimate(0.923, 0.871, 1.02), percent=True) == "92% [87%, 102%]"
    assert said(Estimate(0.5, -np.inf, np.inf), percent=True) == "50% [-inf%, inf%]"
    assert said(Estimate(np.nan, np.nan, np.nan)) == "no number" and said(Estimate(0, 0, 0)) == "0 [0, 0]"
