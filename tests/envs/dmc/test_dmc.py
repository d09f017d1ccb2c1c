"""The dm_control suite behind the host contract: scenes, time, rewards, seeds."""

import math
import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest
from kinds import make_dmc

from envs.dmc.env import task_names
from envs.mujoco.gl import import_suite

CONTRACT = [
    ("cartpole_swingup", False),
    ("ball_in_cup_catch", False),
    ("manipulator_bring_ball", False),
    ("humanoid_CMU_run", False),
    ("cartpole_swingup_sparse", True),
    ("reacher_easy", True),
    ("quadruped_walk", True),
]
EPISODE = """
import hashlib, sys
import numpy as np
from envs.registry import host_env
env = host_env("dmc", sys.argv[1], pixels=sys.argv[2] == "True")()
actions = np.random.default_rng(0).uniform(-1, 1, (5, env.spec.action_dim)).astype(np.float32)
scenes = [env.reset(7)] + [env.step(action).scene for action in actions]
print(hashlib.sha256(np.stack(scenes).tobytes()).hexdigest())
assert "jax" not in sys.modules, "a worker would import jax"
"""


def random_actions(env, steps, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (steps, env.spec.action_dim)).astype(np.float32)


def by_hand(domain, task, seed):
    """The same episode, as dm_control alone gives it."""
    env = import_suite(pixels=False).load(domain, task, task_kwargs={"random": 0})
    env.task.random.seed(seed)
    return env, env.reset()


def flat(observation):
    return np.concatenate([np.ravel(entry) for entry in observation.values()]).astype(np.float32)


@pytest.mark.parametrize(("name", "pixels"), CONTRACT)
def test_contract(name, pixels):
    env = make_dmc(name, pixels=pixels, image_size=48)
    spec = env.spec
    assert pickle.loads(pickle.dumps(spec)).draw == spec.draw
    assert (spec.name, spec.pixels, spec.action_repeat, spec.episode_steps) == (name, pixels, 2, 500)

    scene = env.reset(3)
    actions = random_actions(env, 8)
    steps = [env.step(action) for action in actions]
    for each in [scene, *(step.scene for step in steps)]:
        assert isinstance(each, np.ndarray)
        assert (each.shape, each.dtype) == (spec.scene.shape, spec.scene.dtype)
    assert spec.scene.dtype == np.float32
    assert len({each.tobytes() for each in [scene, *(step.scene for step in steps)]}) > 1  # and no buffer is reused
    for step in steps:
        assert (step.reward.dtype, step.terminated.dtype, step.truncated.dtype) == (np.float32, np.bool_, np.bool_)
        assert not step.terminated and not step.truncated
    seen = jax.eval_shape(spec.observe, spec.scene)
    assert (seen.shape, seen.dtype) == (((48, 48, 3), np.uint8) if pixels else (spec.scene.shape, np.float32))
    assert spec.draw is not None
    frame = spec.draw(env.picture(32), 32)
    assert (frame.shape, frame.dtype) == ((32, 32, 3), np.uint8)

    assert (env.reset(3) == scene).all()
    assert (env.replay(3, actions) == steps[-1].scene).all()
    assert (env.reset(4) != scene).any()
    env.close()


@pytest.mark.parametrize("name", task_names())
def test_every_task_is_a_function_of_its_seed(name):
    env = make_dmc(name, pixels=False)
    actions = random_actions(env, 3)

    def episode():
        return np.stack([env.reset(5), *(env.step(action).scene for action in actions)])

    first = episode()
    env.reset(6)
    for action in random_actions(env, 5, seed=1):
        env.step(action)
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(episode(), first)


@pytest.mark.parametrize(("name", "pixels"), [("reacher_easy", True), ("finger_turn_hard", False)])
def test_new_processes_give_the_same_bits(name, pixels):
    def run():
        command = [sys.executable, "-c", EPISODE, name, str(pixels)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    assert run() == run()


@pytest.mark.parametrize("repeat", [1, 7])
def test_action_repeat_sums_rewards_and_stops_at_the_end(repeat):
    env = make_dmc("cartpole_swingup", pixels=False, action_repeat=repeat)
    assert env.spec.episode_steps == math.ceil(1000 / repeat)
    hand, first = by_hand("cartpole", "swingup", seed=11)
    np.testing.assert_array_equal(env.reset(11), flat(first.observation))
    actions = random_actions(env, env.spec.episode_steps)
    control_steps = 0
    for number, action in enumerate(actions, start=1):
        step, reward = first, 0.0
        for _ in range(repeat):
            step = hand.step(action.astype(np.float64))
            reward += step.reward
            control_steps += 1
            if step.last():
                break
        mine = env.step(action)
        np.testing.assert_array_equal(mine.scene, flat(step.observation))
        assert mine.reward == np.float32(reward)
        assert mine.truncated == (number == env.spec.episode_steps) == step.last()
        assert not mine.terminated
    assert control_steps == 1000
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(actions[0])


def test_termination_is_not_truncation(monkeypatch):
    env = make_dmc("lqr_lqr_2_1", pixels=False)
    assert env.spec.episode_steps == 500  # the suite sets it no limit
    env.reset(0)
    monkeypatch.setattr(env._env.task, "get_termination", lambda physics: 0.0)
    step = env.step(np.zeros(1, np.float32))
    assert step.terminated and not step.truncated


def test_actions_are_rescaled_and_clipped():
    env = make_dmc("quadruped_walk", pixels=False, action_repeat=1)
    hand, _ = by_hand("quadruped", "walk", seed=0)
    limits = hand.action_spec()
    env.reset(0)
    env.step(np.full(12, 3, np.float32))
    np.testing.assert_allclose(env._physics.data.ctrl, limits.maximum)
    env.step(np.full(12, -1, np.float32))
    np.testing.assert_allclose(env._physics.data.ctrl, limits.minimum)
    env.step(np.zeros(12, np.float32))
    np.testing.assert_allclose(env._physics.data.ctrl, (limits.minimum + limits.maximum) / 2)


def test_bad_actions():
    from dm_control.rl.control import PhysicsError

    env = make_dmc("cheetah_run", pixels=False)
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(np.zeros(6, np.float32))
    env.reset(0)
    with pytest.raises(ValueError, match=r"shape \(6,\), got \(5,\)"):
        env.step(np.zeros(5, np.float32))
    with pytest.raises(PhysicsError):
        env.step(np.full(6, np.nan, np.float32))


def test_replay_refuses_to_run_past_the_end():
    env = make_dmc("cartpole_balance", pixels=False, action_repeat=500)
    with pytest.raises(ValueError, match="run past the end"):
        env.replay(0, np.zeros((3, 1), np.float32))


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"image_size": 0}, "env.image_size"),
        ({"image_size": 84.0}, "env.image_size"),
        ({"image_size": True}, "env.image_size"),
        ({"action_repeat": -1}, "env.action_repeat"),
        ({"render_quality": "best"}, "env.render_quality"),
        ({"camera_id": 7}, "env.camera_id"),
        ({"camera_id": -2}, "env.camera_id"),
        ({"camera_id": "side"}, "env.camera_id"),
        ({"pixels": None}, "env.pixels"),
    ],
)
def test_bad_settings_are_named(settings, key):
    with pytest.raises(ValueError, match=key):
        make_dmc("walker_walk", **{"pixels": False, **settings})


def test_unknown_task_lists_close_names():
    with pytest.raises(ValueError, match=r"unknown task 'cartpole_swing_up' .* cartpole_swingup"):
        make_dmc("cartpole_swing_up", pixels=False)
    with pytest.raises(ValueError, match="walker_walk"):
        make_dmc("", pixels=False)
