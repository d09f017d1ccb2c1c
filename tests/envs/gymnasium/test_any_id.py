"""Any id of gymnasium with Box spaces behind the host contract: from states, and from pixels by its own `render()`."""

import importlib
import pickle
import subprocess
import sys
from typing import Any

import cv2
import gymnasium
import jax
import numpy as np
import pytest
from gym_worlds import STEPS
from gymnasium.envs.registration import EnvSpec
from kinds import make_gymnasium

from envs.gymnasium.mujoco import MujocoTask
from envs.gymnasium.tasks import GymnasiumSettings
from envs.pools.host import HostPool
from envs.registry import host_env
from envs.types import ArraySpec

NAME = "gym_worlds:TestWorld-v0"


def some_actions(steps, env, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (steps, env.spec.action_dim)).astype(np.float32)


def play(env, seed, actions):
    scenes, steps = [env.reset(seed)], []
    for action in actions:
        steps.append(env.step(action))
        scenes.append(steps[-1].scene)
        if steps[-1].terminated or steps[-1].truncated:
            break
    return np.stack(scenes), steps


def test_dynamics_are_those_of_gymnasium():
    env, hand = make_gymnasium(NAME), gymnasium.make("TestWorld-v0", disable_env_checker=True)
    assert env.spec.scene == ArraySpec((4,), np.dtype(np.float32))
    assert (env.spec.action_dim, env.spec.episode_steps, env.spec.pixels) == (2, STEPS, False)
    assert pickle.loads(pickle.dumps(env.spec)) == env.spec
    actions = some_actions(STEPS, env)
    scenes, steps = play(env, 5, actions)
    observation, _ = hand.reset(seed=5)
    np.testing.assert_array_equal(scenes[0], observation.astype(np.float32).ravel())
    for action, step in zip(actions, steps):
        control = np.array([[1 + action[0]], [action[1]]], np.float32)  # 0 to 2; what has no limits stays
        observation, reward, terminated, truncated, _ = hand.step(control)
        np.testing.assert_array_equal(step.scene, observation.astype(np.float32).ravel())
        assert step.reward == np.float32(reward)
        assert (step.terminated, step.truncated) == (terminated, truncated and not terminated)
    assert steps[-1].terminated or steps[-1].truncated
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(actions[0])


def test_pendulum_is_gymnasiums():
    env, hand = make_gymnasium("Pendulum-v1", action_repeat=3), gymnasium.make("Pendulum-v1")
    assert env.spec.episode_steps == 67
    scenes, steps = play(env, 1, some_actions(80, env))
    observation, _ = hand.reset(seed=1)
    np.testing.assert_array_equal(scenes[0], observation)
    for action, step in zip(some_actions(80, env), steps):
        answers = [hand.step(2 * action) for _ in range(3 if step is not steps[-1] else 2)]
        np.testing.assert_array_equal(step.scene, answers[-1][0])
        np.testing.assert_allclose(step.reward, sum(float(answer[1]) for answer in answers), rtol=1e-6)
    assert len(steps) == 67 and steps[-1].truncated and not steps[-1].terminated


@pytest.mark.parametrize("pixels", [False, True])
def test_an_episode_is_a_function_of_its_seed(pixels):
    env = make_gymnasium(NAME, pixels=pixels, image_size=20)
    actions = some_actions(6, env) * 0.1 - 0.5
    first, _ = play(env, 5, actions)
    play(env, 6, some_actions(4, env, seed=1))
    again, fresh = play(env, 5, actions)[0], play(make_gymnasium(NAME, pixels=pixels, image_size=20), 5, actions)[0]
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, fresh)
    play(env, 6, some_actions(4, env, seed=1))
    np.testing.assert_array_equal(env.replay(5, actions[:4]), first[4])
    assert (env.reset(4) != first[0]).any()
    with pytest.raises(ValueError, match="run past the end"):
        env.replay(5, np.ones((STEPS, 2), np.float32))


def test_pixels_are_the_environments_own():
    env, states = make_gymnasium(NAME, pixels=True, image_size=20), make_gymnasium(NAME)
    assert env.spec.scene == ArraySpec((20, 20, 3), np.dtype(np.uint8))
    frame = env.reset(3)
    frame = env.step(np.zeros(2, np.float32)).scene
    hand = gymnasium.make("TestWorld-v0", render_mode="rgb_array", disable_env_checker=True)
    hand.reset(seed=3)
    hand.step(np.array([[1], [0]], np.float32))
    drawn = np.asarray(hand.render())
    np.testing.assert_array_equal(frame, cv2.resize(drawn, (20, 20), interpolation=cv2.INTER_AREA))
    blocks = drawn.reshape(20, 2, 20, 3, 3).mean(axis=(1, 3))  # each pixel is the mean of the area that it covers
    assert np.abs(frame - blocks).max() <= 0.5 + 1e-6
    seen = jax.eval_shape(env.spec.observe, env.spec.scene)
    assert (seen.shape, seen.dtype) == ((20, 20, 3), np.uint8)
    states.reset(3)
    states.step(np.zeros(2, np.float32))
    np.testing.assert_array_equal(states.picture(20), frame)  # of a video
    assert states.picture(64).shape == (64, 64, 3)
    for each in (env, states):
        each.close()
        each.close()


def test_a_time_limit_can_be_set():
    env = make_gymnasium("gym_worlds:TestEndless-v0", max_episode_steps=5, action_repeat=2)
    assert env.spec.episode_steps == 3
    _, steps = play(env, 0, -np.ones((9, 2), np.float32))
    assert len(steps) == 3 and steps[-1].truncated and not steps[-1].terminated
    assert make_gymnasium(NAME, max_episode_steps=7).spec.episode_steps == 7
    assert make_gymnasium("Hopper-v5", max_episode_steps=7).spec.episode_steps == 7


def test_bad_actions():
    env = make_gymnasium(NAME)
    env.reset(0)
    with pytest.raises(ValueError, match=r"must have shape \(2,\), got \(3,\)"):
        env.step(np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="must be finite"):
        env.step(np.full(2, np.nan, np.float32))


@pytest.mark.parametrize(
    ("name", "settings", "kind", "message"),
    [
        ("TestEndless-v0", {}, ValueError, "without a time limit; set --config.env.max_episode_steps"),
        ("TestSwitch-v0", {}, ValueError, "discrete actions, .* such as Pendulum-v1"),
        ("TestWhole-v0", {}, ValueError, "actions of type int32"),
        ("TestParts-v0", {}, ValueError, "observations of type Dict, and must have Box"),
        ("TestBlind-v0", {"pixels": True}, ValueError, "cannot draw itself: .* --config.env.pixels=False"),
        ("TestGrey-v0", {"pixels": True}, ValueError, r"must give uint8 \[height, width, 3\], got uint8 \[40, 60\]"),
        ("TestBroken-v0", {}, RuntimeError, "needs a package that is not installed: no box3d"),
        ("TestUndrawn-v0", {"pixels": True}, RuntimeError, "needs a package to draw itself: pygame"),
        ("TestWorld-v0", {"camera_id": 1}, ValueError, "env.camera_id is for MuJoCo tasks"),
        ("TestWorld-v0", {"max_episode_steps": 0}, ValueError, "env.max_episode_steps must be positive, got 0"),
        ("TestWrld-v0", {}, ValueError, "unknown task .* did you mean gym_worlds:TestWorld-v0"),
        ("TestWorld-v0", {"camera_id": 1}, ValueError, "draws itself; leave it unset"),
        ("TestWorld-v0", {"render_quality": "smooth"}, ValueError, "draws itself; leave it at fast"),
        (
            "TestHalf-v0",
            {},
            ValueError,
            "limited on both sides or on neither, got 0.0 to inf for action 0; give it both",
        ),
        ("TestImages-v0", {}, ValueError, "observes images; set --config.env.pixels=True"),
        ("TestBlindImages-v0", {"pixels": True}, ValueError, "cannot draw itself: .* Give it that mode"),
        ("OwnReacher-v2", {}, ValueError, r"is made by an old class, gymnasium.envs.mujoco.reacher_v4:ReacherEnv"),
        ("OwnReacher-v3", {}, ValueError, "without a time limit; set --config.env.max_episode_steps"),
    ],
)
def test_what_cannot_be_is_a_sentence(name, settings, kind, message):
    with pytest.raises(kind, match=message) as caught:
        host_env("gymnasium", f"gym_worlds:{name}", **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [":Pendulum-v1", ".gym_worlds:TestWorld-v0"])
def test_a_colon_wants_a_module(name):
    with pytest.raises(ValueError, match="must have a module's full name before the colon"):
        host_env("gymnasium", name)


def test_only_what_follows_the_colon_is_compared():
    with pytest.raises(ValueError, match="unknown task 'gym_worlds:TestWrld-v0'") as caught:
        host_env("gymnasium", "gym_worlds:TestWrld-v0")
    hint = str(caught.value).partition("did you mean ")[2].rstrip("?").split(", ")
    assert all(each.startswith("gym_worlds:") for each in hint) and "gym_worlds:Ant-v5" not in hint


@pytest.mark.parametrize(
    ("name", "settings", "steps"),
    [
        ("gym_worlds:OwnReacher-v0", {}, 9),
        ("gym_worlds:OwnReacher-v3", {"max_episode_steps": 4}, 4),
        ("gym_worlds:Reacher-v5", {}, 50),
    ],
)
def test_own_registrations_of_mujoco_tasks_are_mujoco_tasks(name, settings, steps):
    env, usual = make_gymnasium(name, camera_id=-1, **settings), make_gymnasium("Reacher-v5")
    assert isinstance(env, MujocoTask) and env.spec.episode_steps == steps
    np.testing.assert_array_equal(env.reset(2), usual.reset(2))
    for each in (env, usual):
        each.close()


def test_a_mujoco_class_may_be_registered_itself(monkeypatch):
    entry: Any = importlib.import_module("gymnasium.envs.mujoco.reacher_v5").ReacherEnv
    own = EnvSpec("OwnReacher-v1", entry_point=entry, max_episode_steps=9)
    monkeypatch.setitem(gymnasium.registry, "OwnReacher-v1", own)
    env = make_gymnasium("OwnReacher-v1")
    assert isinstance(env, MujocoTask)
    env.close()


def test_a_task_made_without_a_limit_says_so():
    with pytest.raises(ValueError, match="without a time limit"):
        MujocoTask("gym_worlds:OwnReacher-v3", GymnasiumSettings())


def test_the_largest_float_is_no_limit():
    env = make_gymnasium("gym_worlds:TestLargest-v0")
    np.testing.assert_array_equal(env._control(np.array([0.5], np.float32)), np.array([0.5], np.float32))


def test_without_a_picture_the_video_is_refused():
    env = make_gymnasium("gym_worlds:TestBlind-v0")
    env.reset(0)
    with pytest.raises(ValueError, match="no render mode 'rgb_array'"):
        env.picture(32)


def test_pools_agree_and_restore_mid_episode():
    make = host_env("gymnasium", NAME, pixels=True, image_size=16)
    actions = np.random.default_rng(0).uniform(-1, 1, (20, 2, 2)).astype(np.float32)
    lanes = [(3, 0), (3, 1)]
    with (
        HostPool(make, lanes, "serial") as serial,
        HostPool(make, lanes, "thread") as thread,
        HostPool(make, lanes, "process") as process,
    ):
        for pool in (thread, process):
            np.testing.assert_array_equal(pool.reset(), serial.reset())
        snapshot, later = serial.snapshot(), []
        for number, action in enumerate(actions):
            one, *others = [pool.step(action) for pool in (serial, thread, process)]
            for other in others:
                jax.tree.map(np.testing.assert_array_equal, one, other)
            if number == 14:
                snapshot = serial.snapshot()
            later += [one] if number > 14 else []
        process.restore(snapshot)
        for action, outcome in zip(actions[15:], later, strict=True):
            jax.tree.map(np.testing.assert_array_equal, process.step(action), outcome)


def test_a_worker_imports_no_jax():
    code = "from envs.registry import host_env; env = host_env('gymnasium', 'Pendulum-v1')(); env.reset(0);"
    code += "env.step([0.0]); import sys; assert 'jax' not in sys.modules"
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout + run.stderr == ""
