"""What a program of measurements does with its time, and what it leaves whatever ends it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import bench
from experiments.benches import budget as of_time
from experiments.benches.budget import Budget

ROOT = Path(__file__).parents[3]


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(of_time.time, "monotonic", lambda: self.now)

    def rows(self, seconds, count):
        for number in range(count):
            self.now += seconds
            yield f"row {number}", seconds, "s"


@pytest.fixture
def clock(monkeypatch):
    clock = Clock(monkeypatch)
    found = {"long": lambda variant: clock.rows(4.0, 3), "short": lambda variant: clock.rows(1.0, 2)}
    monkeypatch.setattr(bench, "BENCHES", found)
    return clock


@pytest.mark.parametrize(
    ("seconds", "rows", "left"),
    [
        (None, 5, []),
        (100.0, 5, []),
        (11.0, 4, ["long", "short"]),  # a third of four seconds would end after twelve, two of one end in time
        (14.5, 5, ["long", "short"]),  # all was measured, but not that this was all
        (3.0, 1, ["long", "short"]),
    ],
)
def test_nothing_is_begun_that_would_not_be_done_in_time(seconds, rows, left, clock, tmp_path, capsys):
    parts, path = ["long", "short"], tmp_path / "speeds.json"
    bench.measure(parts, "", Budget(seconds), path, {"device": "mine"})
    kept = json.loads(path.read_text())
    assert len(kept["rows"]) == rows and parts == left and kept["device"] == "mine"
    assert kept["rows"][0] == {"bench": "long", "name": "row 0", "value": 4.0, "unit": "s"}
    assert len(capsys.readouterr().out.splitlines()) == rows


def test_what_was_measured_is_there_when_the_next_fails(clock, monkeypatch, tmp_path):
    def broken(variant):
        yield from clock.rows(1.0, 2)
        raise MemoryError("the device is full")

    monkeypatch.setattr(bench, "BENCHES", {"broken": broken})
    with pytest.raises(MemoryError):
        bench.measure(["broken"], "", Budget(None), tmp_path / "speeds.json", {})
    assert len(json.loads((tmp_path / "speeds.json").read_text())["rows"]) == 2


def test_what_takes_longer_than_thought_is_ended():
    code = (
        "import time\nfrom experiments.benches.budget import Budget\nbudget = Budget(0.2)\n"
        "budget.end_with(lambda: print('over', flush=True))\ntime.sleep(60)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, "over\n")


def test_a_budget_that_was_kept_ends_nothing(monkeypatch):
    monkeypatch.setattr(of_time.os, "_exit", lambda status: pytest.fail("ended"))
    budget = Budget(0.05)
    budget.end_with(lambda: pytest.fail("said so"))
    budget.close()
    assert budget._timer is not None
    budget._timer.join(1)
    assert budget._timer.finished.is_set()


@pytest.mark.slow
def test_one_call_asks_all_that_a_gpu_should_be_asked(tmp_path):
    """In small, and as far as it comes in three minutes; a busy machine leaves some rows out."""
    path = tmp_path / "speeds.json"
    command = [sys.executable, "-m", "experiments.bench", "--what=accelerator", "--variant=smoke", "--budget=3m"]
    done = subprocess.run([*command, f"--json={path}"], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    kept = json.loads(path.read_text())
    names, values = zip(*((row["name"], row["value"]) for row in kept["rows"]))
    assert names[0].startswith("chunk drq_ne_smoke, 2 seeds: memory of its state") and min(values) > 0
    assert len(set(names)) == len(names)
    wanted = ("chunk drq", "product of", "update DrQ", "update TD3", "gymnax", "chunk td3", "mjx", "chunk drq_ne_mjx")
    here = [any(name.startswith(each) for name in names) for each in wanted]
    assert here == sorted(here, reverse=True), "in the order of what is worth most"
    assert all(here) or "unfinished: accelerator" in done.stdout
