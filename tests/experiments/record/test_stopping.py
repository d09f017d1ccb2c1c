"""Being asked to stop: by signals, by the clock, and what the setting may say."""

import os
import signal
import time
from typing import Any

import pytest

from configs import continual, gymnax_states
from experiments.build.checks import seconds_of
from experiments.record.calendar import stop_step
from experiments.record.folder import Folder
from experiments.record.metrics_files import read_metrics
from experiments.record.stopping import SIGNALS, Reached, StopRequest, ending_at
from experiments.run import run
from experiments.train.loop import Run


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_asks_and_ctrl_c_after_it_stops_at_once(number, capsys):
    before = [signal.getsignal(each) for each in SIGNALS]
    stop = StopRequest()
    try:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop
        assert f"stopping ({'Ctrl-C' if number == signal.SIGINT else number.name}): saving" in capsys.readouterr().out
        for again in set(SIGNALS) - {signal.SIGINT}:  # a scheduler's, and that of who has started the run
            os.kill(os.getpid(), again)
        assert capsys.readouterr().out == ""
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
    finally:
        stop.close()
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_it_asks_by_itself_when_its_time_is_over(capsys):
    late, early = StopRequest(time.monotonic() + 60), StopRequest(time.monotonic() - 1)
    assert not late and early
    assert "the time of stop_after is over" in capsys.readouterr().out
    for each in (early, late):
        each.close()


@pytest.mark.parametrize(("said", "seconds"), [("", 0), ("3h", 10_800), ("90m", 5_400), ("1h30m", 5_400), ("45s", 45)])
def test_times(said, seconds):
    assert seconds_of(said) == seconds


@pytest.mark.parametrize("said", ["3", "h", "0s", "1.5h", "30m1h", "-3h", "3 h", "3d"])
def test_what_is_no_time_is_a_sentence(said):
    with pytest.raises(ValueError, match=r"stop_after='.*' is no time; take one such as 3h, 90m"):
        seconds_of(said)


@pytest.mark.slow
def test_a_run_whose_time_is_over_goes_on_and_ends_as_if_it_had_not_stopped(tmp_path):
    ends = []
    for name in ("whole", "stopped"):
        config = gymnax_states.get_config("smoke")
        config.update(results_dir=str(tmp_path / name), eval=dict(episodes=2), video=dict(every=0))
        if name == "stopped":
            config.stop_after = "1s"  # over before all is compiled
            assert run(config) == 130
            config.stop_after = ""
        assert run(config) == 0
        rows = read_metrics(tmp_path / name / "td3_ne_smoke_Pendulum-v1" / "1" / "metrics.jsonl")
        ends.append([{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows])
    assert ends[0] == ends[1]


class _Monitor:
    """Notes where it was called."""

    def __init__(self):
        self.steps = []

    def __call__(self, run):
        self.steps.append(run.step)
        return run


def test_the_frame_ends_a_run_that_comes_to_it_or_was_there_before():
    nothing: Any = None
    for begin, called in ((5, [5, 6, 7]), (7, [7]), (9, [9])):
        monitor = _Monitor()
        callback = ending_at(7, monitor)
        with pytest.raises(Reached):
            for step in range(begin, 10):
                assert callback(Run(step, nothing, nothing)).step == step
        assert monitor.steps == called


def test_the_frame_is_the_first_step_at_or_after_it():
    config = gymnax_states.get_config("smoke")
    config.env.num_envs, config.env.action_repeat = 3, 2
    steps = []
    for frame in (0, 1, 6, 7, 599, 600, 10**6):
        config.stop_at_frame = frame
        steps.append(stop_step(config, 100))
    assert steps == [100, 1, 1, 2, 100, 100, 100]


@pytest.mark.slow
def test_a_run_in_parts_by_frame_is_the_whole_run_with_the_whole_schedule(tmp_path):
    ends = []
    for name, stops in (("whole", [0]), ("parts", [230, 230, 300, 0])):  # between log points; where the physics change
        config = continual.get_config("smoke")
        config.update(results_dir=str(tmp_path / name), seeds=(3,))
        config.plasticity.method = "ne"
        folder = Folder(config)
        for stop in stops:
            config.stop_at_frame = stop
            assert run(config) == 0
            steps = [int(path.name) for path in folder.checkpoint.iterdir() if path.name.isdigit()]
            assert max(steps) == (stop or 600) and folder.is_trained(600) == (not stop)
        ends.append(_rows(folder, 3))
    assert ends[0] == ends[1]


def _rows(folder, seed):
    rows = read_metrics(folder.seed(seed) / "metrics.jsonl")
    return [{key: value for key, value in row.items() if not key.startswith("time/")} for row in rows]
