"""The time that is left: each kind of work at its own pace, on a clock made by hand, and what is shown of it."""

import io
import sys

import numpy as np
import pytest

from experiments.record.progress import Progress, in_words
from experiments.record.remaining import RemainingTime, regular
from experiments.train.schedule import Schedule


class Time:
    """A clock, and the seconds of it that went into compiling."""

    now = compiled = 0.0

    def passes(self, seconds, compiling=0.0):
        self.now += seconds + compiling
        self.compiled += compiling


def remaining_of(time, schedule, begin=0, **every):
    left = {kind: regular(steps, schedule.total) for kind, steps in every.items()}
    return RemainingTime(schedule, begin, left, lambda: time.compiled, lambda: time.now)


def test_compiling_seed_frames_training_and_evaluations_are_counted_apart():
    time = Time()
    remaining = remaining_of(time, Schedule(total=100, first_update=20), evaluation=50)
    with remaining.timed("evaluation"):
        time.passes(4, compiling=30)  # the first one compiles
    for step in range(1, 21):
        time.passes(0.1)
        remaining.trained(step)
    assert remaining.seconds() is None  # no update was timed yet
    time.passes(2, compiling=60)
    remaining.trained(21)
    assert remaining.seconds() is None  # nor this one: it was compiled meanwhile
    for step in range(22, 51):
        time.passes(2)
        remaining.trained(step)
    assert remaining.seconds() == pytest.approx(50 * 2 + 4)  # one evaluation comes at the end
    with remaining.timed("evaluation"):
        time.passes(10)
    assert remaining.seconds() == pytest.approx(50 * 2 + 10)  # as long as those that compiled nothing
    for step in range(51, 101):
        time.passes(2)
        remaining.trained(step)
    assert remaining.seconds() == 0


def test_a_run_goes_on_at_the_pace_of_today():
    time = Time()
    remaining = remaining_of(time, Schedule(total=1000, first_update=20), begin=500)
    for step in range(501, 600):
        time.passes(1)
        remaining.trained(step)
    for step in range(600, 700):
        time.passes(20)  # somebody else wants the machine
        remaining.trained(step)
    assert remaining.seconds() == pytest.approx(301 * 20, rel=0.05)


def test_where_tasks_begin_with_an_empty_replay_their_seed_frames_are_known():
    schedule = Schedule(total=50, first_update=4, task_steps=20, clears=True)
    assert [schedule.seeding(step) for step in (0, 3, 4, 20, 22, 30, 50)] == [0, 3, 4, 4, 6, 8, 12]
    for step in range(50):  # as the schedule itself has it
        assert schedule.seeding(step + 1) - schedule.seeding(step) == (not schedule.due(step))


def test_how_many_are_left():
    left = regular(20, 50)
    assert [left(step) for step in (0, 19, 20, 49, 50)] == [3, 3, 2, 1, 0]
    assert [regular(25, 50)(step) for step in (0, 25, 49, 50)] == [2, 1, 1, 0]
    assert regular(0, 50)(10) == 0


def values(**found):
    return {name.replace("_", "/", 1): np.array([value, value + 2]) for name, value in found.items()}


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("quiet", [False, True])
def test_without_a_terminal_there_is_a_plain_line_for_each_evaluation(quiet, capsys):
    progress = Progress("walk", 0, 60_000, lambda: 312.4, quiet=quiet)
    progress.show(values(plasticity_density=0.5))  # a log point, and no evaluation
    progress.at(20_000)
    progress.show(values(eval_return=170.0, plasticity_fau=0.8, time_frames_per_second=301.0))
    progress.close()
    out, err = capsys.readouterr()
    line = "frame 20,000 of 60,000, density 1.5, return 171, FAU 1.8, frames/s 301, 05:12 left\n"
    assert out == ("" if quiet else line) and not err


def test_on_a_terminal_one_line_moves(capsys, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = Progress("walk", 0, 60_000, lambda: None)
    progress.at(30_000)
    progress.show(values(eval_return=170.0))
    progress.close()
    shown = terminal.getvalue()
    assert "walk:  50%" in shown and "30000/60000 frames" in shown and "<?, return=171]" in shown
    assert not capsys.readouterr().out


def test_times_in_words():
    assert [in_words(each) for each in (None, 0.4, 61, 3723)] == ["?", "00:00", "01:01", "1:02:03"]
