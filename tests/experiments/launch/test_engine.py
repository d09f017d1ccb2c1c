"""The loop of a sweep, with a launcher that only says how runs end, and what is shown and kept of them."""

import csv
import json
import os
import signal
from io import StringIO

import pytest
from planned import planned
from rich.console import Console

from experiments.launch.engine import Ended, carry_out
from experiments.launch.progress import Board, State, in_words, newest_rows, progress_of
from experiments.launch.results import final_return, table, write_csv


class FakeLauncher:
    """Ends each run with the statuses that were told, in turn; a run that ends with 0 has its last checkpoint."""

    keeps = False

    def __init__(self, statuses, room=2):
        self.statuses, self.room, self.running, self.started, self.asked = statuses, room, [], [], []

    def start(self, waiting):
        begun = list(waiting)[: self.room - len(self.running)]
        self.running += begun
        self.started += [run.name for run in begun]
        return begun

    def ended(self, seconds):
        run = self.running.pop(0)
        status = self.statuses[run.name].pop(0)
        if status == "Ctrl-C":
            self.running.insert(0, run)
            os.kill(os.getpid(), signal.SIGINT)
            return []
        if status == 0:
            run.checkpoint.mkdir()
        return [Ended(run.name, status)]

    def stop(self):
        self.asked.append("stop")
        return "stopping"

    def kill(self):
        self.asked.append("kill")


def sweep(tmp_path, statuses, retries=1):
    runs, launcher, told = [planned(tmp_path, name) for name in statuses], FakeLauncher(statuses), []
    result = carry_out(runs, launcher, lambda states, why: told.append(dict(states)), lambda said: None, retries)
    return launcher, result, told


def test_what_is_done_is_skipped_and_the_rest_trained(tmp_path):
    (tmp_path / "b" / "checkpoint").mkdir(parents=True)
    launcher, result, told = sweep(tmp_path, {"a": [0], "b": [], "c": [0], "d": [0]})
    assert launcher.started == ["a", "c", "d"] and set(result.states.values()) == {State.DONE}
    assert told[0] == {"a": State.RUNNING, "b": State.DONE, "c": State.RUNNING, "d": State.WAITING}


def test_a_run_that_was_killed_goes_on_and_one_that_refuses_does_not(tmp_path):
    (tmp_path / "b.txt").write_text("...\nerror: tau must be positive\n")
    launcher, result, _ = sweep(tmp_path, {"a": [-9, 0], "b": [2], "c": [-9, -9], "d": [0]})
    assert [launcher.started.count(name) for name in "abcd"] == [2, 1, 2, 1]
    assert [result.states[name] for name in "abcd"] == [State.DONE, State.FAILED, State.FAILED, State.DONE]
    assert result.why["b"] == "tau must be positive"
    assert result.why["c"] == f"killed by SIGKILL, see {tmp_path / 'c.txt'}"
    assert set(sweep(tmp_path, {"b": [0], "c": [0], "a": []})[1].states.values()) == {State.DONE}  # again


def test_a_run_that_comes_further_is_always_started_again(tmp_path):
    run, launcher = planned(tmp_path, "a"), FakeLauncher({"a": [-9] * 5})
    begin = launcher.start

    def start(waiting):
        begun = begin(waiting)
        if begun:
            logged(run, [{"frame": min(30, 10 * len(launcher.started))}])
        return begun

    launcher.start = start
    result = carry_out([run], launcher, lambda states, why: None, print, 1)
    assert launcher.started == ["a"] * 4 and result.states["a"] is State.FAILED


def test_status_0_without_a_last_checkpoint_is_a_failure(tmp_path):
    run = planned(tmp_path, "a")
    launcher = FakeLauncher({})
    launcher.start = lambda waiting: list(waiting)
    launcher.ended = lambda seconds: [Ended("a", 0)]
    result = carry_out([run], launcher, lambda states, why: None, print, 0)
    assert result.states["a"] is State.FAILED and "without its last checkpoint" in result.why["a"]


def test_ctrl_c_asks_runs_to_stop_and_starts_no_more(tmp_path):
    launcher, result, _ = sweep(tmp_path, {"a": ["Ctrl-C", 130], "b": [0], "c": []})
    assert launcher.asked == ["stop"] and launcher.started == ["a", "b"] and result.stopped
    assert result.states == {"a": State.STOPPED, "b": State.DONE, "c": State.WAITING}


def test_a_second_ctrl_c_kills(tmp_path):
    launcher, result, _ = sweep(tmp_path, {"a": ["Ctrl-C", "Ctrl-C", -9]})
    assert launcher.asked[:2] == ["stop", "kill"] and result.states == {"a": State.STOPPED}


def logged(run, rows):
    (run.folder / "0").mkdir(exist_ok=True)
    (run.folder / "0" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_progress_is_read_from_the_end_of_the_metrics(tmp_path):
    run = planned(tmp_path, "a")
    assert progress_of(run) == (0, None)
    logged(run, [{"frame": 10, "eval/return": 1.5, "fill": "x" * 300_000}, {"frame": 20, "eval/return": None}])
    assert [row["frame"] for row in newest_rows(run.folder / "0" / "metrics.jsonl")] == [20]
    logged(run, [{"frame": 10, "eval/return": 1.5}, {"frame": 20, "train/return": 3.0}])
    with (run.folder / "0" / "metrics.jsonl").open("a") as file:
        file.write('{"frame": 3')  # cut short by a kill
    assert progress_of(run) == (20, 1.5)


def test_without_a_terminal_each_change_is_one_line(tmp_path):
    runs, out = [planned(tmp_path, name) for name in "ab"], StringIO()
    logged(runs[0], [{"frame": 50, "eval/return": 2.0}])
    board = Board(runs, Console(file=out, force_terminal=False, width=200))
    board({"a": State.RUNNING, "b": State.WAITING}, {})
    board({"a": State.RUNNING, "b": State.WAITING}, {})
    board({"a": State.FAILED, "b": State.RUNNING}, {"a": "no room"})
    board.close()
    assert [line[9:] for line in out.getvalue().splitlines()] == [
        " running, 1 waiting",
        "a: running, 50 / 100 frames, return 2 [0 of 2 done]",
        "a: failed, 50 / 100 frames, return 2 (no room) [0 of 2 done]",
        "b: running, 0 / 100 frames [0 of 2 done]",
    ]


def test_in_a_terminal_there_is_a_table_that_fits(tmp_path):
    runs, out = [planned(tmp_path, f"run{i}") for i in range(30)], StringIO()
    board = Board(runs, Console(file=out, force_terminal=True, width=100, height=12))
    states = {run.name: State.WAITING for run in runs} | {"run7": State.RUNNING, "run8": State.FAILED}
    board(states, {})
    shown = out.getvalue()
    assert "30 runs: 1 running, 1 failed, 28 waiting" in shown and "and 22 more" in shown
    assert shown.index("run7") < shown.index("run8") < shown.index("run0")
    board.close()


@pytest.mark.parametrize(("seconds", "words"), [(3, "3s"), (65, "1m05s"), (7500, "2h05m")])
def test_times_are_told_in_words(seconds, words):
    assert in_words(seconds) == words


def test_the_csv_has_a_line_for_each_run_and_seed_and_the_table_joins_seeds(tmp_path):
    runs = [
        planned(tmp_path, f"{method}{seeds}")._replace(overrides={"method": method, "seeds": seeds})
        for method in ("ne", "none")
        for seeds in ("(0,)", "(1,)")
    ]
    for i, run in enumerate(runs[:3]):
        logged(
            run, [{"frame": 10, "step": 5, "eval/return": 100.0}, {"frame": 90, "step": 45, "eval/return": float(i)}]
        )
    states = {run.name: State.DONE for run in runs} | {runs[3].name: State.FAILED}
    lines = write_csv(runs, states, tmp_path / "sweep.csv")
    with (tmp_path / "sweep.csv").open() as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == ["run", "method", "seeds", "seed", "state", "frame", "final_return", "eval/return"]
    assert [line["final_return"] for line in found] == ["0.0", "1.0", "2.0", ""]
    assert [line["state"] for line in found] == ["done"] * 3 + ["failed"]
    assert table(runs, lines).splitlines()[2:] == ["| `ne` | 2 | 0.5 |", "| `none` | 1 | 2 |"]


def test_the_final_return_is_that_of_the_last_fifth():
    rows = [{"frame": frame, "eval/return": float(frame), "train/return": -1.0} for frame in range(10, 101, 10)]
    assert final_return(rows, 100) == 95.0
    assert final_return(rows[:8], 100) is None
    assert final_return([{"frame": 100, "train/return": 3.0, "eval/return": None}], 100) == 3.0
