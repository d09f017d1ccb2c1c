"""gymnax's tasks behind the device contract: dynamics untouched, time, actions, pictures."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kinds import make_gymnax

from envs.gymnax.env import GymnaxSettings, check, task_names
from envs.gymnax.pictures import PICTURES
from envs.registry import device_env

TASKS = task_names()
LIMITS = {"Pendulum-v1": 2.0, "PointRobot-misc": 0.1}  # greatest actions; 1 for the others


@functools.cache
def made(name, pixels=False, action_repeat=1):
    return make_gymnax(name, pixels=pixels, action_repeat=action_repeat)


def gymnax_of(name):
    import gymnax

    return gymnax.make(name)


def rollout(step, state, actions, key):
    """The states after each of the actions [steps, actions], and where they led, by one scan with one key per step."""

    def go(state, x):
        state, after = step(state, *x)
        return state, (state, after)

    inputs = jnp.asarray(actions, jnp.float32), jax.random.split(key, len(actions))
    return jax.tree.map(np.asarray, jax.jit(lambda state: jax.lax.scan(go, state, inputs)[1])(state))


def started(env, key):
    """The state of a reset, with fields of one's own."""
    return lambda **fields: jax.jit(env.reset)(key)[0].replace(**fields)


def random_actions(env, steps, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (steps, env.spec.action_dim)).astype(np.float32)


@pytest.mark.parametrize("name", TASKS)
def test_dynamics_are_gymnaxs_own(name):
    """States, observations and rewards are bit for bit those of `step_env`; the last ten steps cross the time limit."""
    env, (ref, params) = made(name), gymnax_of(name)
    actions, key = random_actions(env, 60), jax.random.key(3)
    expected, reset_state = jax.jit(lambda key: ref.reset_env(key, params))(key)
    state, scene = jax.jit(env.reset)(key)
    np.testing.assert_array_equal(scene, np.ravel(expected))
    jax.tree.map(np.testing.assert_array_equal, state, reset_state)

    def ref_step(state, action, key):
        obs, state, reward, terminated, _ = ref.step_env(key, state, action, params)
        return state, (jnp.ravel(obs), reward, terminated)

    state = state.replace(time=jnp.asarray(env.spec.episode_steps - 50, state.time.dtype))
    states, steps = rollout(env.step, state, actions, key)
    ref_states, ref_steps = rollout(ref_step, state, np.float32(LIMITS.get(name, 1)) * actions, key)
    jax.tree.map(np.testing.assert_array_equal, states, ref_states)
    jax.tree.map(np.testing.assert_array_equal, tuple(steps[:3]), ref_steps)
    np.testing.assert_array_equal(steps.truncated, np.arange(1, 61) >= 50)
    assert not steps.terminated.any()


@pytest.mark.parametrize("pixels", [False, True])
@pytest.mark.parametrize("name", TASKS)
def test_contract(name, pixels):
    env = made(name, pixels)
    state, scene = jax.eval_shape(env.reset, jax.random.key(0))
    after, step = jax.eval_shape(env.step, state, jnp.zeros(env.spec.action_dim), jax.random.key(1))
    for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert (old.shape, old.dtype) == (new.shape, new.dtype) and not (old.weak_type or new.weak_type)
    for one in (scene, step.scene):
        assert (one.shape, one.dtype) == (env.spec.scene.shape, env.spec.scene.dtype)
    assert [(x.shape, x.dtype) for x in step[1:]] == [((), np.float32), ((), np.bool_), ((), np.bool_)]
    seen = jax.eval_shape(env.spec.observe, scene)
    assert (seen.shape, seen.dtype) == (((84, 84, 3), np.uint8) if pixels else (scene.shape, np.float32))
    assert (env.spec.name, env.spec.pixels, env.spec.action_repeat) == (name, pixels, 1)


@pytest.mark.parametrize("name", TASKS)
def test_a_scene_of_pixels_is_the_picture(name):
    env = made(name, pixels=True)
    state, scene = env.reset(jax.random.key(5))
    assert scene.nbytes <= 64
    np.testing.assert_array_equal(scene, env.picture(state))
    np.testing.assert_array_equal(jax.jit(env.spec.observe)(scene), jax.jit(env.draw, static_argnums=1)(scene, 84))


def test_pendulum_is_truncated_after_200_steps_and_never_terminated():
    env = made("Pendulum-v1")
    _, steps = rollout(env.step, started(env, jax.random.key(0))(), random_actions(env, 200), jax.random.key(1))
    assert env.spec.episode_steps == 200
    assert np.flatnonzero(steps.truncated).tolist() == [199]
    assert not steps.terminated.any()


@pytest.mark.parametrize("time", [0, 998])
def test_the_mountain_car_terminates_at_its_goal(time):
    """A terminal step is no truncation, not even on the last step of the clock."""
    env = made("MountainCarContinuous-v0")
    state, _ = env.reset(jax.random.key(0))
    state = state.replace(position=jnp.float32(0.44), velocity=jnp.float32(0.05), time=jnp.int32(time))
    _, step = env.step(state, jnp.ones(1), jax.random.key(1))
    assert step.terminated and not step.truncated
    assert float(step.reward) == pytest.approx(100 - 0.1)


@pytest.mark.parametrize("name", TASKS)
def test_actions_are_clipped_to_one(name):
    env = made(name)
    state, key, step = started(env, jax.random.key(0))(), jax.random.key(1), jax.jit(env.step)
    edge = np.sign(random_actions(env, 1)[0])
    jax.tree.map(np.testing.assert_array_equal, step(state, 3 * edge, key), step(state, edge, key))


@pytest.mark.parametrize("name", ["Pendulum-v1", "PointRobot-misc"])
def test_action_repeat_sums_rewards_and_gives_every_control_step_its_key(name):
    once, thrice = made(name), made(name, action_repeat=3)
    state, key = once.reset(jax.random.key(0))[0], jax.random.key(1)
    if name == "PointRobot-misc":  # at its goal it jumps to a random place: the first key says where
        state = state.replace(pos=state.goal)
    action = jnp.full(once.spec.action_dim, 0.7)
    after, step = jax.jit(thrice.step)(state, action, key)
    total, one = 0.0, None
    for inner in jax.random.split(key, 3):
        state, one = jax.jit(once.step)(state, action, inner)
        total += one.reward
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-6), after, state)
    np.testing.assert_allclose(step.reward, total, rtol=1e-6)
    assert one is not None
    np.testing.assert_allclose(step.scene, one.scene, rtol=1e-6)


def test_action_repeat_stops_where_the_episode_ends():
    once, often = made("MountainCarContinuous-v0"), made("MountainCarContinuous-v0", action_repeat=4)
    assert often.spec.episode_steps == 250
    start = started(once, jax.random.key(0))(position=jnp.float32(0.4), velocity=jnp.float32(0.03))
    states, steps = rollout(once.step, start, np.ones((4, 1)), jax.random.key(1))
    assert steps.terminated.tolist() == [False, True, True, True]
    hold = jax.jit(often.step)
    after, step = hold(start, jnp.ones(1), jax.random.key(1))
    np.testing.assert_allclose(after.position, states.position[1])
    np.testing.assert_allclose(step.reward, steps.reward[:2].sum())
    assert step.terminated and not step.truncated

    late = start.replace(position=jnp.float32(-0.5), time=jnp.int32(997))
    after, step = hold(late, jnp.ones(1), jax.random.key(1))
    assert after.time == 999 and step.truncated and not step.terminated
    np.testing.assert_allclose(step.reward, -0.2, rtol=1e-6)


def test_many_in_a_scan_are_what_each_is_alone():
    env = made("Reacher-misc", pixels=True)
    actions = random_actions(env, 15).reshape(5, 3, -1)
    states = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), 3))[0]

    def step(states, actions, key):
        states, after = jax.vmap(env.step)(states, actions, jax.random.split(key, 3))
        return states, (after, jax.vmap(env.spec.observe)(after.scene))

    _, (together, frames) = rollout(step, states, actions, jax.random.key(1))
    assert frames.shape == (5, 3, 84, 84, 3)
    for lane in range(3):
        state = jax.tree.map(lambda leaf, lane=lane: leaf[lane], states)
        _, alone = rollout(env.step, state, actions[:, lane], jax.random.key(1))  # Reacher needs no keys
        np.testing.assert_allclose(together.scene[:, lane], alone.scene, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(together.reward[:, lane], alone.reward, rtol=1e-5)


@pytest.mark.parametrize("size", [84, 32])
@pytest.mark.parametrize("name", TASKS)
def test_every_float_of_a_picture_shows(name, size):
    """A change of a tenth of its range moves some byte by a lot."""
    env = made(name, pixels=True)
    draw = jax.jit(jax.vmap(lambda picture: env.draw(picture, size)))
    scene = jax.vmap(env.reset)(jax.random.split(jax.random.key(8), 4))[1]
    scene = scene.at[:, 1].add(0.5) if name == "Pendulum-v1" else scene  # at rest there is no torque
    before = np.asarray(draw(scene)).astype(int)
    for entry in range(scene.shape[1]):
        changed = np.abs(np.asarray(draw(scene.at[:, entry].add(0.15))) - before).max(axis=(1, 2, 3))
        assert (changed > 30).all(), (entry, changed)


@pytest.mark.parametrize("name", TASKS)
def test_the_picture_holds_what_gymnax_observes_or_pays_for(name):
    """Two states with one picture have one reward and one observation, but for velocities, time and the last step's."""
    env, moving = made(name), {"theta_dot", "velocity", "angle_vels", "xy_vel", "time"}
    moving |= {"last_action", "last_reward", "goals_reached"}
    state, _ = env.reset(jax.random.key(0))
    for field in state.__dataclass_fields__:
        entry = np.asarray(getattr(state, field))
        same = True
        for spot in range(entry.size):
            other = entry.copy()
            other.flat[spot] += 1
            same &= bool((env.picture(state.replace(**{field: other})) == env.picture(state)).all())
        assert same == (field in moving), field


@pytest.mark.parametrize(("name", "far"), [("Swimmer-misc", "xy"), ("PointRobot-misc", "pos")])
def test_a_wanderer_stays_in_sight(name, far):
    env = made(name, pixels=True)
    state, _ = env.reset(jax.random.key(0))
    draw = jax.jit(env.draw, static_argnums=1)
    away = [env.picture(state.replace(**{far: jnp.asarray(xy)})) for xy in ([50.0, -50.0], [-50.0, -50.0])]
    right, left = (np.asarray(draw(picture, 32)).astype(int) for picture in away)
    changed = np.abs(right - left).max(axis=-1) > 100
    assert changed[-4:, :4].any() and changed[-4:, -4:].any()


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("Pendulm-v1", {}, "env.name: unknown task 'Pendulm-v1' of kind gymnax; did you mean Pendulum-v1"),
        ("CartPole-v1", {}, "discrete actions, .* Pendulum-v1, .*, PointRobot-misc"),
        ("Pendulum-v1", {"image_size": 0}, "env.image_size must be positive, got 0"),
        ("Pendulum-v1", {"image_size": 84.0}, "env.image_size must be a whole number, got 84.0"),
        ("Pendulum-v1", {"action_repeat": True}, "env.action_repeat must be a whole number, got True"),
        ("Pendulum-v1", {"pixels": "yes"}, "env.pixels must be True or False"),
        ("Pendulum-v1", {"action_repeats": 2}, "env.action_repeats is no setting .* did you mean action_repeat"),
    ],
)
def test_mistakes_are_named(name, settings, message):
    with pytest.raises(ValueError, match=message):
        device_env("gymnax", name, **{"pixels": True, **settings})


def test_unknown_kind_is_named():
    with pytest.raises(ValueError, match=r"env.kind must be one of .*, gymnax, .* got 'gymnaks'"):
        device_env("gymnaks", "Pendulum-v1", pixels=True)


def test_a_registered_task_without_a_picture_is_refused(monkeypatch):
    import gymnax

    pendulum = gymnax.make("Pendulum-v1")
    monkeypatch.setattr(gymnax, "registered_envs", [*gymnax.registered_envs, "Custom-v0"])
    monkeypatch.setattr(gymnax, "make", lambda name: pendulum)
    with pytest.raises(ValueError, match=r"'Custom-v0' has no picture .*; choose from Pendulum-v1"):
        check("Custom-v0", GymnaxSettings())


def test_pictures_say_their_length():
    for name, scene in PICTURES.items():
        assert made(name, pixels=True).spec.scene.shape == (scene.floats,)
