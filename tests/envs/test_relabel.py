"""Relabelled tasks are the bare one: un-labelled, trajectories are the bare environment's, and labels are as said."""

import functools
import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kinds import make_gymnax

from envs.pools.device import auto_reset_step
from envs.registry import device_env
from envs.relabel import VIEWS, RelabelSettings, draw_labels, relabel, turn

EVERY = 10
SETTINGS = RelabelSettings(every=EVERY, offset=2.0, seed=3)
SEEDS = [jax.random.key(100), jax.random.key(101)]
TASKS = ["Pendulum-v1", "Reacher-misc", "Swimmer-misc"]


@functools.cache
def bare(name, pixels=False):
    return make_gymnax(name, pixels=pixels, **({"image_size": 16} if pixels else {}))


def rollout(env, labels, steps=25, frame=0, seed=None):
    """States, scenes, rewards and ends of an episode whose unlabelled actions are the same for all labels."""
    own = env.after(frame, seed)
    rng, step = np.random.default_rng(0), jax.jit(own.step)
    state, scene = own.reset(jax.random.key(5))
    found = [(state, scene, 0.0, False, False)]
    for i in range(steps):
        action = rng.uniform(-1, 1, env.spec.action_dim).astype(np.float32)
        state, result = step(state, action * np.asarray(labels.action), jax.random.key(i))
        found.append((state, *result))
    return found


@pytest.mark.parametrize("name", TASKS)
def test_unlabelled_states_are_the_bare_environments(name):
    env = relabel(bare(name), SETTINGS)
    none = draw_labels(SETTINGS, env.spec, SEEDS[0], 0)._replace(action=jnp.ones(env.spec.action_dim))
    expected = rollout(bare(name), none)
    for seed, task in ((SEEDS[0], 0), (SEEDS[0], 2), (SEEDS[1], 2)):
        labels = draw_labels(SETTINGS, bare(name).spec, seed, task)
        assert sorted(labels.order.tolist()) == list(range(env.spec.scene.shape[0]))
        for mine, its in zip(rollout(env, labels, frame=task * EVERY, seed=seed), expected, strict=True):
            jax.tree.map(np.testing.assert_array_equal, mine[0], its[0])  # the world, bit for bit
            unlabelled = np.zeros_like(its[1])
            unlabelled[labels.order] = (mine[1] - labels.offset) * labels.sign
            np.testing.assert_allclose(unlabelled, its[1], atol=1e-6)
            np.testing.assert_allclose(mine[2], its[2], rtol=1e-6)  # the program's rounding
            assert [bool(each) for each in mine[3:]] == [bool(each) for each in its[3:]]


@pytest.mark.parametrize("name", ["Pendulum-v1", "Reacher-misc"])
def test_pixels_are_views_of_the_bare_environments_pictures(name):
    env, its = relabel(bare(name, True), SETTINGS), bare(name, True)
    seen, view = set(), -1
    for task in range(3):
        labels = draw_labels(SETTINGS, its.spec, SEEDS[0], task)
        none = labels._replace(action=jnp.ones(env.spec.action_dim))
        ours = rollout(env, labels, 5, task * EVERY, SEEDS[0])
        for mine, other in zip(ours, rollout(its, none, 5), strict=True):
            jax.tree.map(np.testing.assert_array_equal, mine[0], other[0])
            image, view = np.asarray(its.spec.observe(other[1])), int(labels.view)
            np.testing.assert_array_equal(env.spec.observe(mine[1]), reference_view(image, view))
            np.testing.assert_array_equal(env.picture(mine[0]), its.picture(other[0]))  # videos show the world
            assert int(mine[1][1]) == view
        seen.add(view)
    assert len(seen) == 3


def reference_view(image, view):
    """The view by NumPy's own words for it."""
    symmetry, channels, inverted = view % 8, list(itertools.permutations(range(3)))[view // 8 % 6], view // 48
    image = np.swapaxes(image, 0, 1) if symmetry & 4 else image
    image = np.flipud(image) if symmetry & 2 else image
    image = np.fliplr(image) if symmetry & 1 else image
    image = image[..., list(channels)]
    return np.where([bool(inverted & bit) for bit in (1, 2, 4)], 255 - image, image)


def test_views_are_all_the_symmetries_of_a_square_orders_of_channels_and_their_negatives():
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    seen = {np.asarray(turn(jnp.asarray(image), jnp.asarray(view))).tobytes() for view in range(VIEWS)}
    turned = {
        np.where(negative, 255 - side, side)[..., list(order)].tobytes()
        for flipped in (image, np.fliplr(image))
        for side in map(partial(np.rot90, flipped), range(4))
        for order in itertools.permutations(range(3))
        for negative in itertools.product((False, True), repeat=3)
    }
    assert seen == turned and len(seen) == VIEWS


def test_labels_are_another_seeds_and_another_tasks():
    spec = bare("Reacher-misc").spec

    def labels(seed, task, settings=SETTINGS):
        return np.concatenate([np.ravel(each) for each in draw_labels(settings, spec, seed, task)]).tolist()

    drawn = [labels(seed, task) for seed in SEEDS for task in range(20)]
    drawn.append(labels(SEEDS[0], 0, RelabelSettings(every=EVERY, offset=2.0, seed=4)))
    assert len({tuple(each) for each in drawn}) == len(drawn)
    again: Any = jax.jit(lambda seed, task: draw_labels(SETTINGS, spec, seed, task))
    for task in (0, 7):
        got = again(SEEDS[1], np.int32(task))
        np.testing.assert_allclose(np.concatenate([np.ravel(each) for each in got]), labels(SEEDS[1], task), rtol=1e-6)


def test_offsets_signs_orders_and_views_are_as_often_as_they_should_be():
    spec, tasks = bare("Pendulum-v1").spec, jnp.arange(6_000)
    drawn = jax.vmap(lambda task: draw_labels(SETTINGS, spec, SEEDS[0], task))(tasks)
    np.testing.assert_allclose(drawn.offset.mean(), 0, atol=0.06)
    np.testing.assert_allclose(drawn.offset.std(), 2, rtol=0.03)
    orders = np.unique(drawn.order, axis=0, return_counts=True)[1]
    assert len(orders) == 6 and (abs(orders - 1_000) < 150).all()
    for signs in (drawn.sign, drawn.action):
        assert set(np.unique(signs)) == {-1, 1}
        np.testing.assert_allclose(np.mean(signs), 0, atol=0.06)
    views = jax.vmap(lambda task: draw_labels(SETTINGS, bare("Pendulum-v1", True).spec, SEEDS[0], task))(tasks).view
    assert sorted(views[:VIEWS].tolist()) == list(range(VIEWS))


def test_one_program_steps_all_tasks_of_all_seeds_and_resets_behind_the_same_labels():
    env = relabel(bare("Pendulum-v1"), RelabelSettings(every=300))
    seeds, keys = jnp.stack(SEEDS), jax.random.split(jax.random.key(0), 2)
    state, _ = jax.vmap(lambda seed, key: env.after(0, seed).reset(key))(seeds, keys)
    step: Any = jax.jit(
        lambda frame, state, keys: jax.vmap(partial(auto_reset_step, env, frame=frame))(
            state, jnp.zeros((2, 1)), keys, seed=seeds
        )
    )
    its = bare("Pendulum-v1").spec
    drawn = [[draw_labels(RelabelSettings(every=300), its, seed, task) for seed in SEEDS] for task in range(2)]
    for frame in range(401):
        state, result = step(np.int32(frame), state, keys)
        over = frame in (199, 399)
        assert np.asarray(result.step.truncated).tolist() == [over, over]
        if frame not in (0, 198, 199, 299, 300, 399, 400):
            continue
        for lane, labels in enumerate(jax.device_get(drawn[frame // 300])):
            scene = (result.reset if over else result.step.scene)[lane]
            world = np.zeros(3)
            world[labels.order] = (scene - labels.offset) * labels.sign
            theta, speed = state.theta[lane], state.theta_dot[lane]
            np.testing.assert_allclose(world, [np.cos(theta), np.sin(theta), speed], atol=1e-5)
    assert step._cache_size() == 1


def test_what_changes_already_and_what_has_no_row_of_features_is_refused():
    changing = make_gymnax("Pendulum-v1", pixels=False, physics={"m": (1.0, 2.0)}, physics_every=7)
    with pytest.raises(ValueError, match=r"env\.relabel\.every and env\.physics"):
        relabel(changing, SETTINGS)


@pytest.mark.slow
def test_mjx_is_relabelled_too():
    """Scenes of pixels are poses there, which a view is added to."""
    its = device_env("mjx", "cartpole_balance", pixels=False)
    labels = draw_labels(SETTINGS, its.spec, SEEDS[0], 1)
    env = relabel(its, SETTINGS)
    none = labels._replace(action=jnp.ones(env.spec.action_dim))
    for mine, other in zip(rollout(env, labels, 3, EVERY, SEEDS[0]), rollout(its, none, 3), strict=True):
        unlabelled = np.zeros_like(other[1])
        unlabelled[labels.order] = (mine[1] - labels.offset) * labels.sign
        np.testing.assert_allclose(unlabelled, other[1], atol=1e-6)
        np.testing.assert_array_equal(mine[2], other[2])
    pixels = device_env("mjx", "cartpole_balance", pixels=True, image_size=16)
    state, scene = relabel(pixels, SETTINGS).after(EVERY, SEEDS[0]).reset(jax.random.key(0))
    view = int(draw_labels(SETTINGS, pixels.spec, SEEDS[0], 1).view)
    image = np.asarray(pixels.spec.observe(pixels.picture(state)))
    np.testing.assert_array_equal(relabel(pixels, SETTINGS).spec.observe(scene), reference_view(image, view))
