"""TD3's update against one written from the paper, its noise, its averaged weights, and the errors of its settings."""

import functools
import math
import re
from dataclasses import asdict, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import td3_reference
from small_agents import (
    ACTIONS,
    BATCH,
    CONFIG,
    OBS,
    QUICK,
    RATE,
    STATES,
    TD3,
    UPDATES,
    VISION,
    batches,
    now,
    operations,
    pick,
    settings,
    start,
    td3,
    updater,
)

import ne_jax
from agents.encoder import VisionSettings
from agents.td3 import TD3Settings, make_td3
from agents.types import Clock
from experiments.build.optimisers import make_optimisers

# Without noise, and with pictures that stay where they are, an update is the same for every key.
SILENT, STILL = replace(TD3, smoothing_std=0.0, tau=0.1, ema=0.9), replace(VISION, shift_pad=0)
DEFAULTS = TD3Settings()
tree_equal = functools.partial(jax.tree.map, np.testing.assert_array_equal)


def at(env: Any, update: Any) -> Clock:
    return Clock(jnp.int32(env), jnp.int32(update))


@functools.cache
def initialiser(config, vision=None):
    return QUICK(td3(config, vision=vision).init)


@functools.cache
def begun(config=SILENT, vision: VisionSettings | None = None) -> Any:
    """A fresh state; from pixels with the networks of a fresh DrQ, whose program is shared."""
    if vision is None:
        return initialiser(replace(config, policy_delay=2))(jax.random.key(1))
    shapes, drq = jax.eval_shape(td3(config, vision=vision).init, jax.random.key(1)), start()
    models = dict(encoder=drq.encoder, critic=drq.critic, actor=drq.actor)
    average = {name: models[name].params for name in ("encoder", "actor")} if config.ema else None
    targets = dict(target_critic=drq.critic.params, target_actor=drq.actor.params)
    state = shapes.replace(**models, **targets, average=average, actor_loss=jnp.zeros(()))
    jax.tree.map(lambda leaf, shape: np.testing.assert_equal(jnp.shape(leaf), shape.shape), state, shapes)
    return state


def learned_from(state) -> dict[str, Any]:
    models = {name: getattr(state, name) for name in ("encoder", "critic", "actor")}
    return {name: model for name, model in models.items() if model is not None}


def by_name(state):
    nets = {name: model.params for name, model in learned_from(state).items()}
    return nets | {"target_critic": state.target_critic, "target_actor": state.target_actor}


@functools.cache
def reference(penalty):
    own = functools.partial(td3_reference.update, rate=RATE, tau=SILENT.tau, penalty=penalty)
    return QUICK(own, static_argnames="due")


def check_against_the_paper(update, state, shape, delay, updates, penalty=0.0):
    own = reference(penalty)
    with jax.enable_x64(True):
        nets = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), by_name(state))
        moments = {name: (jax.tree.map(jnp.zeros_like, nets[name]),) * 2 for name in learned_from(state)}
    counts, loss_of_actor = dict.fromkeys(moments, 0), 0.0
    average = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), state.average)
    for i in range(updates):
        batch, due = pick(batches(updates, shape=shape), i), i % delay == 0
        state, metrics = update(state, batch, jax.random.key(i), now(i))
        counts = {name: count + (name != "actor" or due) for name, count in counts.items()}
        with jax.enable_x64(True):
            nets, moments, losses = own(nets, moments, batch, counts, due=due)
        if due:
            loss_of_actor = losses["actor_loss"]
            average = {
                name: jax.tree.map(lambda a, p: 0.9 * a + 0.1 * np.asarray(p), old, nets[name])
                for name, old in average.items()
            }
        close = functools.partial(np.testing.assert_allclose, rtol=0, atol=0.01 * RATE)
        jax.tree.map(close, by_name(state), nets)
        jax.tree.map(close, state.average, average)
        adams = {name: model.opt_state[0] for name, model in learned_from(state).items()}
        found = {name: (adam.mu, adam.nu) for name, adam in adams.items()}
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=2e-6), found, moments)
        assert {name: adam.count for name, adam in adams.items()} == counts
        np.testing.assert_allclose(metrics["critic_loss"], losses["critic_loss"], rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(metrics["actor_loss"], loss_of_actor, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("delay", [1, 2, 3])
def test_update_from_states_equals_the_paper(delay):
    check_against_the_paper(updater(replace(SILENT, policy_delay=delay), None), begun(), STATES, delay, 6)


def test_what_the_tanh_takes_can_be_held_small():
    config = replace(SILENT, policy_delay=1, preactivation_penalty=0.5)
    check_against_the_paper(updater(config, None), begun(), STATES, 1, 3, penalty=0.5)


@pytest.mark.slow
def test_update_from_pixels_equals_the_paper():
    check_against_the_paper(updater(SILENT, STILL), begun(vision=VISION), OBS, 2, 3)


def test_updates_between_the_delayed_ones_leave_actor_targets_and_averages_bit_for_bit():
    state, update = begun(), updater(SILENT, None)
    for i in range(4):
        after, metrics = update(state, pick(batches(4, shape=STATES), i), jax.random.key(i), now(i))
        for name in ("actor", "target_actor", "target_critic", "average", "actor_loss"):
            pairs = zip(*(jax.tree.leaves(getattr(s, name)) for s in (state, after)), strict=True)
            assert all(np.array_equal(*pair) for pair in pairs) == (i % 2 == 1), (i, name)
        assert metrics["actor_loss"] == after.actor_loss
        state = after


def test_delay_counts_updates_and_not_steps():
    state, update, batch = begun(), updater(SILENT, None), pick(batches(1, shape=STATES), 0)
    for number in (6, 7):
        for steps in (100, 101):
            after, _ = update(state, batch, jax.random.key(0), at(steps, number))
            same = jax.tree.map(np.array_equal, after.target_actor, state.target_actor)
            assert all(jax.tree.leaves(same)) == (number == 7)


def test_from_pixels_encoder_and_critic_learn_as_those_of_drq_with_the_same_shifts():
    vision = replace(VISION, shift_pad=2)
    state, drq_state, batch = begun(vision=VISION), start(), pick(batches(1), 0)
    update = updater(SILENT, vision)
    drq_update = updater(replace(CONFIG, std_clip=0.0, tau=0.1), vision)
    seen = []
    for seed in range(4):
        after, metrics = update(state, batch, jax.random.key(seed), now(0))
        of_drq, drq_metrics = drq_update(drq_state, batch, jax.random.key(seed), now(0))
        for name in ("encoder", "critic", "target_critic"):
            close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
            jax.tree.map(close, getattr(after, name), getattr(of_drq, name))
        for name in ("q", "q_target", "critic_loss"):
            assert metrics[name] == pytest.approx(float(drq_metrics[name]), rel=1e-5, abs=1e-6)
        seen.append([metrics["q"], metrics["q_target"]])
    assert (np.ptp(seen, axis=0) > 1e-4).all(), "nothing was shifted"


def test_actor_never_moves_encoder_or_critic():
    state, update = begun(vision=VISION), updater(SILENT, STILL)
    batch = pick(batches(1), 0)
    turned = state.actor.replace(params=jax.tree.map(lambda p: -2 * p, state.actor.params))
    one, metrics = update(state, batch, jax.random.key(0), now(0))
    other, other_metrics = update(state.replace(actor=turned), batch, jax.random.key(0), now(0))
    # The target actor is the same, so the critics' targets are.
    tree_equal((one.encoder, one.critic, one.target_critic), (other.encoder, other.critic, other.target_critic))
    assert metrics["actor_loss"] != other_metrics["actor_loss"]
    assert metrics["critic_loss"] == other_metrics["critic_loss"]


def reads_action(params, which):
    """Critic parameters with which Q1 = Q2 = action[which]."""
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), params)
    for twin in params.values():
        first, second, head = (
            layer["kernel"] for layer in (*(twin[f"hidden_{i}"]["dense"] for i in (0, 1)), twin["head"])
        )
        first[STATES[0] + which, :2] = second[0, 0] = second[1, 1] = head[0] = 1
        first[STATES[0] + which, 1] = head[1] = -1
    return params


@functools.cache
def smoothing_program(std, clip):
    agent = td3(replace(TD3, smoothing_std=std, smoothing_clip=clip))
    return QUICK(
        jax.vmap(lambda state, batch, key: agent.update(state, batch, key, now(0))[1]["q_target"], (None, None, 0))
    )


def smoothed(mean, which=0, row=0, std=0.2, clip=0.5):
    """Many draws of one component of one row's target action, where the target policy says `mean`."""
    state = begun()
    actor = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), state.target_actor)
    actor["policy"]["head"]["bias"][:] = math.atanh(mean)
    # The online actor says something else, and must not be asked.
    state = state.replace(target_actor=actor, target_critic=reads_action(state.target_critic, which))
    batch = pick(batches(1, shape=STATES), 0)
    batch = batch._replace(reward=np.zeros(BATCH, np.float32), discount=np.float32(np.arange(BATCH) == row) * BATCH)
    return np.asarray(smoothing_program(std, clip)(state, batch, jax.random.split(jax.random.key(3), 4000)))


def clipped_normal(std, clip):
    return np.clip(np.random.default_rng(0).normal(size=200_000) * std, -clip, clip)


@pytest.mark.parametrize(("std", "clip"), [(0.2, 0.5), (0.3, 0.2)])
def test_target_actions_are_smoothed_by_clipped_noise(std, clip):
    noise = smoothed(0.2, std=std, clip=clip) - 0.2
    expected = clipped_normal(std, clip)
    assert np.abs(noise).max() == pytest.approx(clip, abs=1e-6)
    for bound in (-clip, clip):
        at_it, expected_at_it = (np.isclose(each, bound, atol=1e-5).mean() for each in (noise, expected))
        assert at_it == pytest.approx(expected_at_it, abs=0.03) and at_it > 0
    assert noise.std() == pytest.approx(expected.std(), rel=0.05)
    assert noise.mean() == pytest.approx(0, abs=0.015)


@pytest.mark.parametrize("mean", [-0.9, 0.9])
def test_smoothed_actions_stay_inside_the_bounds(mean):
    outward = smoothed(mean) * np.sign(mean)
    assert outward.max() == 1 and outward.min() == pytest.approx(0.4, abs=1e-5)
    assert (outward == 1).mean() == pytest.approx((clipped_normal(0.2, 0.5) > 0.1).mean(), abs=0.03)


def test_smoothing_noise_differs_between_actions_and_transitions():
    draws = [smoothed(0.0), smoothed(0.0, which=1), smoothed(0.0, row=1)]
    assert np.abs(np.corrcoef(draws) - np.eye(3)).max() < 0.06


def test_settings_are_those_of_the_authors():
    published = dict(
        hidden=(256, 256),
        layer_norm=False,
        activation="relu",
        learning_rate=3e-4,
        tau=0.005,
        policy_delay=2,
        smoothing_std=0.2,
        smoothing_clip=0.5,
        exploration_std=0.1,
        random_steps=25_000,
        ema=0.0,
        noise_hold=1,  # ours, and off
        preactivation_penalty=0.0,
    )
    assert asdict(DEFAULTS) == published


def test_init_copies_targets_and_draws_uniformly_from_states_orthogonally_from_pixels():
    state = begun()
    tree_equal((state.target_critic, state.target_actor), (state.critic.params, state.actor.params))
    tree_equal(state.average, {"actor": state.actor.params})
    assert state.encoder is None
    for params in (state.actor.params["policy"], state.critic.params["q1"], state.critic.params["q2"]):
        for layer in (params["hidden_0"]["dense"], params["hidden_1"]["dense"], params["head"]):
            for leaf in layer.values():
                assert 0 < np.abs(leaf).max() < 1 / math.sqrt(len(layer["kernel"]))
    assert not np.allclose(*(state.critic.params[q]["hidden_1"]["dense"]["kernel"] for q in ("q1", "q2")))
    pixels = QUICK(td3(SILENT, vision=VISION).init)(jax.random.key(1))
    tree_equal(pixels, begun(vision=VISION))  # DrQ's networks for the same key


def test_layer_norm_is_passed_on():
    for vision in (None, VISION):
        state = jax.eval_shape(td3(replace(TD3, layer_norm=True), vision=vision).init, jax.random.key(0))
        assert "norm" in state.actor.params["policy"]["hidden_1"] and "norm" in state.critic.params["q2"]["hidden_0"]
        plain = jax.eval_shape(td3(vision=vision).init, jax.random.key(0))
        assert "norm" not in plain.actor.params["policy"]["hidden_1"]


@functools.cache
def acting(config, greedy=False):
    agent = td3(config)
    act = jax.vmap(agent.act, (None, None, 0, None))
    return QUICK(lambda state, obs, keys: act(state, obs, keys, None)) if greedy else QUICK(act)


def test_greedy_action_ignores_the_key():
    obs, keys = batches(1, shape=STATES).obs[0], jax.random.split(jax.random.key(0), 3)
    actions = np.array([acting(TD3, greedy=True)(begun(TD3), o, keys) for o in obs])
    assert np.ptp(actions, axis=1).max() == 0 < np.ptp(actions, axis=0).min()
    expected = td3_reference.policy(begun(TD3).actor.params, obs)
    np.testing.assert_allclose(actions[:, 0], expected, rtol=1e-5, atol=1e-6)


def test_exploration_is_uniform_at_first_then_normal_around_the_policy():
    obs, keys = batches(1, shape=STATES).obs[0, 0], jax.random.split(jax.random.key(0), 2000)

    def many(config, step):  # of the environments' time: how many updates there were does not matter
        return np.asarray(acting(config)(begun(TD3), obs, keys, at(step, 1000 - step)))

    for step in (0, 9):
        counts = [np.histogram(column, 10, (-1, 1))[0] for column in many(TD3, step).T]
        assert np.sum(counts) == 4000 and np.abs(np.array(counts) - 200).max() < 60
    mean = td3_reference.policy(begun(TD3).actor.params, obs[None])[0]
    assert np.abs(mean).max() < 0.5, "the bound would cut the noise"
    noise = many(TD3, 10) - mean
    np.testing.assert_allclose(noise.std(axis=0), 0.1, rtol=0.08)
    np.testing.assert_allclose(noise.mean(axis=0), 0, atol=0.01)
    assert np.abs(np.corrcoef(noise.T)[0, 1]) < 0.1
    wide = np.abs(many(replace(TD3, exploration_std=2.0), 10))
    assert 1 - 1e-5 < wide.max() <= 1 and (wide > 1 - 1e-5).mean() > 0.4


def test_without_averaging_there_is_no_average():
    assert begun(TD3).average is None
    state, _ = updater(replace(SILENT, ema=0.0), None)(
        begun(TD3), pick(batches(1, shape=STATES), 0), jax.random.key(0), now(0)
    )
    assert state.average is None


def test_averaged_weights_act_greedily_and_online_ones_explore():
    state, obs = begun(), batches(1, shape=STATES).obs[0, 0]
    other = jax.tree.map(lambda p: -0.5 * p, state.actor.params)
    state, keys = state.replace(average={"actor": other}), jax.random.split(jax.random.key(0), 2)
    greedy = acting(SILENT, greedy=True)(state, obs, keys)
    exploring = acting(replace(SILENT, exploration_std=0.0))(state, obs, keys, now(50))
    for found, params in ((greedy, other), (exploring, state.actor.params)):
        expected = td3_reference.policy(params, obs[None])
        np.testing.assert_allclose(found, np.repeat(expected, 2, axis=0), rtol=1e-5, atol=1e-6)
    assert not np.allclose(greedy, exploring)


def test_from_pixels_the_averaged_encoder_acts_greedily_too():
    agent, key = td3(replace(SILENT, exploration_std=0.0), vision=STILL), jax.random.key(0)
    obs = jnp.asarray(batches(1).obs[0, 0])
    state = begun(vision=VISION)
    other = jax.tree.map(lambda p: -0.5 * p, state.encoder.params)
    state = state.replace(average={"actor": state.actor.params, "encoder": other})
    for step, encoder in ((None, other), (at(50, 50), state.encoder.params)):
        expected = td3_reference.policy(state.actor.params, td3_reference.encode(encoder, obs[None]))[0]
        np.testing.assert_allclose(agent.act(state, obs, key, step), expected, rtol=1e-4, atol=1e-5)


SEEDS = 3


def traced(step, step_axis, **how):
    """Operations of the update of several seeds."""
    agent, keys = td3(**how), jax.random.split(jax.random.key(0), SEEDS)
    state = jax.eval_shape(jax.vmap(agent.init), keys)
    batch = jax.tree.map(lambda leaf: np.stack([leaf] * SEEDS), pick(batches(1, shape=STATES), 0))
    update = jax.vmap(agent.update, (0, 0, 0, step_axis))
    return list(operations(jax.make_jaxpr(update)(state, batch, keys, step).jaxpr))


def selects(found):
    """Selections between whole kernels outside of any branch."""
    kernel = (SEEDS, *TD3.hidden)
    return [name for name, depth, shapes in found if name == "select_n" and not depth and kernel in shapes]


def test_the_delay_stays_a_branch_with_many_seeds():
    found = traced(now(1), None)
    [branch] = [shapes for name, depth, shapes in found if name == "cond" and not depth]
    assert (SEEDS, *TD3.hidden) in branch
    assert len(selects(found)) == 2, "each of the critic's twins stays as it is where its seed is frozen"
    # What it is held against: time that differs between seeds makes every seed train its actor every time.
    each = traced(Clock(jnp.arange(SEEDS), jnp.arange(SEEDS)), 0)
    assert len(selects(each)) > 2 and not [name for name, *_ in each if name == "cond"]


def test_rounds_and_the_delay_stay_branches_with_many_seeds():
    found = traced(now(1), None, method="ne")
    depths = {depth for name, depth, _ in found if name == "cumsum"}
    assert depths == {1, 2}, "the critic's rounds are in a branch, the actor's in one inside the delay's"


def test_activations_are_named_by_layer():
    state, batch = begun(TD3), jax.tree.map(jnp.asarray, pick(batches(1, shape=STATES), 0))
    found = td3().activations(state, batch)
    layers = {"actor/policy", "critic/q1", "critic/q2"}
    assert set(found) == {f"{layer}/hidden_{i}" for layer in layers for i in (0, 1)}
    for path, units in found.items():
        assert units.shape == (BATCH, TD3.hidden[int(path[-1])])
        assert units.min() == 0 < units.max()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(tau=0.0), "agent.tau must lie in (0, 1], got 0.0"),
        (dict(tau=1.1), "agent.tau must lie in (0, 1], got 1.1"),
        (dict(ema=1.0), "agent.ema must lie in [0, 1), got 1.0"),
        (dict(ema=-0.1), "agent.ema must lie in [0, 1), got -0.1"),
        (dict(policy_delay=0), "agent.policy_delay must be positive, got 0"),
        (dict(smoothing_std=-0.1), "agent.smoothing_std must not be negative, got -0.1"),
        (dict(smoothing_clip=-0.1), "agent.smoothing_clip must not be negative, got -0.1"),
        (dict(exploration_std=-0.1), "agent.exploration_std must not be negative, got -0.1"),
        (dict(random_steps=-1), "agent.random_steps must not be negative, got -1"),
        (dict(hidden=()), "agent.hidden must name at least one positive width, got ()"),
        (dict(hidden=(8, 0)), "agent.hidden must name at least one positive width, got (8, 0)"),
    ],
)
def test_bad_settings_are_named(change, message):
    for vision in (None, VISION):
        with pytest.raises(ValueError, match=re.escape(message)):
            td3(replace(TD3, **change), vision=vision)


@pytest.mark.parametrize(
    ("vision", "shape", "message"),
    [
        (None, OBS, "an agent without vision learns from states, and got observations of shape (11, 11, 2)"),
        (VISION, STATES, "the encoder sees pixels, and got observations of shape (5,); set env.pixels=True"),
        (replace(VISION, channels=0), OBS, "agent.channels must be positive, got 0"),
        (replace(VISION, projection=0), OBS, "agent.projection must be positive, got 0"),
        (replace(VISION, shift_pad=-1), OBS, "agent.shift_pad must not be negative, got -1"),
        (replace(VISION, strides=(2, 0)), OBS, "agent.strides must name a positive stride for each convolution"),
        (VISION, (40, 4, 3), "env.image_size=4 is too small"),
    ],
)
def test_what_is_seen_has_to_fit(vision, shape, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make_td3(TD3, vision, shape, ACTIONS, make_optimisers(settings("none"), UPDATES))


def test_dense_nets_have_no_masks():
    assert all(ne_jax.masks(model.opt_state) == {} for model in learned_from(begun()).values())
