"""`experiments.evaluate` plays a run's networks, and says in a sentence where there is nothing to play or to draw."""

import json
import subprocess
import sys
from typing import get_args

import gymnasium
import numpy as np
import pytest

from configs import gymnax_states
from envs.mujoco.base import RendererName
from experiments import load_policy
from experiments.evaluate import RENDERERS, play
from experiments.record.policy import Policy, read_config
from experiments.run import run


def program(name, *args):
    command = [sys.executable, "-m", f"experiments.{name}", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    "name", ["evaluate", *(pytest.param(n, marks=pytest.mark.slow) for n in ("report", "transfer"))]
)
def test_a_folder_without_a_run_is_a_sentence(tmp_path, name):
    done = program(name, f"--run={tmp_path}")
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert str(tmp_path) in sentence


def test_a_run_without_networks_is_a_sentence(tmp_path):
    (tmp_path / "config.json").write_text(gymnax_states.get_config("smoke").to_json())
    with pytest.raises(FileNotFoundError, match="holds no networks yet"):
        play(tmp_path, read_config(tmp_path), 1)


def test_the_renderers_to_choose_from_are_all_that_there_are():
    assert set(RENDERERS) == set(get_args(RendererName))  # named there again, as importing them takes seconds


def test_a_policy_stacks_frames_until_the_episode_ends():
    class Newest:
        """Acts by the mean of each frame of the stack, the newest last."""

        def act(self, state, obs, key, noise):
            return obs.reshape(2, 2, 3, 3).mean(axis=(0, 1, 3)) / 255 + state

    policy = Policy(Newest(), 0.5, (2, 2, 3), frame_stack=3)  # pyright: ignore[reportArgumentType]
    dark, light = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    np.testing.assert_allclose(policy(dark), [0.5, 0.5, 0.5])
    np.testing.assert_allclose(policy(light), [0.5, 0.5, 1.5])
    np.testing.assert_allclose(policy(dark), [0.5, 1.5, 0.5])
    policy.reset()
    np.testing.assert_allclose(policy(light), [1.5, 1.5, 1.5])
    for wrong in (light[..., 0], light.astype(np.float32), np.zeros((2, 2, 9), np.uint8)):
        with pytest.raises(ValueError, match=r"learned from uint8 \[2, 2, 3\], got"):
            policy(wrong)


@pytest.mark.slow
def test_networks_play_as_they_were_evaluated(tmp_path):
    config = gymnax_states.get_config("smoke")
    config.update(results_dir=str(tmp_path), eval=dict(episodes=2), video=dict(every=0))
    assert run(config) == 0
    folder = tmp_path / "td3_ne_smoke_Pendulum-v1"
    returns, frames = play(folder, read_config(folder), 3, video_size=32)
    assert returns.shape == (2, 3)
    assert frames is not None and frames.shape == (2, 200, 32, 32, 3) and frames.std() > 0
    for seed, each in zip(config.seeds, returns, strict=True):
        last = json.loads((folder / str(seed) / "metrics.jsonl").read_text().splitlines()[-1])
        assert each[:2].mean() == pytest.approx(last["eval/return"], rel=1e-5)

    policy, env = load_policy(folder, seed=1), gymnasium.make("Pendulum-v1")
    obs, _ = env.reset(seed=0)
    actions = [policy(np.asarray(obs)) for _ in range(2)]
    assert actions[0].shape == (1,) and actions[0].dtype == np.float32 and abs(actions[0][0]) <= 1
    np.testing.assert_array_equal(actions[0], actions[1])
    with pytest.raises(ValueError, match=r"learned from float32 \[3\], got float64 \[4\]"):
        policy(np.zeros(4))
    with pytest.raises(ValueError, match="has the seeds 0, 1, and no seed 5"):
        load_policy(folder, seed=5)
    done = program("evaluate", f"--run={folder}", "--seed=1", "--episodes=1", "--json", f"--video={tmp_path / 'films'}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["returns"]["1"] == pytest.approx([returns[1, 0]], rel=1e-5)
    assert {path.name for path in (tmp_path / "films").iterdir()} == {"1.mp4", "grid.mp4"}
    refused = program("evaluate", f"--run={folder}", "--renderer=gl")
    assert refused.returncode == 2 and "no run of dm_control from pixels" in refused.stderr
