"""What share of the time goes to what, on a clock made by hand, and in the log of a run."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from experiments.record.progress import Progress, in_percent
from experiments.record.remaining import RemainingTime, regular
from experiments.record.shares import Shares
from experiments.train.loop import Run, train_on_host
from experiments.train.schedule import Schedule
from experiments.train.stopwatch import Stopwatch


class Time:
    """A clock, and the seconds of it that went into compiling."""

    now = compiled = 0.0

    def passes(self, seconds, compiling=0.0):
        self.now += (sum(seconds) if isinstance(seconds, tuple) else seconds) + compiling
        self.compiled += compiling


def step(time, watch, number, compiling=0.0):
    """A step: two seconds of acting, three of the environments and one of anything else."""
    watch.begin(number)
    time.passes(2, compiling)
    watch.acted()
    time.passes(3)
    watch.stepped()
    time.passes(1)
    watch.end()


def test_shares_add_up_and_compiling_is_apart():
    time = Time()
    watch = Stopwatch(lambda: time.now)
    left = {kind: regular(100, 200) for kind in ("log", "evaluation", "checkpoint")}
    remaining = RemainingTime(Schedule(200, 0), 0, left, lambda: time.compiled, lambda: time.now)
    shares = Shares(watch, remaining.spent, lambda: time.compiled)
    for number in range(100):
        step(time, watch, number, compiling=100 if number == 0 else 0)  # the first step is looked at, and not counted
    assert 8 <= watch.steps <= 16
    with remaining.timed("evaluation"):
        time.passes(200, compiling=50)
    found = shares.since(100, 700)
    wanted = {"acting": 200, "environments": 300, "learning": 0, "other": 100}
    wanted |= {"evaluation": 200, "compiling": 150, "logging": 0, "checkpoints": 0}
    assert found == pytest.approx({name: seconds / 950 for name, seconds in wanted.items()})
    with remaining.timed("checkpoint"):
        time.passes(50)
    assert shares.since(0, 0.0)["checkpoints"] == 1  # nothing counts twice
    assert shares.told().startswith("environments 30 %, acting 20 %, evaluation 20 %, compiling 15 %")


def test_what_is_waited_for_before_the_environments_answer_is_stored_is_learning(monkeypatch):
    time = Time()
    monkeypatch.setattr("jax.block_until_ready", time.passes)
    watch = Stopwatch(lambda: time.now)
    watch.begin(0, 4)
    watch.acted()
    watch.stepped(5)
    watch.end()
    assert watch.each() == {"learning": 9, "acting": 0, "environments": 0}


def test_where_the_loop_is_one_program_training_is_one_share():
    spent = {"log": 1.0, "evaluation": 0.0, "checkpoint": 0.0, "compiling": 0.0}
    shares = Shares(None, spent, lambda: 0.0)
    spent["evaluation"] = 3.0
    assert shares.since(10, 9.0) == {
        "training": 0.75, "compiling": 0, "logging": 0, "evaluation": 0.25, "checkpoints": 0,
    }  # fmt: skip


@pytest.mark.parametrize("every", [1, 2, 5, 8, 13])
def test_no_rhythm_of_steps_is_missed(every):
    watch, looked = Stopwatch(), []
    for number in range(1_000 * every):
        watch.begin(number)
        looked += [number] if watch.looking else []
    for phase in range(every):
        assert sum(number % every == phase for number in looked) == pytest.approx(125, abs=13)


def test_the_loop_tells_it_of_every_step():
    """With programs and environments that only let time pass: nothing is compiled."""
    time, steps = Time(), 200
    watch = Stopwatch(lambda: time.now)

    def takes(seconds, result):
        return lambda *_: (time.passes(seconds), result)[1]

    choice = SimpleNamespace(action=np.zeros((2, 1)))
    programs: Any = SimpleNamespace(
        act=takes(2, choice), learn=takes(0, "learner"), remember=takes(1, "rollout"), forget=None
    )
    pool: Any = SimpleNamespace(lanes=2, step=takes(3, None))
    learner: Any = "learner"
    rollout: Any = "rollout"
    start = Run(0, learner, rollout)
    keys: Any = None
    train_on_host(programs, Schedule(steps, 10), pool, keys, start, lambda run: run, stopwatch=watch)
    assert watch.steps == pytest.approx(steps / 8, abs=3)
    assert watch.each() == {"learning": 0, "acting": 2, "environments": 3}


def test_the_plain_line_says_what_time_went_to(capsys):
    progress = Progress("walk", 0, 100, lambda: 60.0)
    values = {"eval/return": 3.0, "time/share_learning": 0.614, "time/share_acting": 0.004, "time/share_other": 0.38}
    progress.show({name: np.array([value]) for name, value in values.items()})
    assert capsys.readouterr().out.endswith(", 01:00 left; time: learning 61 %, other 38 %\n")
    assert in_percent({"learning": float("nan")}) == ""
