"""The suite's tasks on MJX behind the device contract: shapes, time, actions, mistakes."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kinds import make_mjx

from envs.mjx import env as mjx_env
from envs.mjx.env import KIND, MjxSettings, task_names
from envs.mjx.tasks import DOMAINS
from envs.pools.device import auto_reset_step

QUICK = "pendulum_swingup"  # compiles in seconds


def marked(names):
    return [name if name == QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


@functools.cache
def made(name, action_repeat=2):
    return make_mjx(name, pixels=False, action_repeat=action_repeat)


@functools.cache
def step_of(name, action_repeat=2):
    return jax.jit(made(name, action_repeat).step)


def started(name):
    return jax.jit(made(name).reset)(jax.random.key(0))[0]


@pytest.mark.parametrize("name", marked(task_names()))
def test_contract(name):
    env = made(name)
    state, scene = jax.eval_shape(env.reset, jax.random.key(0))
    after, step = jax.eval_shape(env.step, state, jnp.zeros(env.spec.action_dim), jax.random.key(1))
    for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert (old.shape, old.dtype) == (new.shape, new.dtype) and not (old.weak_type or new.weak_type)
    for one in (scene, step.scene):
        assert (one.shape, one.dtype) == (env.spec.scene.shape, env.spec.scene.dtype)
    assert [(x.shape, x.dtype) for x in step[1:]] == [((), np.float32), ((), np.bool_), ((), np.bool_)]
    assert (env.spec.name, env.spec.action_repeat, env.spec.episode_steps, env.spec.pixels) == (name, 2, 500, False)


@pytest.mark.slow
@pytest.mark.parametrize("name", marked(f"{domain}_{entry.tasks[-1]}" for domain, entry in DOMAINS.items()))
def test_many_in_a_loop_that_resets(name):
    """Random actions for a while, across the end of an episode: finite scenes, and no reward is above one a step."""
    env, lanes = made(name), 3

    @jax.jit
    def play(key):
        state, _ = jax.vmap(env.reset)(jax.random.split(key, lanes))
        state = state.replace(steps=jnp.full(lanes, 980, jnp.int32))

        def once(index, carry):
            state, ends, _, low, high = carry
            keys = jax.random.split(jax.random.fold_in(key, index), lanes)
            action = jax.vmap(lambda key: jax.random.uniform(key, (env.spec.action_dim,), minval=-1.5, maxval=1.5))(
                keys
            )
            state, (step, fresh) = jax.vmap(lambda *each: auto_reset_step(env, *each))(state, action, keys)
            ends = ends.at[index].set(jnp.asarray(step.truncated) & ~jnp.asarray(step.terminated))
            return state, ends, fresh, jnp.minimum(low, step.reward.min()), jnp.maximum(high, step.reward.max())

        begin = state, jnp.zeros((16, lanes), bool), jnp.zeros((lanes, *env.spec.scene.shape)), 9.0, -9.0
        return jax.lax.fori_loop(0, 16, once, begin)

    state, ends, scene, low, high = play(jax.random.key(1))
    assert np.flatnonzero(ends.all(axis=1)).tolist() == [9] and ends.sum() == lanes
    assert state.steps.tolist() == [12] * lanes
    assert np.isfinite(scene).all() and low >= 0 and high <= 2 + 1e-5
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


def test_a_whole_episode_is_truncated_at_its_end():
    env = made("pendulum_swingup")

    def go(state, key):
        return env.step(state, jax.random.uniform(key, (1,), minval=-1), key)

    keys = jax.random.split(jax.random.key(0), 500)
    steps = jax.jit(lambda state: jax.lax.scan(go, state, keys)[1])(started("pendulum_swingup"))
    assert np.flatnonzero(steps.truncated).tolist() == [499] and not steps.terminated.any()


@pytest.mark.parametrize("name", [QUICK, pytest.param("reacher_easy", marks=pytest.mark.slow)])
def test_actions_are_clipped_to_one(name):
    env, state, key = made(name), started(name), jax.random.key(1)
    edge = np.resize([1.0, -1.0], env.spec.action_dim).astype(np.float32)
    jax.tree.map(np.testing.assert_array_equal, *(step_of(name)(state, scale * edge, key) for scale in (1, 3)))


@pytest.mark.slow
def test_action_repeat_sums_rewards_and_stops_where_the_episode_ends():
    name, key = "pendulum_swingup", jax.random.key(1)
    upright = started(name).replace(qpos=jnp.zeros(1), qvel=jnp.full(1, 0.5))
    assert made(name, 3).spec.episode_steps == 334
    for steps, counted in ((0, 3), (997, 3), (998, 2), (999, 1)):
        state = upright.replace(steps=jnp.int32(steps))
        after, step = step_of(name, 3)(state, jnp.ones(1), key)
        total, one = 0.0, None
        for _ in range(counted):
            state, one = step_of(name, 1)(state, jnp.ones(1), key)
            total += float(one.reward)
        jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-6), after, state)
        assert one is not None and float(step.reward) == total == counted
        np.testing.assert_allclose(step.scene, one.scene, rtol=1e-6)
        assert bool(step.truncated) == (steps + counted >= 1000)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("cheeta_run", {}, "env.name: unknown task 'cheeta_run' of kind mjx; did you mean cheetah_run"),
        ("quadruped_walk", {}, "has no MJX version here: set env.backend=mujoco, or choose from cartpole_balance"),
        ("cheetah_run", {"pixels": 1}, "env.pixels must be True or False"),
        ("cheetah_run", {"image_size": 0}, "env.image_size must be positive, got 0"),
        ("cheetah_run", {"action_repeat": 0}, "env.action_repeat must be positive, got 0"),
        ("cheetah_run", {"camera_id": -2}, "env.camera_id must be at least -1, got -2"),
        ("cheetah_run", {"render_quality": "best"}, "env.render_quality must be one of fast, smooth, canonical"),
    ],
)
def test_mistakes_are_named(name, settings, message):
    with pytest.raises(ValueError, match=message):
        make_mjx(name, **settings)


def test_a_camera_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"env.camera_id must be a camera of pendulum_swingup, from -1 to 1, got 7"):
        make_mjx("pendulum_swingup", pixels=False, camera_id=7)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(mjx_env, "_has_mjx", lambda: False)
    with pytest.raises(RuntimeError, match=r"pip install mujoco-mjx"):
        KIND.check("cheetah_run", MjxSettings())


def test_importing_and_checking_load_no_physics():
    code = (
        "import sys; from envs.mjx.env import KIND, MjxSettings; KIND.check('cheetah_run', MjxSettings());"
        "assert not {'mujoco', 'dm_control'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["reacher_easy", "finger_turn_easy"])
def test_a_scene_of_pixels_is_the_picture_and_shows_this_episodes_target(name):
    env = make_mjx(name, pixels=True, image_size=48)
    reset, picture, see = jax.jit(env.reset), jax.jit(env.picture), jax.jit(env.spec.observe)
    state, scene = reset(jax.random.key(0))
    np.testing.assert_array_equal(scene, picture(state))
    frame = np.asarray(see(scene))
    assert (frame.shape, frame.dtype) == ((48, 48, 3), np.uint8)
    np.testing.assert_array_equal(frame, jax.jit(env.draw, static_argnums=1)(scene, 48))
    moved = see(picture(state.replace(target=2 * jnp.asarray(env.spec.action_dim * [0.1]) - state.target)))
    assert (np.abs(frame.astype(int) - np.asarray(moved).astype(int)).max(axis=-1) > 30).sum() > 10
