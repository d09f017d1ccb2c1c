"""DrQ-v2's update against one written from the paper, its actions, and the errors of its settings."""

import functools
import re
from dataclasses import replace
from typing import Any, cast

import drq_reference
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_agents import (
    ACTIONS,
    BATCH,
    CONFIG,
    QUICK,
    RATE,
    UPDATES,
    VISION,
    batches,
    drq,
    now,
    pick,
    settings,
    start,
    updater,
)

from agents.drq import make_drq
from experiments.build.optimisers import make_optimisers

# Noise is clipped to nothing and pictures stay where they are: what remains is the same for every key.
SILENT, STILL = replace(CONFIG, std_clip=0.0, tau=0.1), replace(VISION, shift_pad=0)
tree_equal = functools.partial(jax.tree.map, np.testing.assert_array_equal)


def by_name(state):
    nets = {name: getattr(state, name).params for name in ("encoder", "critic", "actor")}
    return {**nets, "target": state.target_critic}


@pytest.mark.parametrize("penalty", [0.0, 0.5])
def test_update_equals_the_paper(penalty):
    update, state = updater(replace(SILENT, preactivation_penalty=penalty), STILL), start()
    with jax.enable_x64(True):
        nets = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), by_name(state))
        moments = {name: (jax.tree.map(jnp.zeros_like, net),) * 2 for name, net in nets.items() if name != "target"}
        own = QUICK(functools.partial(drq_reference.update, rate=RATE, tau=SILENT.tau, penalty=penalty))
    for i in range(4):
        batch = pick(batches(4), i)
        state, metrics = update(state, batch, jax.random.key(i), now(i))
        with jax.enable_x64(True):
            nets, moments, losses = own(nets, moments, batch, i + 1)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0, atol=0.01 * RATE), by_name(state), nets)
        found = {name: (getattr(state, name).opt_state[0].mu, getattr(state, name).opt_state[0].nu) for name in moments}
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=2e-6), found, moments)
        for name, loss in losses.items():
            np.testing.assert_allclose(metrics[name], loss, rtol=1e-3, atol=1e-6)


def test_actor_never_moves_encoder_or_critic():
    update, state = updater(SILENT, STILL), start()
    batch = pick(batches(1), 0)._replace(discount=np.zeros(BATCH, np.float32))  # no bootstrap through the actor
    turned = state.actor.replace(params=jax.tree.map(lambda p: -2 * p, state.actor.params))
    one, metrics = update(state, batch, jax.random.key(0), now(0))
    other, other_metrics = update(state.replace(actor=turned), batch, jax.random.key(0), now(0))
    tree_equal((one.encoder, one.critic, one.target_critic), (other.encoder, other.critic, other.target_critic))
    assert metrics["actor_loss"] != other_metrics["actor_loss"]
    assert metrics["critic_loss"] == other_metrics["critic_loss"]


def spread(update, name):
    """How far a metric of the first update varies with the key."""
    keys, batch = jax.random.split(jax.random.key(0), 20), pick(batches(1), 0)
    return np.ptp([update(start(), batch, key, now(0))[1][name] for key in keys])


@pytest.mark.parametrize(
    ("std_clip", "shift_pad", "moving"),
    [
        (0.0, 0, set()),
        (0.3, 0, {"q_target", "actor_loss"}),  # both losses see noise, within its clip
        (0.0, 2, {"q", "q_target", "actor_loss"}),  # obs and next_obs are shifted
    ],
)
def test_losses_vary_with_noise_and_shift(std_clip, shift_pad, moving):
    update = updater(replace(SILENT, std_clip=std_clip), replace(STILL, shift_pad=shift_pad))
    for name in ("q", "q_target", "actor_loss"):
        assert (spread(update, name) > 1e-4) == (name in moving), name


def test_noise_in_the_losses_falls_with_time():
    for step, std in ((0, 1.0), (250_000, 0.55), (500_000, 0.1), (900_000, 0.1)):
        _, metrics = updater(SILENT, STILL)(start(), pick(batches(1), 0), jax.random.key(0), now(step))
        assert metrics["noise"] == pytest.approx(std, rel=1e-5)


def test_greedy_action_ignores_the_key():
    agent, obs, state = drq(), batches(1).obs[0], start()
    act = QUICK(lambda o, key: agent.act(state, o, key, None))
    actions = np.array([[act(o, jax.random.key(seed)) for seed in range(3)] for o in obs])
    assert np.ptp(actions, axis=1).max() == 0 < np.ptp(actions, axis=0).min()
    assert np.abs(actions).max() < 1


def test_exploration_is_uniform_at_first_then_falls_towards_the_mean():
    agent, obs = (
        drq(replace(CONFIG, std_initial=0.3, std_final=0.05, std_steps=100, std_clip=0.01)),
        jnp.asarray(batches(1).obs[0, 0]),
    )
    keys = jax.random.split(jax.random.key(0), 2000)
    state = start()
    many = QUICK(lambda step: jax.vmap(lambda key: agent.act(state, obs, key, step))(keys))
    mean = np.asarray(agent.act(state, obs, keys[0], None))
    assert np.abs(mean).max() < 0.5, "the bound would cut the noise"
    for step in (0, 9):
        counts = [np.histogram(column, 10, (-1, 1))[0] for column in np.asarray(many(now(step))).T]
        assert np.sum(counts) == 4000 and np.abs(np.array(counts) - 200).max() < 60
    for step, std in ((10, 0.275), (60, 0.15), (100, 0.05), (1000, 0.05)):
        noise = np.asarray(many(now(step))) - mean
        np.testing.assert_allclose(noise.std(axis=0), std, rtol=0.08)
        np.testing.assert_allclose(noise.mean(axis=0), 0, atol=0.02)
        assert np.abs(np.corrcoef(noise.T)[0, 1]) < 0.1


def test_init_copies_the_critic_and_draws_every_network():
    state = start()
    tree_equal(state.target_critic, state.critic.params)
    kernels = [state.actor.params, state.critic.params]
    assert not np.allclose(*(net["projection"]["dense"]["kernel"] for net in kernels))


def test_layer_norm_is_passed_on():
    state = jax.eval_shape(drq(replace(CONFIG, layer_norm=True)).init, jax.random.key(0))
    assert "norm" in state.actor.params["policy"]["hidden_1"] and "norm" in state.critic.params["q2"]["hidden_0"]
    assert "norm" not in start().actor.params["policy"]["hidden_1"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(channels=0), "agent.channels must be positive, got 0"),
        (dict(projection=0), "agent.projection must be positive, got 0"),
        (dict(std_steps=0), "agent.std_steps must be positive, got 0"),
        (dict(tau=0.0), "agent.tau must lie in (0, 1], got 0.0"),
        (dict(tau=1.1), "agent.tau must lie in (0, 1], got 1.1"),
        (dict(hidden=()), "agent.hidden must name at least one positive width, got ()"),
        (dict(hidden=(8, 0)), "agent.hidden must name at least one positive width, got (8, 0)"),
        (dict(random_steps=-1), "agent.random_steps must not be negative, got -1"),
        (dict(shift_pad=-1), "agent.shift_pad must not be negative, got -1"),
        (dict(std_clip=-0.1), "agent.std_clip must not be negative, got -0.1"),
        (dict(std_initial=-0.1), "agent.std_initial must not be negative, got -0.1"),
        (dict(std_final=-0.1), "agent.std_final must not be negative, got -0.1"),
        (dict(strides=()), "agent.strides must name a positive stride for each convolution, got ()"),
        (dict(strides=(2, 0)), "agent.strides must name a positive stride for each convolution, got (2, 0)"),
        (dict(strides=(2, 2, 2)), "env.image_size=11 is too small for an encoder with strides (2, 2, 2)"),
    ],
)
def test_bad_settings_are_named(change, message):
    of_vision = {key: value for key, value in change.items() if hasattr(VISION, key)}
    of_agent = {key: value for key, value in change.items() if key not in of_vision}
    with pytest.raises(ValueError, match=re.escape(message)):
        drq(replace(CONFIG, **of_agent), vision=replace(VISION, **of_vision))


def test_only_pixels_and_the_shorter_side_counts():
    make = make_optimisers(settings("none"), UPDATES)
    with pytest.raises(ValueError, match=r"observations of shape \(17,\); set env.pixels=True"):
        make_drq(CONFIG, VISION, cast(Any, (17,)), ACTIONS, make)
    for shape in ((40, 4, 3), (4, 40, 3)):
        with pytest.raises(ValueError, match=r"env\.image_size=4 is too small"):
            make_drq(CONFIG, VISION, shape, ACTIONS, make)
