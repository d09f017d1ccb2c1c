"""The command as a user runs it, on a real task: what it leaves behind, how it resumes, stops and refuses."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import mediapy
import numpy as np
import pytest

from configs.dmc_pixels import get_config
from experiments.checkpoint import load_model
from experiments.optimisers import density_schedule
from experiments.results import Folder
from experiments.run import run
from experiments.setup import make_schedule
from experiments.writers import read_metrics
from ne_jax import counts_at

ROOT = Path(__file__).parents[2]


def smoke(folder, **settings):
    config = get_config("smoke")
    config.results_dir = str(folder)
    config.update(settings)
    return config


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """One finished smoke run."""
    config = smoke(tmp_path_factory.mktemp("results"))
    assert run(config) == 0
    return config, Folder(config)


def test_every_file_is_there(done):
    config, folder = done
    assert folder.root == Path(config.results_dir) / "drq_ne_smoke_cartpole_swingup"
    assert json.loads(folder.config.read_text()) == json.loads(config.to_json())
    versions = json.loads(folder.versions.read_text())
    assert {"jax", "flax", "mujoco", "device", "commit", "flags", "render_quality"} <= set(versions)
    assert versions["render_quality"] == "fast"
    assert any(folder.checkpoint.iterdir())
    assert folder.curves.stat().st_size > 10_000
    for seed in config.seeds:
        assert list((folder.seed(seed) / "tensorboard").glob("events*"))
        assert set(load_model(folder.seed(seed) / "model")) == {"actor", "critic", "encoder", "target_critic"}


def test_videos_open_and_move(done):
    config, folder = done
    files = [folder.video(seed, config.total_frames) for seed in config.seeds] + [folder.grid()]
    shapes = []
    for file in files:
        video = np.asarray(mediapy.read_video(file))
        shapes.append(video.shape[1:3])
        assert len(video) == 125  # one frame an agent step
        assert np.abs(video[0].astype(int) - video[-1]).mean() > 0.5
        assert video.std(axis=(1, 2)).min() > 5, "a blank picture"
    assert shapes == [(64, 64), (64, 64), (64, 128)]


def test_metrics_hold_every_value_and_the_density_is_on_schedule(done):
    config, folder = done
    schedule = make_schedule(config)
    density = density_schedule(config, schedule.updates(schedule.total))
    for seed in config.seeds:
        rows = read_metrics(folder.seed(seed) / "metrics.jsonl")
        assert [row["frame"] for row in rows] == [0, 800, 1200, 1600, 2400]
        assert all(row["frame"] == row["step"] * 8 for row in rows)
        assert {"train/return", "train/critic_loss", "plasticity/fau", "plasticity/dormant_ratio"} <= set(rows[0])
        assert "eval/random_return" in rows[0] and "eval/return" in rows[-1]
        assert all(np.isfinite(v) for v in rows[-1].values())
        layers = {k: None for k in rows[0] if k.startswith("plasticity/density/critic/q1")}
        shapes = {"plasticity/density/critic/q1/hidden_0/dense/kernel": (33, 32)}
        shapes["plasticity/density/critic/q1/hidden_1/dense/kernel"] = (32, 32)
        shapes |= {path.replace("q1", "q2"): shape for path, shape in shapes.items()}
        assert set(layers) < set(shapes)
        for row in rows:
            made = max(0, schedule.updates(row["step"]) - 1) // config.plasticity.every * config.plasticity.every
            for path, target in counts_at(density, shapes, made).items():
                assert round(row[path] * np.prod(shapes[path])) == int(target), (row["step"], path)
        assert rows[0]["plasticity/density"] < 0.21 and rows[-1]["plasticity/density"] == pytest.approx(0.75, abs=1e-3)


def test_the_same_command_again_resumes_and_another_is_refused(done, capsys):
    config, folder = done
    before = (folder.seed(0) / "metrics.jsonl").read_text()
    assert run(config) == 0
    assert "resuming at frame 2400 of 2400" in capsys.readouterr().out
    assert (folder.seed(0) / "metrics.jsonl").read_text() == before

    config = config.copy_and_resolve_references()
    config.resume = False
    assert run(config) == 2
    assert "holds a run already" in capsys.readouterr().err
    config.update(resume=True, batch_size=16)
    assert run(config) == 2
    assert "batch_size: 8 there, 16 now" in capsys.readouterr().err
    config.update(batch_size=8, overwrite=True)
    assert run(config) == 2
    assert "needs --config.resume=False" in capsys.readouterr().err
    assert (folder.seed(0) / "metrics.jsonl").read_text() == before


BAD = {
    "plasticity.initial_sparsity must lie in": dict(plasticity=dict(initial_sparsity=1.0)),
    "plasticity.final_sparsity=0.9 lies above plasticity.initial_sparsity=0.8": dict(
        plasticity=dict(final_sparsity=0.9)
    ),
    "plasticity.method must be one of none, static, ne": dict(plasticity=dict(method="nee")),
    "plasticity.omega must lie in": dict(plasticity=dict(omega=1.0)),
    "env.image_size=16 is too small .* at least 23": dict(env=dict(image_size=16)),
    "replay.capacity=90000000 needs .* GB .* are free; set --config.replay.capacity=": dict(
        replay=dict(capacity=90_000_000)
    ),
    "close names are cartpole_swingup": dict(env=dict(name="cartpole_swingupp")),
    "seeds must be different": dict(seeds=(1, 1)),
    "seed_frames=9000 must be .* less than total_frames": dict(seed_frames=9000),
    "plasticity.every=250 leaves no round in a run of 250 updates": dict(plasticity=dict(every=250)),
    "agent.name must be one of drq": dict(agent=dict(name="td3")),
    "learns from pixels; set --config.env.pixels=True": dict(env=dict(pixels=False)),
    "batch_size must be positive": dict(batch_size=0),
    "replay.nstep must be at least 1": dict(replay=dict(nstep=0)),
    "32-bit step counter": dict(total_frames=2**31),
}


@pytest.mark.parametrize("sentence", BAD)
def test_a_bad_setting_is_one_sentence_and_leaves_nothing(sentence, tmp_path, capsys):
    assert run(smoke(tmp_path, **BAD[sentence])) == 2
    error = capsys.readouterr().err
    assert re.search(sentence, error), error
    assert error.count("\n") == 1 and error.startswith("error: ")
    assert not any(tmp_path.iterdir())


def command(*arguments):
    line = [sys.executable, "-m", "experiments.run", "--config=configs/dmc_pixels.py:smoke", *arguments]
    return subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("--config.env.nam=x", "error: the config has no key env.nam; did you mean name?"),
        ("--config.batch_size=many", "error: flag --config.batch_size=many: invalid literal"),
        ("oops", "error: what is 'oops'?"),
    ],
)
def test_a_bad_command_line_is_one_sentence(argument, sentence):
    process = command(argument)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert err.startswith(sentence) and err.count("\n") == 1, err


def test_ctrl_c_saves_and_exits_130_and_the_run_goes_on(tmp_path):
    process = command(f"--config.results_dir={tmp_path}")
    metrics = tmp_path / "drq_ne_smoke_cartpole_swingup" / "1" / "metrics.jsonl"
    for _ in range(2400):
        if len(read_metrics(metrics)) > 1:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "the same command goes on from here" in out
    steps = [int(path.name) for path in (metrics.parents[1] / "checkpoint").iterdir() if path.name.isdigit()]
    assert len(steps) == 1 and 0 < steps[0] < 300
    config = smoke(tmp_path)
    assert run(config) == 0
    rows = read_metrics(metrics)
    assert [row["frame"] for row in rows] == [0, 800, 1200, 1600, 2400]
