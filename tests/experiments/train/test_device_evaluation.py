"""Evaluation as one program, against a plain loop over the environment."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_device
from tiny_device import SIZE, Seen

from agents.replay import side_by_side
from experiments.train.evaluation import device_evaluator
from experiments.train.rollout import stack_frames
from experiments.train.seeds import NEVER, OverSeeds

ENV, AGENT, EPISODES = tiny_device.blob(pixels=True), tiny_device.reader(), 3
STATES = Seen(jnp.asarray(np.random.default_rng(2).normal(size=(3, 4)), jnp.float32))
RESET, STEP = jax.jit(ENV.reset), jax.jit(ENV.step)
DRAW, OBSERVE = jax.jit(ENV.draw, static_argnums=1), jax.jit(ENV.spec.observe)


def keys_of(*seeds):
    return jax.vmap(jax.random.key)(np.asarray(seeds, np.uint32))


@functools.cache
def evaluator(seeds, how: OverSeeds = "vmap"):
    return device_evaluator(ENV, AGENT, keys_of(*seeds), episodes=EPISODES, frame_stack=2, how=how)


@jax.jit
def act(state, obs, key):
    return AGENT.act(state, side_by_side(obs), key, None)


def play(key, policy):
    """Return and pictures of one episode."""
    world, scene = RESET(key)
    obs, total, pictures = stack_frames(2, None, OBSERVE(scene)), 0.0, []
    for each in jax.random.split(jax.random.fold_in(key, NEVER), ENV.spec.episode_steps):
        act_key, step_key = jax.random.split(each)
        pictures.append(ENV.picture(world))
        world, step = STEP(world, policy(obs, act_key), step_key)
        total += float(step.reward)
        if step.terminated or step.truncated:
            break
        obs = stack_frames(2, obs, OBSERVE(step.scene))
    return total, pictures


@pytest.mark.parametrize("how", ["vmap", "map"])
def test_evaluation_is_a_plain_loop(how):
    seeds = (3, 5, 8)
    got = evaluator(seeds, how).greedy(STATES, 2 * SIZE)
    lengths, films = [], []
    for i, key in enumerate(keys_of(*seeds)):
        state = jax.tree.map(lambda leaf, i=i: leaf[i], STATES)
        for episode in range(EPISODES):
            total, pictures = play(jax.random.fold_in(key, episode), functools.partial(act, state))
            np.testing.assert_allclose(got.returns[i, episode], total, rtol=1e-5)
            if episode == 0:
                lengths.append(len(pictures))
                films.append([np.asarray(DRAW(picture, 2 * SIZE)) for picture in pictures])
    assert min(lengths) < max(lengths) <= tiny_device.EPISODE, "no film has to stand still"
    assert got.frames is not None
    assert got.frames.shape == (3, max(lengths), 2 * SIZE, 2 * SIZE, 3) and got.frames.dtype == np.uint8
    for film, frames in zip(films, got.frames, strict=True):
        film += [film[-1]] * (max(lengths) - len(film))
        np.testing.assert_array_equal(frames, np.stack(film))
    assert evaluator(seeds, how).greedy(STATES, 0).frames is None


def test_a_seed_is_evaluated_alike_whatever_its_neighbours_and_every_time():
    together, alone = evaluator((3, 5, 8)), evaluator((5,))
    state = jax.tree.map(lambda leaf: leaf[1:2], STATES)
    returns = together.greedy(STATES, 0).returns
    np.testing.assert_allclose(returns[1:2], alone.greedy(state, 0).returns, rtol=1e-5)
    np.testing.assert_array_equal(returns, together.greedy(STATES, 0).returns)
    np.testing.assert_allclose(together.random().returns[1:2], alone.random().returns, rtol=1e-5)
    assert len(np.unique(returns)) == returns.size


def test_random_actions_are_uniform_and_the_seeds_own():
    got = evaluator((3, 5, 8)).random()
    assert got.frames is None and got.returns.shape == (3, EPISODES)
    for i, key in enumerate(keys_of(3, 5, 8)):
        for episode in range(EPISODES):
            start = jax.random.fold_in(key, episode)
            total, _ = play(start, lambda _, act_key: jax.random.uniform(act_key, (1,), minval=-1.0, maxval=1.0))
            np.testing.assert_allclose(got.returns[i, episode], total, rtol=1e-5)
