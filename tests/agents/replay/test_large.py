"""A replay of more elements than 32 bits count: indices go axis by axis, and both ends are written and read."""

import functools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import psutil
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from agents.replay import Entry, make_replay

BEYOND = 2**31
FRAME = jax.ShapeDtypeStruct((84, 84, 3), jnp.uint8)


def replay_of(capacity, num_envs=1, dynamic=False):
    settings: dict[str, Any] = dict(capacity=capacity, stack=3, nstep=3, discount=0.99, num_envs=num_envs)
    return make_replay(FRAME, lambda frame: frame, 2, **settings, dynamic=dynamic)


def entry_of(num_envs, frame, step):
    reward = np.full(num_envs, step, np.float32)
    action = np.broadcast_to(reward[:, None], (num_envs, 2))
    return Entry(frame, action, reward, np.zeros(num_envs, bool), np.full(num_envs, step, np.int32))  # pyright: ignore


def equations(jaxpr):
    """All of a jaxpr and of those inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for each in jax.tree.leaves(list(equation.params.values()), is_leaf=is_jaxpr):
            if is_jaxpr(each):
                yield from equations(each.jaxpr if isinstance(each, ClosedJaxpr) else each)


def is_jaxpr(each):
    return isinstance(each, Jaxpr | ClosedJaxpr)


def is_large(variable):
    return variable.aval.size > BEYOND


def check_axis_by_axis(jaxpr):
    """What takes a large array indexes each axis by itself, and no product of 32 bits makes one index of two."""
    indexed = []
    for equation in equations(jaxpr):
        name, params = equation.primitive.name, equation.params
        if name == "mul" and equation.outvars[0].aval.dtype == jnp.int32:
            assert any(isinstance(each, Literal) and each.val == -1 for each in equation.invars), equation
        large = [variable for variable in equation.invars if is_large(variable)]
        if not large or any(map(is_jaxpr, params.values())):  # what is inside is looked at by itself
            continue
        assert name in ("gather", "scatter"), f"{name} of a large array"
        numbers, (array, *_) = params["dimension_numbers"], large
        axes = numbers.start_index_map if name == "gather" else numbers.scatter_dims_to_operand_dims
        assert len(axes) == equation.invars[1].aval.shape[-1], "an index for each axis"
        assert all(size < BEYOND for size in array.aval.shape)
        indexed.append(name)
    return set(indexed)


@pytest.mark.parametrize(("num_envs", "dynamic"), [(1, False), (2, True)])
def test_no_index_is_made_of_two(num_envs, dynamic):
    """Four seeds of 100,000 frames of 84x84x3: 8.5 thousand million elements."""
    replay = replay_of(100_000, num_envs, dynamic)
    keys = jax.eval_shape(lambda: jax.vmap(jax.random.key)(jnp.arange(4)))
    state = jax.eval_shape(jax.vmap(lambda key: replay.init()), keys)
    assert state.scene.size > 4 * BEYOND - BEYOND // 8
    entry = entry_of(num_envs, np.zeros((num_envs, *FRAME.shape), np.uint8), 1)
    if dynamic:
        entry = entry._replace(mean=entry.action)
    entries = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((4, *leaf.shape), leaf.dtype), entry)
    keep = jax.ShapeDtypeStruct((4, num_envs), bool)
    assert check_axis_by_axis(jax.make_jaxpr(jax.vmap(replay.add))(state, entries, keep).jaxpr) == {"scatter"}
    draw = jax.vmap(lambda state, key: (replay.sample(state, key, 256), replay.stored(state, key, 256)))
    assert check_axis_by_axis(jax.make_jaxpr(draw)(state, keys).jaxpr) == {"gather"}


def test_a_flat_index_would_be_seen():
    array, index = jax.ShapeDtypeStruct((70_000, 70_000), jnp.uint8), jnp.int32(5)
    with pytest.raises(AssertionError, match="mul"):
        check_axis_by_axis(jax.make_jaxpr(lambda a, i: a[i * 7, 0])(array, index).jaxpr)
    with pytest.raises(AssertionError, match="reshape of a large array"):
        check_axis_by_axis(jax.make_jaxpr(lambda a, i: a.reshape(-1)[i])(array, index).jaxpr)


@pytest.mark.slow
@pytest.mark.skipif(psutil.virtual_memory().available < 6 * 2**30, reason="needs 6 GiB of free memory")
def test_both_ends_are_written_and_read():
    """Two seeds with two environments each, whose rings lie behind one another: 2.15 thousand million bytes."""
    seeds, envs, size, written = 2, 2, 25_400, 9
    replay = replay_of(envs * size, envs)
    add = jax.jit(jax.vmap(replay.add), donate_argnums=0)
    begin = functools.partial(jnp.full, (seeds, envs), size - 4)  # so that the ring ends while this is written
    state = jax.jit(lambda: replace(jax.vmap(lambda _: replay.init())(jnp.arange(seeds)), slots=begin()))()
    assert state.scene.size > BEYOND
    lanes = np.arange(1, 1 + seeds * envs, dtype=np.uint8).reshape(seeds, envs)
    for step in range(written):
        frames = np.broadcast_to((10 * lanes + step)[..., None, None, None], (seeds, envs, *FRAME.shape))
        one = entry_of(envs, np.zeros((envs, *FRAME.shape), np.uint8), step)
        entries = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (seeds, *leaf.shape)), one)._replace(scene=frames)
        state = add(state, entries, np.ones((seeds, envs), bool))

    stored, places = np.asarray(state.scene), (size - 4 + np.arange(written)) % size
    for seed, env in np.ndindex(seeds, envs):
        for step, place in enumerate(places):
            assert (stored[seed, env, place] == 10 * lanes[seed, env] + step).all(), (seed, env, step)
    assert sum(np.count_nonzero(ring) for rings in stored for ring in rings) == seeds * envs * written * 84 * 84 * 3

    batch = jax.jit(jax.vmap(lambda state, key: replay.sample(state, key, 64)))(
        state, jax.vmap(jax.random.key)(jnp.arange(seeds))
    )
    seen = set()
    for seed in range(seeds):
        for obs, action, next_obs in zip(batch.obs[seed], batch.action[seed], batch.next_obs[seed]):
            step = int(action[0]) - 1  # whose action led to the scene behind it
            lane, newest = divmod(int(obs[0, 0, -1]), 10)
            assert lane in lanes[seed] and newest == step
            later = min(step + 3, written - 1)
            for picture, last in ((obs, step), (next_obs, later)):
                expected = [10 * lane + max(0, last - back) for back in (2, 1, 0)]
                assert (np.asarray(picture) == np.repeat(expected, 3).astype(np.uint8)).all()
            seen.add((lane, step))
    assert {lane for lane, _ in seen} == set(lanes.flatten().tolist()), "each ring is read"
    assert {0, written - 2} <= {step for _, step in seen}, "before its end and after its beginning"
