"""The program from end to end on streams that train nothing: rows, tables, going on, failures, and its sentences."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from fake_streams import LATE, TASKS, fake, performance

from experiments.build.methods import METHODS
from experiments.plasticity import carry_out, finished, main, make_plan
from experiments.streams.arms import ARCHITECTURES
from experiments.streams.control import Tasks, config_of
from experiments.streams.progress import ProgressLines
from experiments.streams.registry import STREAMS
from experiments.streams.rows import run_folder, save
from experiments.streams.tables import page
from experiments.streams.types import Arm
from experiments.streams.workers import News, Pair

ROOT = Path(__file__).parents[3]


@pytest.fixture
def streams(monkeypatch):
    """The only streams that there are, by name; a test adds its own."""
    known = {"fake": fake()}
    for name in list(STREAMS):
        monkeypatch.delitem(STREAMS, name)
    for name, stream in known.items():
        monkeypatch.setitem(STREAMS, name, stream)
    return STREAMS


def compare(out, methods=("redo", "ne"), streams=(), seeds=3, first_seed=0, jobs=1):
    return carry_out(make_plan(streams, methods, seeds, first_seed, out, jobs), "the command")


def write_rows(out, methods, seeds=3):
    """What `compare` would leave, without processes."""
    for stream, arms in make_plan([], methods, seeds, 0, out, 1).arms.items():
        for arm in arms:
            folder = run_folder(out, stream, arm.name)
            folder.mkdir(parents=True)
            rows = STREAMS[stream].run(arm, range(seeds), folder, lambda share: None)
            save(out, STREAMS[stream], arm, range(seeds), rows, seconds=1.0)


def calls(out, arm, stream="fake"):
    """How often an arm was trained."""
    path = out / "runs" / stream / arm / "calls"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_a_comparison_from_end_to_end(streams, tmp_path, capsys):
    assert compare(tmp_path, jobs=2) == 0
    with (tmp_path / "fake.csv").open() as file:
        rows = list(csv.DictReader(file))
    first = ["stream", "method", "seed", "task", "auc", "end", "dormant", "fau", "density", "effective_rank"]
    assert list(rows[0]) == [*first, "weight_norm", "capacity"]
    assert len(rows) == 5 * 3 * TASKS
    wanted = {(arm, s, t) for arm in ("fresh", "random", "dense", "redo", "ne") for s in range(3) for t in range(1, 6)}
    assert {(row["method"], int(row["seed"]), int(row["task"])) for row in rows} == wanted
    for row in rows:
        expected = performance(row["method"], int(row["seed"]), int(row["task"]))
        assert float(row["auc"]) == pytest.approx(expected) and float(row["end"]) == pytest.approx(expected + 0.01)
        assert (row["dormant"], row["capacity"], row["fau"]) == ("0.1", "0.5", "")
    assert (tmp_path / "fake.png").stat().st_size > 10_000
    text = (tmp_path / "plasticity.md").read_text()
    assert text in capsys.readouterr().out
    assert "Ranks: fresh learns, and dense loses 60% of what fresh learns, intervals apart" in text
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}
    assert list(lines) == ["arm", "---", "`fresh`", "`redo`", "`ne`", "`dense`", "`random`"]
    # Means over tasks 3 to 5: dense 0.4, redo 0.85, fresh 1, beside 0.01 for the middle seed.
    assert lines["`redo`"].startswith("| `redo` | 0.860 [0.850, 0.870] | 15% [15%, 15%] | 75% [75%, 75%] | 0.870 [")
    assert lines["arm"] == "| arm | A | lost | gap closed | end | dormant | capacity |"
    assert "mean of tasks 3 to 5" in text and "Seeds 0, 1, 2; " in text and "CPU cores" in text
    assert "Made with `the command`" in text
    assert not re.search("[0-9a-f]{11}", text)
    assert LATE == 3


@pytest.mark.slow
def test_what_is_finished_is_not_trained_again(streams, tmp_path):
    assert compare(tmp_path, ["redo"]) == 0
    before = (tmp_path / "fake.csv").read_text()
    assert compare(tmp_path, ["redo"]) == 0 and (tmp_path / "fake.csv").read_text() == before
    assert calls(tmp_path, "redo") == calls(tmp_path, "fresh") == 1
    (tmp_path / "rows/fake/fresh.json").unlink()
    assert compare(tmp_path, ["ne"]) == 0
    assert (calls(tmp_path, "fresh"), calls(tmp_path, "redo"), calls(tmp_path, "ne")) == (2, 1, 1)
    assert "`redo`" in (tmp_path / "plasticity.md").read_text(), "what lies there already stays in the table"


def test_rows_of_another_protocol_are_refused(streams, tmp_path, monkeypatch):
    write_rows(tmp_path, ["redo"])
    with pytest.raises(ValueError, match=r"\w\.json was computed with other settings \(seeds: \[0, 1, 2\] there"):
        make_plan([], ["redo"], 4, 0, tmp_path, 1)
    with pytest.raises(ValueError, match=r"seeds: \[0, 1, 2\] there, \[5, 6, 7\] now"):
        make_plan([], ["redo"], 3, 5, tmp_path, 1)
    monkeypatch.setitem(streams, "fake", fake(version=2))
    with pytest.raises(ValueError, match=r"version: 1 there, 2 now\); delete it"):
        make_plan([], ["ne"], 3, 0, tmp_path, 1)
    (tmp_path / "rows/fake/redo.json").write_text("{")
    monkeypatch.setitem(streams, "fake", fake())
    with pytest.raises(ValueError, match=r"redo\.json cannot be read .*; delete it"):
        make_plan([], ["ne"], 3, 0, tmp_path, 1)


def test_tuned_settings_hold_for_their_stream_and_are_part_of_the_protocol(streams, tmp_path, monkeypatch):
    tuned = tmp_path / "settings.json"
    monkeypatch.setattr("experiments.streams.arms.SETTINGS", tuned)
    tuned.write_text(json.dumps({"other": {"redo": {"redo.tau": 0.3}}}))
    plan = make_plan([], ["redo", "redo,redo.tau=0.2,every=50"], 3, 0, tmp_path / "out", 1)
    plain, given = plan.arms["fake"][3:]
    assert plain.overrides == {"plasticity.method": "redo"} and given.name == "redo,redo.tau=0.2,every=50"
    assert given.overrides == {"plasticity.method": "redo", "plasticity.redo.tau": 0.2, "plasticity.every": 50}
    write_rows(tmp_path / "out", ["redo", "redo,redo.tau=0.2,every=50"])
    assert (tmp_path / "out/rows/fake/redo_redo.tau=0.2_every=50.json").exists()
    tuned.write_text(json.dumps({"fake": {"redo": {"redo.tau": 0.3}}}))
    with pytest.raises(ValueError, match=r"plasticity\.redo\.tau: None there, 0\.3 now"):
        make_plan([], ["redo"], 3, 0, tmp_path / "out", 1)
    monkeypatch.setitem(streams, "fake", fake()._replace(settings="other"))
    tuned.write_text(json.dumps({"other": {"redo": {"redo.tau": 0.4}}, "fake": {"redo": {"redo.tau": 0.3}}}))
    (arm,) = make_plan([], ["redo"], 3, 0, tmp_path / "elsewhere", 1).arms["fake"][3:]
    assert arm.overrides["plasticity.redo.tau"] == 0.4
    tuned.write_text(json.dumps({"other": {"redo": {"redo.taus": 0.4}}}))
    with pytest.raises(ValueError, match=r"redo cannot have redo\.taus=0\.4"):
        make_plan([], ["redo"], 3, 0, tmp_path / "elsewhere", 1)


def test_all_methods_are_the_default(streams, tmp_path):
    (arms,) = make_plan([], [], 2, 0, tmp_path, 1).arms.values()
    assert "layer_norm+project" in ARCHITECTURES  # the only network that takes it
    methods = [name for name in METHODS if name != "normalise_and_project"]
    assert [arm.name for arm in arms] == ["fresh", "random", "dense", *methods, *ARCHITECTURES]


def test_networks_of_another_form_are_arms(streams, tmp_path):
    methods = ["leaky_relu", "layer_norm+project", "ne,agent.layer_norm=True"]
    leaky, project, ne = make_plan([], methods, 2, 0, tmp_path, 1).arms["fake"][3:]
    assert leaky.overrides == {"agent.activation": "leaky_relu"}
    assert project.overrides == {"agent.layer_norm": True, "plasticity.method": "normalise_and_project"}
    assert ne.overrides == {"plasticity.method": "ne", "agent.layer_norm": True}
    tasks = Tasks("relabelled")
    assert [config_of(tasks, arm).agent.layer_norm for arm in (leaky, project, ne)] == [False, True, True]
    assert [config_of(tasks, arm).plasticity.method for arm in (leaky, project)] == ["none", "normalise_and_project"]


@pytest.mark.slow
def test_one_that_fails_stops_no_other(streams, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(streams, "fake", fake(redo="fails", grama="dies", rigl="no rows"))
    assert compare(tmp_path, ["redo", "grama", "rigl", "ne"]) == 2
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    log = tmp_path / "runs/fake/redo/log.txt"
    assert told[0] == f"error: fake redo: the loss is not finite ({log})"
    assert told[1] == "error: fake grama: its process ended with status 3"
    assert told[2].startswith("error: fake rigl: stream fake must give a row for each of 3 seeds and 5 tasks")
    assert "training redo" in log.read_text() and "RuntimeError: the loss is not finite" in log.read_text()
    text = (tmp_path / "plasticity.md").read_text()
    assert "`ne`" in text and "`redo`" not in text and "- fake redo: the loss is not finite" in text
    monkeypatch.setitem(streams, "fake", fake())
    assert compare(tmp_path, ["redo", "grama", "rigl", "ne"]) == 0
    assert (calls(tmp_path, "ne"), calls(tmp_path, "redo")) == (1, 2)


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished_and_lets_the_others_save(streams, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(streams, "fake", fake(redo="waits once"))

    def interrupt():
        while not calls(tmp_path, "redo"):
            time.sleep(0.05)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    begin = time.monotonic()
    assert compare(tmp_path) == 130 and time.monotonic() - begin < 50
    assert "the same command goes on from here" in capsys.readouterr().err
    assert (tmp_path / "runs/fake/redo/saved").exists() and not calls(tmp_path, "ne")
    assert compare(tmp_path) == 0
    assert (calls(tmp_path, "dense"), calls(tmp_path, "redo"), calls(tmp_path, "ne")) == (1, 2, 1)


def test_progress_says_how_long_it_takes(streams, tmp_path, capsys):
    slow, quick = fake("slow")._replace(seconds=100.0), fake("quick")._replace(seconds=10.0)
    pairs = [Pair(slow, Arm("a", {})), Pair(slow, Arm("b", {})), Pair(quick, Arm("a", {}))]
    lines = ProgressLines(pairs, {}, seeds=20, jobs=1)
    assert lines.seconds_left(time.monotonic()) == pytest.approx(2 * 210)
    lines(News(pairs[0], 1.0, seconds=100.0))  # half of what was thought, so the others are halved as well
    assert lines.seconds_left(time.monotonic()) == pytest.approx(100 + 10)
    lines(News(pairs[1], 0.5))
    assert lines.seconds_left(time.monotonic()) == pytest.approx(50 + 10)
    lines(News(pairs[1], 0.75))
    # A quarter took next to nothing, so that the mean pace of this stream is half of the finished pair's.
    assert lines.seconds_left(time.monotonic() + 1e-3) == pytest.approx(5 + 5 / 2, abs=3)
    assert "1/3 0:00 gone, 1:50 left: slow a took 1:40" in capsys.readouterr().err
    known = ProgressLines(pairs, {"slow": [30.0, 50.0], "quick": [4.0]}, seeds=20, jobs=2)
    assert known.seconds_left(time.monotonic()) == pytest.approx((80 + 4) / 2)
    known(News(pairs[0], failure="it broke"))
    assert known.failures == {"slow a": "it broke"} and known.seconds_left(time.monotonic()) == pytest.approx(40)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (dict(streams=["fale"]), "unknown stream 'fale'; did you mean fake?"),
        (dict(streams=["zzz"]), "unknown stream 'zzz'; there are fake"),
        (dict(methods=["nee"]), "--method=nee: plasticity.method must be one of none, ne"),
        (dict(methods=["ne", "ne"]), "--method=ne comes twice"),
        (dict(methods=["ne,omegas=1"]), "--method=ne,omegas=1: omegas=1 must be KEY=VALUE"),
        (dict(methods=["ne,omega=x"]), "omega must be a number like 0.4, got 'x'"),
        (dict(methods=["ne,method=redo"]), "method=redo must be KEY=VALUE"),
        (dict(methods=["ne,actor=static"]), "actor=static must be KEY=VALUE"),
        (dict(seeds=1), "--seeds must be at least 2, for intervals are over seeds, got 1"),
        (dict(first_seed=-1), "--first_seed must lie in"),
        (dict(jobs=0), "--jobs must be at least 1"),
        (dict(out=Path("/proc/none")), "--out=/proc/none cannot be written to"),
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(streams, tmp_path, asked, sentence):
    plan = dict(streams=[], methods=["ne"], seeds=3, first_seed=0, out=tmp_path, jobs=1) | asked
    with pytest.raises(ValueError) as error:
        make_plan(**plan)
    assert sentence in str(error.value) and not list(tmp_path.iterdir())


def test_what_a_stream_refuses_is_said(streams, tmp_path, monkeypatch):
    def refuse(arm):
        raise ValueError("plasticity.omega must lie in (0, 1], got 2")

    monkeypatch.setitem(streams, "fake", fake()._replace(protocol=refuse))
    with pytest.raises(ValueError, match=r"--method=fresh on stream fake: plasticity\.omega must lie in"):
        make_plan([], ["ne"], 3, 0, tmp_path, 1)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--stream=fale"], "error: unknown stream 'fale'; did you mean fake?"),
        (["--seeds=1"], "error: --seeds must be at least 2"),
        (["--seeds=many"], "error: argument --seeds: invalid int value: 'many'"),
        (["--metod=ne"], "error: unrecognized arguments: --metod=ne"),
        (["fast"], "error: unrecognized arguments: fast"),
    ],
)
def test_the_command_line(streams, arguments, sentence, tmp_path, capsys):
    with pytest.raises(SystemExit, match=r"^2$"):
        sys.exit(main([f"--out={tmp_path}", *arguments]))
    said = capsys.readouterr().err
    assert said.startswith(sentence) and said.count("\n") == 1 and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_program_starts(tmp_path):
    command = [sys.executable, "-m", "experiments.plasticity", f"--out={tmp_path}", "--stream=none_such"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: unknown stream 'none_such'; there are ")


def test_a_stream_without_an_open_gate_shows_no_shares(streams, tmp_path):
    write_rows(tmp_path, ["ne"])
    plan = make_plan([], ["ne"], 3, 0, tmp_path, 1)
    compared = finished(plan, streams["fake"])
    arms = dict(compared.arms)
    arms["dense"] = arms["dense"]._replace(rows=[row._replace(auc=row.auc + 0.7) for row in arms["dense"].rows])
    text = page([compared._replace(arms=arms)], "", {})
    assert "Ranks nothing: dense loses" in text and "| arm | A | end | dormant | capacity |" in text
    arms["ne"] = arms["ne"]._replace(rows=[row._replace(auc=np.nan) for row in arms["ne"].rows])
    assert "| `ne` | no number |" in page([compared._replace(arms=arms)], "", {})
