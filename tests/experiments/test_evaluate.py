"""`experiments.evaluate` plays a run's networks, and says in a sentence where there is nothing to play or to draw."""

import json
import subprocess
import sys

import pytest

from configs import gymnax_states
from experiments.evaluate import play, read_config
from experiments.run import run


def program(name, *args):
    command = [sys.executable, "-m", f"experiments.{name}", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(("name", "flag"), [("evaluate", "run"), ("transfer", "run"), ("report", "results")])
def test_a_folder_without_a_run_is_a_sentence(tmp_path, name, flag):
    done = program(name, f"--{flag}={tmp_path}")
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert str(tmp_path) in sentence


def test_a_run_without_networks_is_a_sentence(tmp_path):
    (tmp_path / "config.json").write_text(gymnax_states.get_config("smoke").to_json())
    with pytest.raises(FileNotFoundError, match="holds no networks yet"):
        play(tmp_path, read_config(tmp_path), 1)


@pytest.mark.slow
def test_networks_play_as_they_were_evaluated(tmp_path):
    config = gymnax_states.get_config("smoke")
    config.update(results_dir=str(tmp_path), eval=dict(episodes=2), video=dict(every=0))
    assert run(config) == 0
    folder = tmp_path / "td3_ne_smoke_Pendulum-v1"
    returns = play(folder, read_config(folder), 3)
    assert returns.shape == (2, 3)
    for seed, each in zip(config.seeds, returns, strict=True):
        last = json.loads((folder / str(seed) / "metrics.jsonl").read_text().splitlines()[-1])
        assert each[:2].mean() == pytest.approx(last["eval/return"], rel=1e-5)
