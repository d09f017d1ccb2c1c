"""The command as a user runs it, on a real task: what it leaves behind, how it resumes, stops and refuses."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import mediapy
import numpy as np
import pytest

from configs import dmc_pixels, gymnax_pixels, gymnax_states, mjx_pixels, mujoco_states
from experiments.build.checks import validate
from experiments.build.experiment import make_schedule, setup
from experiments.build.methods import density_schedule, network_settings
from experiments.record.folder import Folder
from experiments.record.metrics_files import read_metrics
from experiments.record.models import load_model
from experiments.run import run
from ne_jax import counts_at

ROOT = Path(__file__).parents[3]


def smoke(folder, module=dmc_pixels, **settings):
    config = module.get_config("smoke")
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
    assert (versions["renderer"], versions["render_quality"]) == ("jax", "smooth")
    assert any(folder.checkpoint.iterdir())
    assert folder.curves.stat().st_size > 10_000
    for seed in config.seeds:
        assert list((folder.seed(seed) / "tensorboard").glob("events*"))
        assert set(load_model(folder.seed(seed) / "model")) == {"actor", "critic", "encoder", "target_critic"}


def test_videos_open_and_move(done):
    config, folder = done
    files = [folder.video(seed, config.total_frames) for seed in config.seeds] + [folder.grid]
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
    density: Any = density_schedule(network_settings(config, "actor"), schedule.updates(schedule.total))
    for seed in config.seeds:
        rows = read_metrics(folder.seed(seed) / "metrics.jsonl")
        assert [row["frame"] for row in rows] == [0, 800, 1200, 1600, 2400]
        assert all(row["frame"] == row["step"] * 8 for row in rows)
        assert {"train/return", "train/critic_loss", "plasticity/fau", "plasticity/dormant_ratio"} <= set(rows[0])
        assert "eval/random_return" in rows[0] and "eval/return" in rows[-1]
        assert all(np.isfinite(v) for v in rows[-1].values())
        assert all(row["time/share_environments"] > 0 and row["time/share_acting"] > 0 for row in rows[1:])
        for row in rows:
            assert sum(value for name, value in row.items() if name.startswith("time/share_")) == pytest.approx(1)
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


# Config, exp_id, networks with an agent's own names, frames at the log points, agent steps in the video
OTHERS = {
    gymnax_states: ("td3_ne_smoke_Pendulum-v1", {"target_actor"}, [0, 100, 200, 300, 400], 200),
    gymnax_pixels: ("drq_ne_smoke_Pendulum-v1", {"encoder"}, [0, 200, 400, 600, 800], 100),
    mujoco_states: ("td3_ne_smoke_Hopper-v5", {"target_actor"}, [0, 100, 200, 300, 400], None),
    mjx_pixels: ("drq_ne_mjx_smoke_cartpole_balance", {"encoder"}, [0, 800, 1200, 1600, 2400], 125),
}


@pytest.mark.slow
@pytest.mark.parametrize("module", OTHERS, ids=lambda module: module.__name__.removeprefix("configs."))
def test_another_config_leaves_the_same_files_and_resumes(module, tmp_path, capsys):
    name, own, frames, steps = OTHERS[module]
    config = smoke(tmp_path, module)
    assert run(config) == 0
    folder, printed = Folder(config), capsys.readouterr().out
    assert folder.root == tmp_path / name
    assert json.loads(folder.config.read_text()) == json.loads(config.to_json())
    assert folder.versions.exists() and any(folder.checkpoint.iterdir()) and folder.curves.stat().st_size > 10_000
    for seed in config.seeds:
        rows = read_metrics(folder.seed(seed) / "metrics.jsonl")
        assert [row["frame"] for row in rows] == frames
        assert all(np.isfinite(value) for value in rows[-1].values())
        assert "eval/random_return" in rows[0] and "eval/return" in rows[-1] and "train/actor_loss" in rows[-1]
        assert rows[0]["plasticity/density"] < 0.25 and rows[-1]["plasticity/density"] == pytest.approx(0.75, abs=0.01)
        assert list((folder.seed(seed) / "tensorboard").glob("events*"))
        model = load_model(folder.seed(seed) / "model")
        assert set(model) == {"actor", "critic", "target_critic"} | own
        assert model["actor"]["masks"] and model["critic"]["masks"]
        if steps:
            video = np.asarray(mediapy.read_video(folder.video(seed, config.total_frames)))
            assert video.shape == (steps, 64, 64, 3)
            assert np.abs(np.diff(video.astype(int), axis=0)).max(axis=(1, 2, 3)).mean() > 30, "stands still"
    experiment = setup(config)
    experiment.close()
    replay_state = experiment.replay.init()
    assert f"{sum(leaf.nbytes for leaf in jax.tree.leaves(replay_state)):,} bytes per seed" in printed

    before = (folder.seed(0) / "metrics.jsonl").read_text()
    assert run(config) == 0
    assert f"resuming at frame {frames[-1]} of {frames[-1]}" in capsys.readouterr().out
    assert (folder.seed(0) / "metrics.jsonl").read_text() == before


BAD = [
    (dmc_pixels, dict(plasticity=dict(initial_sparsity=1.0)), "plasticity.initial_sparsity must lie in"),
    (
        dmc_pixels,
        dict(plasticity=dict(final_sparsity=0.9)),
        "plasticity.final_sparsity=0.9 lies above plasticity.initial_sparsity=0.8",
    ),
    (dmc_pixels, dict(plasticity=dict(method="nee")), "plasticity.method must be one of none, ne, .* got 'nee'"),
    (dmc_pixels, dict(plasticity=dict(omega=1.0)), "plasticity.omega must lie in"),
    (dmc_pixels, dict(env=dict(image_size=16)), "env.image_size=16 is too small .* at least 23"),
    (
        dmc_pixels,
        dict(replay=dict(capacity=90_000_000)),
        "replay.capacity=90000000 needs .* GB .* are free; set --config.replay.capacity=",
    ),
    (dmc_pixels, dict(env=dict(name="cartpole_swingupp")), "did you mean cartpole_swingup"),
    (dmc_pixels, dict(seeds=(1, 1)), "seeds must be different"),
    (dmc_pixels, dict(seed_frames=9000), "seed_frames=9000 must be .* before total_frames=2400"),
    (dmc_pixels, dict(plasticity=dict(every=250)), "plasticity.every=250 leaves no round in a run of 250 updates"),
    (dmc_pixels, dict(agent=dict(name="ppo")), "agent.name must be one of drq, td3, sac, got 'ppo'"),
    (dmc_pixels, dict(env=dict(pixels=False)), "learns from pixels; set --config.env.pixels=True"),
    (dmc_pixels, dict(batch_size=0), "batch_size must be positive"),
    (dmc_pixels, dict(replay=dict(nstep=0)), "replay.nstep must be positive, got 0"),
    (dmc_pixels, dict(total_frames=2**33), "8589934592 makes 1073741824 agent steps .* 32-bit step counter"),
    (dmc_pixels, dict(env=dict(renderer="opengl")), "env.renderer must be one of jax, gl, got 'opengl'"),
    (dmc_pixels, dict(env=dict(name="dog_run")), "dog_run shows a mesh, .* set --config.env.renderer=gl"),
    (dmc_pixels, dict(env=dict(backend="mjx", renderer="gl")), "env.backend=mjx draws .* --config.env.renderer=jax"),
    (
        dmc_pixels,
        dict(env=dict(backend="mjx", name="fish_swim")),
        "'fish_swim' has no MJX version .* env.backend=mujoco",
    ),
    (dmc_pixels, dict(env=dict(backend="warp")), "env.backend must be one of mujoco, mjx, got 'warp'"),
    (
        dmc_pixels,
        dict(replay=dict(store="frame", vary=dict(camera=5.0))),
        "replay.vary changes scenes .* --config.replay.store=scene",
    ),
    (dmc_pixels, dict(replay=dict(vary=dict(colour=1.5))), "replay.vary.colour must lie in"),
    (mjx_pixels, dict(env=dict(name="cartpole_ballance")), "did you mean cartpole_balance"),
    (dmc_pixels, dict(env=dict(num_envs=0)), "env.num_envs must be positive, got 0"),
    (
        dmc_pixels,
        dict(agent=dict(name="td3")),
        "from pixels needs another config; this lacks agent.ema, .* has agent.std_steps",
    ),
    (gymnax_pixels, dict(env=dict(image_size=8)), "env.image_size=8 is too small .* at least"),
    (gymnax_pixels, dict(env=dict(name="CartPole-v1")), "env.name='CartPole-v1' has discrete actions"),
    (gymnax_states, dict(env=dict(name="CartPole-v1")), "env.name='CartPole-v1' has discrete actions"),
    (gymnax_states, dict(env=dict(name="Pendulun-v1")), "did you mean Pendulum-v1"),
    (
        gymnax_states,
        dict(env=dict(kind="gymnx")),
        "env.kind must be one of dmc, gymnasium, dm_env, gymnax, mjx, or package.module:KIND, got 'gymnx'",
    ),
    (gymnax_states, dict(env=dict(num_envs=0)), "env.num_envs must be positive, got 0"),
    (
        gymnax_states,
        dict(env=dict(pixels=True)),
        "agent.name=td3 from pixels needs another config; this lacks agent.channels",
    ),
    (gymnax_states, dict(agent=dict(name="drq")), "agent.name=drq learns from pixels"),
    (gymnax_states, dict(env=dict(kind="dmc", name="cartpole_swingup")), "env.kind='dmc' needs another config"),
    (gymnax_states, dict(updates_per_step=float("nan")), "updates_per_step must be a finite number, got nan"),
    (gymnax_states, dict(agent=dict(random_steps=2**31)), "agent.random_steps=2147483648 does not fit"),
    (gymnax_states, dict(replay=dict(reward_scale=0.0)), "replay.reward_scale must be positive"),
    (gymnax_states, dict(agent=dict(policy_delay=0)), "agent.policy_delay must be positive, got 0"),
    (gymnax_states, dict(plasticity=dict(every=21)), "plasticity.every=21 must be a multiple of agent.policy_delay=2"),
    (gymnax_states, dict(updates_per_step=0.7), "updates_per_step must be a whole number, or .* such as 0.5, got 0.7"),
    (gymnax_states, dict(updates_per_step=-1.0), "updates_per_step must not be negative, got -1"),
    (gymnax_states, dict(updates_per_step=0.0), "plasticity.every=20 leaves no round in a run of 0 updates"),
    (gymnax_states, dict(replay=dict(store="scenes")), "replay.store must be one of auto, scene, frame, got 'scenes'"),
    (gymnax_states, dict(replay=dict(nstep_from=-1)), "replay.nstep_from must not be negative, got -1"),
    (gymnax_states, dict(total_frames=2**30), "total_frames=1073741824 makes .* 32-bit step counter"),
    (gymnax_states, dict(total_frames=2**29, updates_per_step=4.0), "2147483648 updates, .* 32-bit step counter"),
    (gymnax_states, dict(total_frames=2**31, env=dict(num_envs=8)), "2147483648 agent steps .* 32-bit step counter"),
    (mujoco_states, dict(env=dict(name="CartPole-v1")), "env.name='CartPole-v1' has discrete actions"),
    (mujoco_states, dict(env=dict(name="Hoper-v5")), "did you mean Hopper-v5"),
    (mujoco_states, dict(replay=dict(capacity=2, nstep=1)), "replay.capacity=2 cannot hold one transition"),
]


@pytest.mark.parametrize(("module", "settings", "sentence"), BAD)
def test_a_bad_setting_is_one_sentence_and_leaves_nothing(module, settings, sentence, tmp_path, capsys):
    assert run(smoke(tmp_path, module, **settings)) == 2
    error = capsys.readouterr().err
    assert re.search(sentence, error), error
    assert error.count("\n") == 1 and error.startswith("error: ")
    assert not any(tmp_path.iterdir())


def test_without_gymnasium_the_sentence_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    assert run(smoke(tmp_path, mujoco_states)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert "pip install" in error and "gymnasium[mujoco]" in error
    assert not any(tmp_path.iterdir())


def test_the_longest_run_is_accepted(tmp_path):
    for settings in (dict(total_frames=2**30 - 1), dict(total_frames=2**31 - 8, env=dict(num_envs=8))):
        config = smoke(tmp_path, gymnax_states, **settings)
        validate(config)
        schedule = make_schedule(config)
        assert max(schedule.total * schedule.num_envs, schedule.updates(schedule.total), 2 * schedule.total) < 2**31


def command(*arguments, config="dmc_pixels.py:smoke"):
    line = [sys.executable, "-m", "experiments.run", f"--config=configs/{config}", *arguments]
    return subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("--config.env.nam=x", "error: the config has no key env.nam; did you mean name?"),
        pytest.param(
            "--config.batch_size=many", "error: batch_size must be a whole number, got 'many'", marks=pytest.mark.slow
        ),
        pytest.param("oops", "error: what is 'oops'?", marks=pytest.mark.slow),
    ],
)
def test_a_bad_command_line_is_one_sentence(argument, sentence):
    process = command(argument)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert err.startswith(sentence) and err.count("\n") == 1, err


@pytest.mark.parametrize("file", ["gymnax_states", pytest.param("mujoco_states", marks=pytest.mark.slow)])
def test_an_unknown_variant_is_one_sentence(file):
    process = command(config=f"{file}.py:smok")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert err.startswith(f"error: configs/{file}.py has no variant 'smok'; take ") and err.count("\n") == 1, err


@pytest.mark.slow
@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_asked_to_stop_it_saves_and_exits_130_and_the_run_goes_on(tmp_path, asked):
    process = command(f"--config.results_dir={tmp_path}")
    metrics = tmp_path / "drq_ne_smoke_cartpole_swingup" / "1" / "metrics.jsonl"
    for _ in range(2400):
        if len(read_metrics(metrics)) > 1:
            break
        time.sleep(0.1)
    process.send_signal(asked)
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
