"""Successive halving beside an account of it by brute force, on scores that are made up."""

import math
import random

import pytest

from experiments.comparison.halving import Rung, best, cost, rungs_of, within


def winner(scores, rungs):
    """As the program does it, without runs: `scores[candidate][frame]`."""
    left = list(scores)
    for rung, following in zip(rungs, [*(each.candidates for each in rungs[1:]), 1], strict=True):
        assert len(left) == rung.candidates
        left = best({name: scores[name][rung.frames] for name in left}, following)
    return left[0]


def brute_force(scores, total, every, eta):
    """The winner and the frames that were spent, counted frame by frame over a list of the living."""
    living, rounds = [*scores], 1
    while eta**rounds < len(living):
        rounds += 1
    reached, spent = dict.fromkeys(living, 0), 0
    for k in range(rounds):
        length = total / eta ** (rounds - 1 - k)
        for name in living:
            while reached[name] < length or (reached[name] % every and reached[name] < total):
                reached[name] += 1
                spent += 1
        goes_on = math.ceil(len(living) / eta) if k < rounds - 1 else 1
        for _ in range(len(living) - goes_on):
            worst = min(reversed(living), key=lambda name: scores[name][reached[name]])  # of equal ones the last
            living.remove(worst)
    return living[0], spent


@pytest.mark.parametrize("seed", range(40))
def test_winner_and_frames_are_those_of_brute_force(seed):
    rng = random.Random(seed)
    eta, every = rng.choice([2, 3, 4]), rng.choice([1, 5, 20])
    count, total = rng.randint(2, 30), every * rng.randint(40, 60) + rng.choice([0, 3])
    scores = {f"c{i}": [rng.randint(0, 6) for _ in range(total + 1)] for i in range(count)}  # with many equal ones
    rungs = rungs_of(count, total, every, eta)
    assert (winner(scores, rungs), cost(rungs)) == brute_force(scores, total, every, eta)


def test_the_rounds_of_nine_ten_and_three():
    assert rungs_of(9, 900, 1) == [Rung(9, 300), Rung(3, 900)]
    assert rungs_of(10, 900, 50) == [Rung(10, 100), Rung(4, 300), Rung(2, 900)]
    assert rungs_of(3, 900, 1) == [Rung(3, 900)]  # three are compared as a whole: there is nothing to save
    assert cost(rungs_of(9, 900, 1)) == 9 * 300 + 3 * 600


def test_whoever_is_always_best_wins():
    scores = {f"c{i}": [-abs(i - 17)] * 1001 for i in range(27)}
    assert winner(scores, rungs_of(27, 1000, 10)) == "c17"


def test_without_a_score_nobody_goes_on():
    scores = {"a": 1.0, "b": math.nan, "c": 3.0, "d": -math.inf, "e": 3.0}
    assert best(scores, 2) == ["c", "e"] and best(scores, 5) == ["a", "c", "e"] and best({"a": math.nan}, 1) == []


def test_a_budget_is_kept_by_trying_as_many_as_it_reaches_for():
    for budget in (2.0, 2.7, 3.5, 5.0, 9.0, 100.0):
        count = within(budget * 900, 27, 900, 10)
        assert cost(rungs_of(count, 900, 10)) <= budget * 900
        assert all(cost(rungs_of(n, 900, 10)) > budget * 900 for n in range(count + 1, 28))
    with pytest.raises(ValueError, match=r"--budget=1\.5 runs are too few to compare two settings: 2 are the least"):
        within(1.5 * 900, 3, 900, 10)


def test_rounds_that_would_end_with_the_same_evaluation_are_a_sentence():
    with pytest.raises(ValueError, match=r"4 candidates are tried in 2 rounds.*lower eval\.every, or try fewer"):
        rungs_of(4, 900, 900)
    assert within(900 * 9, 9, 900, 900) == 3
