"""Anything with dm_env's interface behind the host contract: its dynamics, and each episode a function of its seed."""

import pickle
import subprocess
import sys

import cv2
import jax
import numpy as np
import pytest
from dm_worlds import World
from kinds import make_dm_env, make_dmc

from envs.pools.host import HostPool
from envs.registry import host_env
from envs.types import ArraySpec

NAME = "dm_worlds:world"


def some_actions(steps, dim=2, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (steps, dim)).astype(np.float32)


def play(env, seed, actions):
    scenes, steps = [env.reset(seed)], []
    for action in actions:
        steps.append(env.step(action))
        scenes.append(steps[-1].scene)
        if steps[-1].terminated or steps[-1].truncated:
            break
    return np.stack(scenes), steps


def test_dynamics_are_those_of_the_environment():
    env, hand = make_dm_env(NAME, max_episode_steps=20), World(7)
    assert env.spec.scene == ArraySpec((3,), np.dtype(np.float32))
    assert (env.spec.action_dim, env.spec.episode_steps, env.spec.pixels) == (2, 20, False)
    assert pickle.loads(pickle.dumps(env.spec)) == env.spec
    actions = some_actions(8) - [0.5, 0]
    scenes, steps = play(env, 7, actions)
    stamp = hand.reset()
    for number, scene in enumerate(scenes):
        rest = stamp.observation["rest"][0].ravel()
        np.testing.assert_array_equal(scene, np.array([stamp.observation["x"], *rest], np.float32))
        if number < len(actions):
            x, pushed = np.clip(actions[number].astype(np.float32), -1, 1).astype(np.float64)
            stamp = hand.step(np.array([[0.5 + 0.5 * x, pushed]]))  # 0 to 1; what has no limits stays
            assert steps[number].reward == np.float32(stamp.reward)
    assert len(steps) == 8 and steps[-1].truncated and not steps[-1].terminated
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(actions[0])


def test_a_discount_of_zero_terminates():
    _, steps = play(make_dm_env(NAME), 0, np.ones((9, 2), np.float32))
    assert len(steps) == 4 and steps[-1].terminated and not steps[-1].truncated


def test_the_limit_truncates_what_goes_on():
    env = make_dm_env("dm_worlds:blind", max_episode_steps=5, action_repeat=2)
    assert env.spec.episode_steps == 3
    _, steps = play(env, 0, -np.ones((9, 2), np.float32))
    assert len(steps) == 3 and steps[-1].truncated and not steps[-1].terminated


@pytest.mark.parametrize("pixels", [False, True])
def test_an_episode_is_a_function_of_its_seed(pixels):
    env = make_dm_env(NAME, pixels=pixels, image_size=6)
    actions = some_actions(6) - 0.5
    first, _ = play(env, 5, actions)
    play(env, 6, some_actions(3, seed=1))
    np.testing.assert_array_equal(play(env, 5, actions)[0], first)
    np.testing.assert_array_equal(play(make_dm_env(NAME, pixels=pixels, image_size=6), 5, actions)[0], first)
    np.testing.assert_array_equal(env.replay(5, actions[:4]), first[4])
    if not pixels:
        assert (env.reset(4) != first[0]).any()
    env.close()
    env.close()


def test_pixels_are_an_entry_of_the_observation():
    env, states = make_dm_env(NAME, pixels=True, image_size=6), make_dm_env(NAME)
    assert env.spec.scene == ArraySpec((6, 6, 3), np.dtype(np.uint8))
    scenes, _ = play(env, 1, np.ones((3, 2), np.float32))
    x = World(1).reset().observation["x"]
    for number, scene in enumerate(scenes):
        own = np.full((8, 12, 3), [20 * number, 30 * int(x + number), 9], np.uint8)
        np.testing.assert_array_equal(scene, cv2.resize(own, (6, 6), interpolation=cv2.INTER_AREA))
    play(states, 1, np.ones((3, 2), np.float32))
    np.testing.assert_array_equal(states.picture(6), scenes[-1])


def test_dm_control_is_what_its_own_kind_makes_of_it():
    ours, theirs = make_dmc("cartpole_balance", action_repeat=2), make_dm_env("dm_worlds:cartpole", action_repeat=2)
    assert ours.spec.scene == theirs.spec.scene and ours.spec.episode_steps == theirs.spec.episode_steps
    actions = some_actions(5, dim=1)
    for mine, other in zip(play(ours, 3, actions), play(theirs, 3, actions), strict=True):
        jax.tree.map(np.testing.assert_array_equal, mine, other)


def test_dm_control_draws_itself():
    env = make_dm_env("dm_worlds:cartpole", pixels=True, image_size=48)
    frame = env.reset(0)
    assert (frame.shape, frame.dtype) == ((48, 48, 3), np.uint8) and frame.std() > 10
    hand = __import__("dm_worlds").cartpole(0)
    hand.reset()
    np.testing.assert_array_equal(frame, hand.physics.render(48, 48, camera_id=0))
    env.close()


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("world", {}, "env.name must be module:function for env.kind='dm_env', got 'world'"),
        ("dm_wrlds:world", {}, "there is no module 'dm_wrlds' on Python's path"),
        ("dm_worlds:wrld", {}, "module dm_worlds has no function 'wrld'; did you mean world"),
        ("dm_worlds:unseeded", {}, "must take `seed` or `random_state`"),
        ("dm_worlds:discrete", {}, "must have bounded actions, .* got DiscreteArray"),
        ("dm_worlds:unbounded", {}, "must have bounded actions, .* got Array"),
        ("dm_worlds:blind", {"pixels": True}, "has neither an entry 'pixels' .* set --config.env.pixels=False"),
        (NAME, {"pixels": True, "pixels_key": "image"}, "has neither an entry 'image'"),
        ("dm_worlds:float_image", {"pixels": True}, r"'pixels' .* must give uint8 .*, got float32 \[8, 12, 3\]"),
        ("dm_worlds:grey_image", {"pixels": True}, r"'pixels' .* must give uint8 .*, got uint8 \[8, 12, 1\]"),
        (NAME, {"pixels_key": "rst"}, "env.pixels_key must be unset or name an entry .* got 'rst'; did you mean rest"),
        ("dm_worlds:cartpole", {"pixels": True, "pixels_key": "image"}, "env.pixels_key must be unset or .*'image'"),
        (NAME, {"pixels": True, "camera_id": 0}, "env.camera_id is for physics.render, .* 'pixels'; leave it unset"),
        ("dm_worlds:half_bounded", {}, "limited on both sides or on neither, got -1.* to 5.0 for action 1"),
        ("dm_worlds:needy", {}, "must need nothing but `seed`, and needs mass, friction; give defaults"),
        ("dm_worlds:by_place", {}, "must take `seed` or `random_state`"),
        (":world", {}, "env.name=':world' must have a module's full name before the colon, got ''"),
        (".dm_worlds:world", {}, "must have a module's full name before the colon, got '.dm_worlds'"),
        (NAME, {"max_episode_steps": 0}, "env.max_episode_steps must be positive, got 0"),
    ],
)
def test_what_cannot_be_is_a_sentence(name, settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        host_env("dm_env", name, **settings)
    assert "\n" not in str(caught.value)


def test_the_largest_float_is_no_limit():
    env = make_dm_env("dm_worlds:largest")
    np.testing.assert_array_equal(env._control(np.array([-1, 0.5], np.float32)), np.array([-1, 0.5], np.float32))


def test_bad_actions_and_missing_pictures():
    env = make_dm_env("dm_worlds:blind")
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(np.zeros(2, np.float32))
    env.reset(0)
    with pytest.raises(ValueError, match=r"must have shape \(2,\), got \(3,\)"):
        env.step(np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="must be finite"):
        env.step(np.full(2, np.inf, np.float32))
    with pytest.raises(ValueError, match="has no pictures"):
        env.picture(32)


def test_pools_agree_and_restore_mid_episode():
    make = host_env("dm_env", NAME, max_episode_steps=6)
    actions = np.random.default_rng(0).uniform(-1, 0, (16, 2, 2)).astype(np.float32)
    with HostPool(make, [(3, 0), (3, 1)], "serial") as serial, HostPool(make, [(3, 0), (3, 1)], "process") as process:
        np.testing.assert_array_equal(process.reset(), serial.reset())
        for action in actions[:9]:
            jax.tree.map(np.testing.assert_array_equal, process.step(action), serial.step(action))
        snapshot = serial.snapshot()
        assert (snapshot["steps"] == 3).all()
        later = [serial.step(action) for action in actions[9:]]
        process.restore(snapshot)
        for action, outcome in zip(actions[9:], later, strict=True):
            jax.tree.map(np.testing.assert_array_equal, process.step(action), outcome)


def test_a_worker_imports_no_jax():
    code = "import sys; sys.path.insert(0, 'tests/support'); from envs.registry import host_env;"
    code += f"env = host_env('dm_env', {NAME!r})(); env.reset(0); env.step([0.0, 0.0]); assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
