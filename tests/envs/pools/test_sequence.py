"""Tasks of different shapes behind one contract: padding, cutting, frames, turns and their snapshots."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from turns import TASKS, HostTask, device_task, draw, spec_of

from envs.pools.device import DevicePool
from envs.pools.host import HostPool
from envs.pools.sequence import DeviceTurns, FittedPool, HostTurns, alike, fit_device
from envs.types import ArraySpec, observe

STREAMS = [(0, 0), (0, 1)]


def host_turns(pixels=False):
    pools = [HostPool(partial(HostTask, name, pixels), STREAMS, "serial") for name in TASKS]
    fitted = map(FittedPool, pools, alike([pool.spec for pool in pools]))
    return HostTurns([*fitted], (0, 1, 2))


def device_turns(pixels=False):
    envs = [device_task(name, pixels) for name in TASKS]
    specs = alike([env.spec for env in envs])
    keys = jax.random.split(jax.random.key(4))
    return DeviceTurns([DevicePool(fit_device(*each), keys) for each in zip(envs, specs, strict=True)], (0, 1, 2))


def test_all_tasks_have_the_shapes_of_the_widest():
    for spec, name in zip(alike([spec_of(name) for name in TASKS]), TASKS, strict=True):
        assert spec.scene == ArraySpec((6,), np.dtype(np.float32)) and spec.action_dim == 3
        assert (spec.name, spec.episode_steps, spec.action_repeat) == (name, TASKS[name][2], 2)
    for spec in alike([spec_of(name, pixels=True) for name in TASKS]):
        assert spec.scene == ArraySpec((4, 4, 3), np.dtype(np.uint8)) and spec.observe is observe


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"env\.sequence needs tasks whose observations are alike"):
        alike([spec_of("one", pixels=True), spec_of("two", pixels=True)._replace(observe=lambda s: draw(s, 5))])


@pytest.mark.parametrize("name", TASKS)
def test_device_states_are_padded_and_actions_cut(name):
    env = device_task(name)
    fitted = fit_device(env, alike([spec_of(each) for each in TASKS])[list(TASKS).index(name)])
    key, width = jax.random.key(2), TASKS[name][0]
    state, scene = fitted.reset(key)
    expected, first = env.reset(key)
    np.testing.assert_array_equal(scene, [*first, *[0] * (6 - width)])
    action = jnp.array([0.5, -0.25, 0.125])
    state, step = fitted.step(state, action, key)
    expected, inner = env.step(expected, action[: TASKS[name][1]], key)
    np.testing.assert_array_equal(step.scene, [*inner.scene, *[0] * (6 - width)])
    assert step.reward == inner.reward
    np.testing.assert_array_equal(fitted.picture(state), env.picture(expected))


@pytest.mark.parametrize("pixels", [False, True])
def test_host_tasks_are_stepped_in_turn(pixels):
    """Against each task alone, with its own actions and the episode numbers that the pool should have reached."""
    turns, rng = host_turns(pixels), np.random.default_rng(0)
    scene, numbers = np.asarray(turns.reset()), np.zeros(2, int)
    for phase, name in enumerate((*TASKS, *TASKS)):
        if phase:
            numbers = numbers + 1
            scene = np.asarray(turns.enter(phase))
        alone = HostPool(partial(HostTask, name, pixels), STREAMS, "serial")
        np.testing.assert_array_equal(scene, fitted(alone.reset(numbers), pixels))
        for _ in range(8):
            actions = rng.uniform(-1, 1, (2, 3)).astype(np.float32)
            got, expected = turns.step(actions), alone.step(actions[:, : TASKS[name][1]])
            np.testing.assert_array_equal(got.step.scene, fitted(expected.step.scene, pixels))
            np.testing.assert_array_equal(got.reset, fitted(expected.reset, pixels))
            np.testing.assert_array_equal(got.step.reward, expected.step.reward)
        numbers = alone.snapshot()["episode"]
        assert (numbers > 0).all()


def fitted(scenes, pixels):
    if pixels:
        return np.stack([np.asarray(draw(jnp.asarray(scene), 4)) for scene in scenes])
    return np.concatenate([scenes, np.zeros((len(scenes), 6 - scenes.shape[1]), np.float32)], axis=1)


def test_every_visit_of_a_device_task_starts_other_episodes():
    turns = device_turns()
    marks = {tuple(np.asarray(turns.reset())[:, 1])}
    for phase in range(1, 7):
        scene = np.asarray(turns.enter(phase))
        assert (scene[:, 0] == phase % 3 + 1).all() and (scene[:, 2] == 0).all()
        assert jax.tree.leaves(turns.state)[0].shape == (2,)
        marks.add(tuple(scene[:, 1]))
    assert len(marks) == 7


@pytest.mark.parametrize("make", [host_turns, pytest.param(device_turns, marks=pytest.mark.slow)])
def test_snapshots_are_alike_in_every_phase_and_restore(make):
    turns, rng = make(), np.random.default_rng(1)
    turns.reset()
    shapes = jax.tree.map(np.shape, turns.snapshot())
    for phase in range(5):
        if phase:
            turns.enter(phase)
        play(turns, rng.uniform(-1, 1, (4, 2, 3)))
        snapshot = jax.tree.map(np.asarray, turns.snapshot())
        assert jax.tree.map(np.shape, snapshot) == shapes
        other = make()
        other.reset()
        other.restore(snapshot)
        assert (other.phase, other.task) == (phase, phase % 3)
        jax.tree.map(np.testing.assert_array_equal, other.snapshot(), snapshot)
        actions = rng.uniform(-1, 1, (9, 2, 3))
        np.testing.assert_array_equal(play(other, actions), play(turns, actions))
        np.testing.assert_array_equal(other.enter(phase + 1), turns.enter(phase + 1))
        turns.restore(snapshot)


def play(turns, actions):
    """Everything that a row of actions [steps, lanes, actions] leads to."""
    if isinstance(turns, HostTurns):
        return np.stack([turns.step(each.astype(np.float32)).step.scene for each in actions])
    env = turns._pool.env

    @jax.jit
    def go(state, actions):
        def one(state, each):
            state, step = jax.vmap(env.step, (0, 0, None))(state, each, jax.random.key(0))
            return state, step.scene

        return jax.lax.scan(one, state, actions)

    turns.state, scenes = go(turns.state, jnp.asarray(actions, jnp.float32))
    return np.asarray(scenes)
