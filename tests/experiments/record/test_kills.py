"""A run that is killed at random moments, again and again, ends with the numbers of one that was not."""

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
KILLS = 20
MOST = 40
"""Starts, of which some end before they are killed."""

LOOPS = {
    "device": ("configs/gymnax_states.py:smoke", "td3_ne_smoke_Pendulum-v1"),
    "host": ("configs/dmc_states.py:smoke", "td3_ne_smoke_cartpole_swingup"),
}


def command(loop: str, results: Path) -> list[str]:
    line = [sys.executable, "-m", "experiments.run", f"--config={LOOPS[loop][0]}", f"--config.results_dir={results}"]
    # Little is compiled anew at each start, and there are checkpoints all along the way.
    return [*line, "--config.video.every=0", "--config.checkpoint_every=40", "--config.eval.episodes=1"]


def start(loop: str, results: Path) -> subprocess.Popen:
    return subprocess.Popen(command(loop, results), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end_of(results: Path) -> dict[str, list[dict]]:
    """The metrics of each seed, but for the clock."""
    found = {path.parent.name: read_metrics(path) for path in sorted(results.glob("*/*/metrics.jsonl"))}
    return {
        seed: [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]
        for seed, rows in found.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
def test_killed_at_random_moments_it_ends_as_if_nothing_had_been(loop, tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_ENABLE_COMPILATION_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    begun = time.monotonic()
    whole = start(loop, tmp_path / "whole")
    _, err = whole.communicate()
    assert whole.returncode == 0, err
    longest, chance = time.monotonic() - begun, random.Random(loop)
    wanted, kills, runs = end_of(tmp_path / "whole"), 0, 0
    assert wanted and all(wanted.values())
    while kills < KILLS:
        # A results folder for each attempt: once a run has come to its end, there is nothing more to kill.
        results, status = tmp_path / f"killed_{runs}", None
        for _ in range(MOST):
            process = start(loop, results)
            try:
                process.wait(chance.uniform(0.1, 1.0) * longest)
            except subprocess.TimeoutExpired:
                number = SIGNALS[kills % len(SIGNALS)]
                process.send_signal(number)
                kills += 1
            _, err = process.communicate()
            status = process.returncode
            assert status in (0, 130, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, 1), err
            assert "Traceback" not in err or "KeyboardInterrupt" in err, err  # stopped before it could be asked to
            if status == 0:
                break
        runs += 1
        assert status == 0, err
        assert end_of(results) == wanted, f"after {kills} kills"
