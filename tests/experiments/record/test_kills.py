"""A run that is killed at random moments, again and again, ends with the numbers of one that was not."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.record.metrics_files import read_metrics

ROOT = Path(__file__).parents[3]
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
KILLS = 10
"""Of each loop."""
MOST = 40
"""Starts, of which some end before they are killed."""

LOOPS = {
    "device": ["--config=configs/gymnax_states.py:smoke"],
    "host": ["--config=configs/mujoco_states.py:smoke", "--config.env.workers=process", "--config.seeds=(0,)"],
}


def start(loop: str, results: Path) -> subprocess.Popen:
    line = [sys.executable, "-m", "experiments.run", *LOOPS[loop], f"--config.results_dir={results}"]
    # Little is compiled anew at each start, and there are checkpoints all along the way.
    line += ["--config.video.every=0", "--config.checkpoint_every=40", "--config.eval.episodes=1"]
    pipe = subprocess.PIPE
    return subprocess.Popen(line, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def end_of(results: Path) -> dict[str, list[dict]]:
    """The metrics of each seed, but for the clock."""
    found = {path.parent.name: read_metrics(path) for path in sorted(results.glob("*/*/metrics.jsonl"))}
    return {
        seed: [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]
        for seed, rows in found.items()
    }


def assert_nobody_is_left(group: int) -> None:
    """The worker processes of a run are gone soon after it."""
    for _ in range(200):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError(f"processes of group {group} outlive their run")


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
def test_killed_at_random_moments_it_ends_as_if_nothing_had_been(loop, tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_ENABLE_COMPILATION_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    begun = time.monotonic()
    whole = start(loop, tmp_path / "whole")
    _, err = whole.communicate()
    assert whole.returncode == 0, err
    assert_nobody_is_left(whole.pid)
    longest, chance = time.monotonic() - begun, random.Random(loop)
    wanted, kills, runs = end_of(tmp_path / "whole"), 0, 0
    assert wanted and all(wanted.values())
    while kills < KILLS:
        # A results folder for each attempt: once a run has come to its end, there is nothing more to kill.
        results, status = tmp_path / f"killed_{runs}", None
        for _ in range(MOST):
            begun = time.monotonic()
            process = start(loop, results)
            try:
                process.wait(chance.uniform(0.1, 1.0) * longest)
                longest = time.monotonic() - begun  # of late: less is compiled, and there is less left to do
            except subprocess.TimeoutExpired:
                process.send_signal(SIGNALS[kills % len(SIGNALS)])
                kills += 1
            _, err = process.communicate()
            status = process.returncode
            assert_nobody_is_left(process.pid)
            assert status in (0, 130, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, 1), err
            assert "Traceback" not in err or "KeyboardInterrupt" in err, err  # stopped before it could be asked to
            if status == 0:
                break
        runs += 1
        assert status == 0, err
        assert end_of(results) == wanted, f"after {kills} kills"
