"""Physical parameters on a schedule: gymnax with those parameters, one program for all of them, and plain refusals."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kinds import make_gymnax

from envs.physics_schedule import make_physics
from envs.pools.device import auto_reset_step
from envs.types import ArraySpec, DeviceEnv, EnvSpec, TimeStep, observe

G, M, L = (10.0, 4.0, -9.0), (1.0, 0.5, 2.0), (1.0, 1.5, 1.0)


@functools.cache
def pendulum(change):
    return make_gymnax(
        "Pendulum-v1",
        pixels=False,
        physics={"g": G, "m": M, "l": L, "dt": ()},
        physics_every=7,
        physics_change=change,
    )


def value_at(values, frame, every, change):
    """What the definition says, in whole numbers and float64."""
    place, rest = divmod(frame, every)
    here, there = values[place % len(values)], values[(place + 1) % len(values)]
    return here if change == "switch" else here + (there - here) * rest / every


@pytest.mark.parametrize("change", ["switch", "drift"])
def test_the_values_are_those_of_the_schedule(change):
    physics = make_physics({"g": G, "m": M}, 7, change)
    at: Any = jax.jit(physics.at)
    for frame in (*range(50), 10**9 + 3, 2**31 - 2):
        got = at(np.int32(frame))
        for name, values in (("g", G), ("m", M)):
            np.testing.assert_allclose(got[name], value_at(values, frame, 7, change), rtol=1e-6)
            assert got[name].dtype == jnp.float32
    assert at._cache_size() == 1


def reference_step(theta, speed, action, g, m, length):
    """Gymnasium's pendulum in float64: the next angle and speed, and the reward."""
    torque = np.clip(2 * action, -2, 2)
    angle = (theta + np.pi) % (2 * np.pi) - np.pi
    reward = -(angle**2 + 0.1 * speed**2 + 0.001 * torque**2)
    speed = speed + (3 * g / (2 * length) * np.sin(theta) + 3 / (m * length**2) * torque) * 0.05
    speed = np.clip(speed, -8, 8)
    return theta + speed * 0.05, speed, reward


@pytest.mark.parametrize("change", ["switch", "drift"])
def test_a_step_has_the_physics_of_its_frame(change):
    env, rng = pendulum(change), np.random.default_rng(0)
    assert env.at is not None
    step: Any = jax.jit(lambda frame, *each: env.after(frame).step(*each))
    state, key = jax.jit(env.reset)(jax.random.key(1))[0], jax.random.key(2)
    for frame in range(45):
        action = rng.uniform(-1, 1, 1).astype(np.float32)
        now = [value_at(values, frame, 7, change) for values in (G, M, L)]
        theta, speed, reward = reference_step(float(state.theta), float(state.theta_dot), action[0], *now)
        state, result = step(np.int32(frame), state, action, key)
        np.testing.assert_allclose([state.theta, state.theta_dot, result.reward], [theta, speed, reward], rtol=1e-4)
        np.testing.assert_allclose(result.scene, [np.cos(theta), np.sin(theta), speed], rtol=1e-4, atol=1e-5)
    assert step._cache_size() == 1


LEAST, MOST = 0.4, 1.7
FIELDS = [
    ("MountainCarContinuous-v0", "power"),
    ("Pendulum-v1", "max_torque"),
    ("PointRobot-misc", "max_force"),
    ("Reacher-misc", "torque_scale"),
    ("Swimmer-misc", "dt"),
]


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_every_task_at_a_frame_is_gymnax_with_those_parameters(name, field):
    """Actions too: -1 and 1 are the limits that the parameters set."""
    import gymnax

    ref, params = gymnax.make(name)
    values = tuple(share * getattr(params, field) for share in (LEAST, MOST))
    env = make_gymnax(name, pixels=False, action_repeat=2, physics={field: values}, physics_every=10)
    step: Any = jax.jit(lambda frame, *each: env.after(frame).step(*each))
    state, key = jax.jit(env.reset)(jax.random.key(1))[0], jax.random.key(2)
    moved = []
    for frame, value in ((0, values[0]), (10, values[1]), (29, values[0])):
        now = params.replace(**{field: value})
        space = ref.action_space(now)
        high = np.broadcast_to(np.asarray(space.high), space.shape)
        total, expected, obs = 0.0, state, np.zeros(0)
        for each in jax.random.split(key, 2):
            obs, expected, reward, *_ = ref.step_env(each, expected, jnp.asarray(0.9 * high), now)
            total += reward
        after, result = step(np.int32(frame), state, np.full(env.spec.action_dim, 0.9, np.float32), key)
        np.testing.assert_allclose(result.scene, np.ravel(obs), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(result.reward, np.sum(total), rtol=1e-4, atol=1e-6)
        moved.append(np.asarray(result.scene))
        state = after if frame == 29 else state
    assert np.abs(moved[0] - moved[1]).max() > 1e-6
    np.testing.assert_array_equal(moved[0], moved[2])
    assert step._cache_size() == 1


def test_a_single_value_stays_and_no_value_is_the_task_itself():
    heavy = make_gymnax("Pendulum-v1", pixels=False, physics={"m": (2.0,), "g": ()})
    plain = make_gymnax("Pendulum-v1", pixels=False, physics={"g": (), "m": ()})
    assert heavy.at is None and plain.at is None
    state, key = plain.reset(jax.random.key(0))[0], jax.random.key(1)
    action = jnp.array([0.5])
    theta, speed, _ = reference_step(float(state.theta), float(state.theta_dot), 0.5, 10, 2, 1)
    after, _ = heavy.step(state, action, key)
    np.testing.assert_allclose([after.theta, after.theta_dot], [theta, speed], rtol=1e-4)
    own, _ = make_gymnax("Pendulum-v1", pixels=False).step(state, action, key)
    jax.tree.map(np.testing.assert_array_equal, plain.step(state, action, key)[0], own)


def test_a_single_value_stays_beside_those_that_change():
    physics = make_physics({"m": (1.0, 2.0, 0.5), "l": (1.5,)}, 10, "switch")
    assert physics.values == {"m": (1.0, 2.0, 0.5), "l": (1.5, 1.5, 1.5)} and physics.label(1) == "m=2.0"


def changing() -> DeviceEnv:
    """Episodes of three steps; the scene is (steps, the frame that `reset` was told, the one that `step` was told)."""

    def made(frame) -> DeviceEnv:
        told = jnp.asarray(frame, jnp.float32)

        def reset(key):
            state = jnp.stack([jnp.float32(0), told, jnp.float32(-1)])
            return state, state

        def step(state, action, key):
            state = jnp.stack([state[0] + 1, state[1], told])
            return state, TimeStep(state, told, jnp.array(False), state[0] == 3)

        spec = EnvSpec("changing", ArraySpec((3,), np.dtype(np.float32)), observe, 1, 1, 3, False)
        return DeviceEnv(spec, reset, step, lambda state: state, lambda picture, size: jnp.zeros(()))

    return made(0)._replace(at=made)


def test_episodes_step_and_start_at_the_frame_and_starting_stays_a_branch():
    env = changing()

    def step(frame, state, keys):
        actions = jnp.zeros((2, 1))
        return jax.vmap(lambda *each: auto_reset_step(env, *each, frame=frame))(state, actions, keys)

    keys, state = jax.random.split(jax.random.key(0)), jnp.array([[0.0, 0, -1], [1, 0, -1]])
    assert "cond" in str(jax.make_jaxpr(step)(np.int32(0), state, keys))
    jitted: Any = jax.jit(step)
    for frame in range(5, 12):
        before = np.asarray(state)
        state, outcome = jitted(np.int32(frame), state, keys)
        assert (np.asarray(outcome.step.reward) == frame).all()
        over = before[:, 0] == 2
        np.testing.assert_array_equal(state[over], np.tile([0, frame, -1], (over.sum(), 1)))
        np.testing.assert_array_equal(state[~over, 2], np.full((~over).sum(), frame))
    assert jitted._cache_size() == 1


@pytest.mark.parametrize(
    ("physics", "every", "change", "sentence"),
    [
        ({"mass": (1.0, 2.0)}, 10, "switch", r"env\.physics\.mass is no parameter of Pendulum-v1; .* m"),
        ({"max_steps_in_episode": (1.0, 2.0)}, 10, "switch", r"env\.physics\.max_steps_in_episode is no parameter"),
        (
            {"m": (1.0, 2.0), "l": (1.0, 2.0, 3.0)},
            10,
            "switch",
            r"as many values .* that changes, and m has 2, l has 3",
        ),
        ({"m": (1.0, -1.0)}, 10, "drift", r"env\.physics\.m=0\.0 makes Pendulum-v1 come to values that are not finite"),
        ({"m": (1.0, 0.0)}, 10, "switch", r"env\.physics\.m=0\.0 makes Pendulum-v1 come to values that are not finite"),
        ({"m": (1.0, 1e40)}, 10, "switch", r"env\.physics\.m must be a tuple of finite numbers"),
        ({"m": (1.0, 2.0)}, 0, "switch", r"env\.physics_every must be the frames .* got 0"),
        ({"m": (1.0, 2.0)}, 1.5, "drift", r"env\.physics_every must be a whole number, got 1\.5"),
        ({"m": (1.0, 2.0)}, 10, "jump", r"env\.physics_change must be one of switch, drift, got 'jump'"),
        ({"m": (1.0, "2")}, 10, "switch", r"env\.physics\.m must be a tuple of finite numbers"),
        ({"m": (1.0, float("nan"))}, 10, "switch", r"env\.physics\.m must be a tuple of finite numbers"),
        ({"m": 2.0}, 10, "switch", r"env\.physics\.m must be a tuple of finite numbers"),
        ({"m": (1.0, 2.0, 1)}, 10, "switch", r"env\.physics has m=1\.0 twice in a row"),
    ],
)
def test_a_schedule_that_cannot_be_is_one_sentence(physics, every, change, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        make_gymnax("Pendulum-v1", pixels=False, physics=physics, physics_every=every, physics_change=change)
    assert "\n" not in str(error.value)
