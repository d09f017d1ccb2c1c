"""gymnasium's MuJoCo tasks behind the host contract: gymnasium's dynamics, our actions, one function of the seed."""

import math
import pickle
import subprocess
import sys
from typing import cast

import gymnasium
import jax
import numpy as np
import pytest
from kinds import make_gymnasium

from envs.gymnasium.tasks import mujoco_names
from envs.pools.host import HostPool
from envs.registry import host_env
from envs.types import ArraySpec

TASKS = [name for name in mujoco_names() if not name.startswith("Own")]  # those of support/gym_worlds.py are no tasks
EPISODE = """
import hashlib, sys
import numpy as np
from envs.registry import host_env
env = host_env("gymnasium", "Ant-v5")()
actions = np.random.default_rng(0).uniform(-1, 1, (5, env.spec.action_dim)).astype(np.float32)
scenes = [env.reset(7)] + [env.step(action).scene for action in actions]
print(hashlib.sha256(np.stack(scenes).tobytes()).hexdigest())
assert "jax" not in sys.modules, "a worker would import jax"
"""


def random_actions(env, steps, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (steps, env.spec.action_dim)).astype(np.float32)


def play(env, seed, actions):
    """The scenes, rewards, and (terminated, truncated) of an episode, until it ends or the actions do."""
    scenes, rewards, flags = [env.reset(seed)], [], []
    for action in actions:
        step = env.step(action)
        scenes.append(step.scene)
        rewards.append(step.reward)
        flags.append((bool(step.terminated), bool(step.truncated)))
        if any(flags[-1]):
            break
    return np.stack(scenes), np.array(rewards), flags


@pytest.mark.parametrize("name", TASKS)
def test_dynamics_are_those_of_gymnasium(name):
    env = make_gymnasium(name)
    hand = gymnasium.make(name)
    space = cast(gymnasium.spaces.Box, hand.action_space)
    scenes, rewards, flags = play(env, 5, random_actions(env, 60))
    observation, _ = hand.reset(seed=5)
    np.testing.assert_array_equal(scenes[0], observation.astype(np.float32))
    for action, scene, reward, flag in zip(random_actions(env, 60), scenes[1:], rewards, flags, strict=False):
        control = (space.low + space.high) / 2 + (space.high - space.low) / 2 * action
        observation, gain, terminated, truncated, _ = hand.step(control)
        np.testing.assert_array_equal(scene, observation.astype(np.float32))
        assert reward == np.float32(gain)
        assert flag == (terminated, truncated)
    hand.close()


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_a_function_of_its_seed(name):
    env = make_gymnasium(name)
    actions = random_actions(env, 40)
    first = play(env, 5, actions)
    play(env, 6, random_actions(env, 30, seed=1))
    again, fresh = play(env, 5, actions), play(make_gymnasium(name), 5, actions)
    for mine, second, third in zip(first, again, fresh, strict=True):
        np.testing.assert_array_equal(mine, second)
        np.testing.assert_array_equal(mine, third)
    assert np.isfinite(first[0]).all()
    count = len(first[2]) - any(first[2][-1])  # a replay does not end the episode
    play(env, 6, random_actions(env, 30, seed=1))
    np.testing.assert_array_equal(env.replay(5, actions[:count]), first[0][count])
    assert (env.reset(4) != first[0][0]).any()


def test_new_processes_give_the_same_bits():
    def run():
        return subprocess.run([sys.executable, "-c", EPISODE], check=True, capture_output=True, text=True).stdout

    assert run() == run()


def test_contract():
    env = make_gymnasium("Walker2d-v5", action_repeat=3)
    spec = env.spec
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert (spec.name, spec.pixels, spec.action_repeat, spec.episode_steps) == ("Walker2d-v5", False, 3, 334)
    scene = env.reset(2**32 - 1)
    step = env.step(random_actions(env, 1)[0])
    for each in (scene, step.scene):
        assert (each.shape, each.dtype) == (spec.scene.shape, spec.scene.dtype) == ((17,), np.float32)
    assert (step.reward.dtype, step.terminated.dtype, step.truncated.dtype) == (np.float32, np.bool_, np.bool_)
    seen = jax.eval_shape(spec.observe, spec.scene)
    assert (seen.shape, seen.dtype) == (spec.scene.shape, spec.scene.dtype)
    env.close()
    env.close()


@pytest.mark.parametrize("repeat", [1, 7])
def test_time_limit_truncates(repeat):
    env = make_gymnasium("HalfCheetah-v5", action_repeat=repeat)
    assert env.spec.episode_steps == math.ceil(1000 / repeat)
    _, _, flags = play(env, 0, random_actions(env, 1000))
    assert len(flags) == env.spec.episode_steps
    assert flags[-1] == (False, True)
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(random_actions(env, 1)[0])


def test_a_fall_terminates():
    env = make_gymnasium("Hopper-v5")
    _, _, flags = play(env, 0, random_actions(env, 1000))
    assert len(flags) < 500
    assert flags[-1] == (True, False)
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(random_actions(env, 1)[0])


def test_a_fall_in_the_last_step_is_no_truncation(monkeypatch):
    env = make_gymnasium("Reacher-v5")
    env.reset(0)
    answer = (np.zeros(10), 0.0, True, True, {})
    monkeypatch.setattr(env._env, "step", lambda action: answer)
    step = env.step(np.zeros(2, np.float32))
    assert step.terminated and not step.truncated


def test_action_repeat_sums_rewards_and_stops_at_the_end():
    held, single = make_gymnasium("Hopper-v5", action_repeat=4), make_gymnasium("Hopper-v5")
    actions = random_actions(held, 100)
    scenes, rewards, flags = play(held, 1, actions)
    every, each, ends = play(single, 1, np.repeat(actions, 4, axis=0))
    assert flags[-1] == ends[-1] == (True, False)
    assert len(flags) == math.ceil(len(ends) / 4)
    np.testing.assert_array_equal(scenes[:-1], every[: 4 * len(flags) - 3 : 4])
    np.testing.assert_array_equal(scenes[-1], every[-1])
    sums = [each[start : start + 4].sum() for start in range(0, len(each), 4)]
    np.testing.assert_allclose(rewards, sums, rtol=1e-6)


def test_actions_are_rescaled_and_clipped():
    env = make_gymnasium("Humanoid-v5")
    dim = env.spec.action_dim
    control = env._mujoco.data.ctrl
    env.reset(0)
    for action, expected in [(3, 0.4), (1, 0.4), (-1, -0.4), (-9, -0.4), (0.5, 0.2), (0, 0)]:
        env.step(np.full(dim, action, np.float32))
        np.testing.assert_allclose(control, expected, rtol=1e-6)


def test_bad_actions():
    env = make_gymnasium("HalfCheetah-v5")
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(np.zeros(6, np.float32))
    env.reset(0)
    with pytest.raises(ValueError, match=r"shape \(6,\), got \(5,\)"):
        env.step(np.zeros(5, np.float32))
    with pytest.raises(ValueError, match="must be finite"):
        env.step(np.full(6, np.nan, np.float32))


def test_replay_refuses_to_run_past_the_end():
    env = make_gymnasium("Reacher-v5", action_repeat=25)
    with pytest.raises(ValueError, match="run past the end"):
        env.replay(0, np.zeros((2, 2), np.float32))


def test_pools_agree_and_restore_mid_episode():
    make = host_env("gymnasium", "Hopper-v5", action_repeat=8)  # falls within some ten steps
    lanes = [(3, 0), (3, 1)]
    actions = np.random.default_rng(0).uniform(-1, 1, (25, 2, 3)).astype(np.float32)
    with (
        HostPool(make, lanes, "serial") as serial,
        HostPool(make, lanes, "thread") as thread,
        HostPool(make, lanes, "process") as process,
    ):
        first = serial.reset()
        np.testing.assert_array_equal(thread.reset(), first)
        np.testing.assert_array_equal(process.reset(), first)
        ended, snapshot, later = 0, serial.snapshot(), []
        for number, action in enumerate(actions):
            one, *others = [pool.step(action) for pool in (serial, thread, process)]
            for other in others:
                jax.tree.map(np.testing.assert_array_equal, one, other)
            ended += one.step.terminated.sum()
            if number == 14:
                snapshot = serial.snapshot()
            elif number > 14:
                later.append(one)
        assert ended > 1
        assert (snapshot["steps"] > 0).any()
        process.restore(snapshot)
        for action, outcome in zip(actions[15:], later, strict=True):
            jax.tree.map(np.testing.assert_array_equal, process.step(action), outcome)


def test_frames():
    env = make_gymnasium("HalfCheetah-v5")
    scenes, _, _ = play(env, 0, random_actions(env, 3))
    frame = env.picture(96)
    assert (frame.shape, frame.dtype) == ((96, 96, 3), np.uint8)
    assert frame.std() > 10
    again = make_gymnasium("HalfCheetah-v5", pixels=True, image_size=96)
    assert again.spec.pixels and again.spec.scene == ArraySpec((96, 96, 3), np.dtype(np.uint8))
    pictures, _, _ = play(again, 0, random_actions(again, 3))
    np.testing.assert_array_equal(pictures[-1], frame)
    assert (pictures[-1] != pictures[0]).any()
    np.testing.assert_array_equal(again.replay(0, random_actions(again, 3)), frame)
    np.testing.assert_array_equal(play(env, 0, random_actions(env, 3))[0], scenes)  # drawing changed nothing
    env.close()
    again.close()


def test_tasks_without_cameras_are_drawn_too():
    env = make_gymnasium("Reacher-v5")
    env.reset(0)
    assert env.picture(64).std() > 10
    env.close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 0}, "env.image_size must be positive, got 0"),
        ({"action_repeat": 1.5}, "env.action_repeat must be a whole number, got 1.5"),
        ({"camera_id": 4}, "env.camera_id must be a camera of Hopper-v5, -1 or 0, got 4"),
        ({"camera_id": "side"}, "env.camera_id must be a whole number, got 'side'"),
        ({"render_quality": "best"}, "env.render_quality must be one of fast, smooth, canonical"),
        ({"pixels": 1}, "env.pixels must be True or False"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        make_gymnasium("Hopper-v5", **settings)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("halfcheetah", "unknown task 'halfcheetah' of kind gymnasium; did you mean HalfCheetah-v5"),
        ("Hopper-v4", "'Hopper-v4' is an old version; take Hopper-v5"),
        ("Pendulum-v0", "unknown task 'Pendulum-v0' .* did you mean Pendulum-v1, .*InvertedPendulum-v5"),
        ("", "Ant-v5"),
        ("no_such_package:Hopper-v5", "there is no module 'no_such_package' on Python's path"),
        ("CartPole-v1", "'CartPole-v1' has discrete actions, .* choose .*HalfCheetah-v5"),
        ("MountainCar-v0", "has discrete actions"),
    ],
)
def test_other_environments_are_refused(name, message):
    with pytest.raises(ValueError, match=message) as caught:
        host_env("gymnasium", name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("package", ["gymnasium", "glfw"])
def test_a_missing_package_is_named(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "gymnasium.envs.mujoco.mujoco_rendering")  # what imports glfw
    with pytest.raises(RuntimeError, match=rf'needs the package {package},.*pip install "gymnasium\[mujoco\]'):
        make_gymnasium("Hopper-v5")


def test_making_is_silent():
    code = "from envs.registry import host_env; host_env('gymnasium', 'HalfCheetah-v5')().reset(0)"
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout + run.stderr == ""
