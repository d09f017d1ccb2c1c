"""SAC's update against one written from the paper, the density of its policy, its actions, targets and topology."""

import functools
import math
import re
from dataclasses import asdict, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sac_reference
from small_agents import (
    ACTIONS,
    BATCH,
    EVERY,
    OBS,
    QUICK,
    RATE,
    STATES,
    UPDATES,
    VISION,
    batches,
    now,
    operations,
    pick,
    settings,
)

import ne_jax
from agents.networks import ActorCritic
from agents.sac import GaussianActor, SACSettings, make_sac, sample_action
from agents.updates import Network, Optimiser, train_states
from experiments.build.methods import density_schedule, network_settings
from experiments.build.optimisers import make_optimisers

SAC = SACSettings(RATE, hidden=(16, 12), tau=0.1, initial_temperature=0.7, random_steps=10)
STILL = replace(VISION, shift_pad=0)
KINDS = {"states": (None, STATES), "pixels": (STILL, OBS)}


def sac(kind="states", config=SAC, method="none"):
    vision, shape = KINDS[kind]
    return make_sac(config, vision, shape, ACTIONS, make_optimisers(settings(method), UPDATES))


@functools.cache
def begun(kind="states", method="none") -> Any:
    return QUICK(sac(kind, method=method).init)(jax.random.key(1))


@functools.cache
def updater(kind="states", method="none", config=SAC):
    return QUICK(sac(kind, config, method).update)


def by_name(state):
    nets = {name: model.params for name, model in train_states(state).items() if name != "temperature"}
    return nets | {"target": state.target_critic, "log_alpha": state.temperature.params["log_alpha"]}


def adams(state):
    found = {name: model.opt_state[0] for name, model in train_states(state).items()}
    temperature = found.pop("temperature")
    moments = {name: (adam.mu, adam.nu) for name, adam in found.items()}
    return moments | {"log_alpha": (temperature.mu["log_alpha"], temperature.nu["log_alpha"])}


def noises(key):
    """What an update draws for its two actions."""
    keys = jax.random.split(key, 8)
    return [jax.random.normal(keys[i], (BATCH, ACTIONS)) for i in (2, 3)]


@pytest.mark.parametrize("kind", ["states", pytest.param("pixels", marks=pytest.mark.slow)])
def test_update_equals_the_paper(kind):
    update, state, updates = updater(kind), begun(kind), 6 if kind == "states" else 3
    own = QUICK(functools.partial(sac_reference.update, rate=RATE, tau=SAC.tau, target_entropy=-ACTIONS))
    with jax.enable_x64(True):
        nets = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), by_name(state))
        moments = {name: (jax.tree.map(jnp.zeros_like, nets[name]),) * 2 for name in nets if name != "target"}
    for i in range(updates):
        batch, key = pick(batches(updates, shape=KINDS[kind][1]), i), jax.random.key(i)
        drawn = [np.asarray(noise, np.float64) for noise in noises(key)]
        state, metrics = update(state, batch, key, now(i))
        with jax.enable_x64(True):
            nets, moments, losses = own(nets, moments, batch, drawn, i + 1)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0, atol=0.01 * RATE), by_name(state), nets)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-3, atol=2e-6), adams(state), moments)
        for name, loss in losses.items():
            np.testing.assert_allclose(metrics[name], loss, rtol=1e-3, atol=1e-5)
    assert abs(np.log(SAC.initial_temperature) - float(nets["log_alpha"])) > RATE, "the temperature did not learn"


def fixed_policy(mean, log_std):
    """`sample_action` of a policy that says the same of everything that it sees."""

    class Fixed(GaussianActor):
        def __call__(self, features):
            return jnp.broadcast_to(jnp.array([mean, log_std])[:, None], (2, len(features), len(mean)))

    network = Network(Fixed((1,), len(mean), None), (), Optimiser(optax.identity()))
    nets = ActorCritic(encoder=None, critic=network, actor=network, shift_pad=None)
    return lambda count, key: sample_action(nets, {}, jnp.zeros((count, 1)), key)


@pytest.mark.parametrize("log_std", [-2.0, -0.5, 0.7])
def test_log_probability_is_the_change_of_variables(log_std):
    """d/da of the distribution function of tanh(u), by differences in float64, is the density of an action."""
    mean = (0.3, -0.8)
    action, log_prob = fixed_policy(mean, (log_std, log_std))(500, jax.random.key(0))
    inside = np.asarray(jnp.abs(action) < 0.999).all(axis=1)  # float32 does not resolve actions nearer to the bound
    a = np.asarray(action, np.float64)[inside]
    erf, step = np.vectorize(math.erf), 1e-6

    def below(a):
        return (1 + erf((np.arctanh(a) - mean) / np.exp(log_std) / np.sqrt(2))) / 2

    density = (below(a + step / 2) - below(a - step / 2)) / step
    assert inside.sum() > 100
    np.testing.assert_allclose(log_prob[inside], np.log(density).sum(axis=1), rtol=2e-3, atol=2e-3)


def test_probability_sums_to_one():
    """Importance sampling: the mean of 1 / density over the policy's own actions is the size of what they cover."""
    _, log_prob = fixed_policy((0.1,), (0.0,))(200_000, jax.random.key(1))
    assert np.exp(-np.asarray(log_prob, np.float64)).mean() == pytest.approx(2, rel=0.02)


def test_actions_at_the_bounds_have_finite_probabilities_and_slopes():
    def of(mean):
        return fixed_policy((mean,), (2.0,))(50, jax.random.key(0))[1].sum()

    for mean in (-200.0, -20.0, 20.0, 200.0):
        value, slope = jax.value_and_grad(of)(jnp.float32(mean))
        assert np.isfinite(value) and np.isfinite(slope)


def test_log_deviation_stays_within_its_bounds():
    state = begun()
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), state.actor.params)
    for bias, expected in ((100.0, 2.0), (-100.0, -20.0), (0.5, 0.5)):
        params["policy"]["head"]["bias"][ACTIONS:] = bias
        _, log_std = GaussianActor(SAC.hidden, ACTIONS, None).apply({"params": params}, jnp.ones((3, *STATES)))
        np.testing.assert_array_equal(log_std, np.full((3, ACTIONS), expected, np.float32))


@functools.cache
def acting(greedy=False):
    act = jax.vmap(sac().act, (None, None, 0, None))
    return QUICK(lambda state, obs, keys: act(state, obs, keys, None)) if greedy else QUICK(act)


def test_greedy_action_is_the_tanh_of_the_mean_whatever_the_key():
    obs, keys = batches(1, shape=STATES).obs[0], jax.random.split(jax.random.key(0), 3)
    actions = np.array([acting(greedy=True)(begun(), o, keys) for o in obs])
    mean, _ = sac_reference.gaussian(begun().actor.params, obs)
    for each in range(3):
        np.testing.assert_allclose(actions[:, each], np.tanh(mean), rtol=1e-5, atol=1e-6)


def test_exploration_is_uniform_at_first_then_the_policy():
    obs, keys = batches(1, shape=STATES).obs[0, 0], jax.random.split(jax.random.key(0), 4000)
    for step in (0, 9):
        counts = [
            np.histogram(column, 10, (-1, 1))[0] for column in np.asarray(acting()(begun(), obs, keys, now(step))).T
        ]
        assert np.sum(counts) == 8000 and np.abs(np.array(counts) - 400).max() < 100
    u = np.arctanh(np.asarray(acting()(begun(), obs, keys, now(10)), np.float64))
    mean, std = sac_reference.gaussian(begun().actor.params, obs[None])
    np.testing.assert_allclose(u.mean(axis=0), mean[0], atol=0.06)
    np.testing.assert_allclose(u.std(axis=0), std[0], rtol=0.06)
    assert np.abs(np.corrcoef(u.T)[0, 1]) < 0.06


@pytest.mark.parametrize(("target", "rises"), [(-30.0, False), (30.0, True)])
def test_temperature_rises_while_the_entropy_is_too_low_and_falls_while_it_is_too_high(target, rises):
    state, update = begun(), updater(config=replace(SAC, target_entropy=target))
    before = float(state.temperature.params["log_alpha"])
    for i in range(5):
        used = np.exp(float(state.temperature.params["log_alpha"]))
        state, metrics = update(state, pick(batches(5, shape=STATES), i), jax.random.key(i), now(i))
        assert metrics["temperature"] == pytest.approx(used, rel=1e-5)
    assert (float(state.temperature.params["log_alpha"]) > before) == rises


def test_actor_and_temperature_never_move_encoder_or_critic():
    """With nothing to come, the critics' target is the reward, whatever the policy does."""
    state, update = begun("pixels"), updater("pixels")
    batch = pick(batches(1), 0)._replace(discount=np.zeros(BATCH, np.float32))
    turned = state.actor.replace(params=jax.tree.map(lambda p: -2 * p, state.actor.params))
    one, metrics = update(state, batch, jax.random.key(0), now(0))
    other, other_metrics = update(state.replace(actor=turned), batch, jax.random.key(0), now(0))
    parts = [(each.encoder, each.critic, each.target_critic) for each in (one, other)]
    jax.tree.map(np.testing.assert_array_equal, *parts)
    assert metrics["actor_loss"] != other_metrics["actor_loss"]


def test_init_copies_the_critic_and_begins_at_the_given_temperature():
    state = begun()
    jax.tree.map(np.testing.assert_array_equal, state.target_critic, state.critic.params)
    assert np.exp(state.temperature.params["log_alpha"]) == pytest.approx(0.7, rel=1e-6)
    assert state.encoder is None and begun("pixels").encoder is not None


def test_settings_are_those_of_the_paper():
    published = dict(learning_rate=3e-4, hidden=(256, 256), layer_norm=False, activation="relu", tau=0.005)
    own = dict(initial_temperature=1.0, target_entropy=-1.0, random_steps=10_000, noise_hold=1)
    assert asdict(SACSettings()) == published | own


@pytest.mark.parametrize("kind", ["states", pytest.param("pixels", marks=pytest.mark.slow)])
def test_gradients_are_what_an_update_descends(kind):
    """Of the critic, which an update moves first; the temperature's noise is its own, so only its sign is held."""
    agent, state, batch = sac(kind), begun(kind), pick(batches(1, shape=KINDS[kind][1]), 0)
    batch = batch._replace(discount=np.zeros(BATCH, np.float32))  # no noise reaches the critics' target
    gradients = QUICK(agent.gradients)(state, batch, jax.random.key(2), now(0))
    after, _ = updater(kind)(state, batch, jax.random.key(3), now(0))
    assert (
        set(gradients)
        == set(train_states(state))
        == {"critic", "actor", "temperature"} | ({"encoder"} if kind == "pixels" else set())
    )
    for name in {"critic", "encoder"} & set(gradients):
        first = jax.tree.map(lambda m: m / 0.1, getattr(after, name).opt_state[0].mu)  # Adam's after one step
        close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
        jax.tree.map(close, first, gradients[name])
    assert np.abs(gradients["temperature"]["log_alpha"]) > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(tau=0.0), "agent.tau must lie in (0, 1], got 0.0"),
        (dict(initial_temperature=0.0), "agent.initial_temperature must be positive, got 0.0"),
        (dict(random_steps=-1), "agent.random_steps must not be negative, got -1"),
        (dict(learning_rate=0.0), "agent.learning_rate must be positive, got 0.0"),
        (dict(hidden=()), "agent.hidden must name at least one positive width, got ()"),
    ],
)
def test_bad_settings_are_named(change, message):
    for kind in KINDS:
        with pytest.raises(ValueError, match=re.escape(message)):
            sac(kind, replace(SAC, **change))


SEEDS = 2


@functools.cache
def path():
    """The states of two seeds that grow and prune, before the first update and after each."""
    states = [QUICK(jax.vmap(sac(method="ne").init))(jax.random.split(jax.random.key(4), SEEDS))]
    update = QUICK(jax.vmap(sac(method="ne").update, (0, 0, 0, None)))
    each = [batches(UPDATES, seed, STATES) for seed in range(SEEDS)]
    data = jax.tree.map(lambda *leaves: np.stack(leaves, axis=1), *each)
    keys = jax.random.split(jax.random.key(5), (UPDATES, SEEDS))
    for t in range(UPDATES):
        states.append(update(states[-1], pick(data, t), keys[t], now(t))[0])
    return states


def masks_of(state, name) -> dict[str, np.ndarray]:
    return {key: np.asarray(mask) for key, mask in ne_jax.masks(getattr(state, name).opt_state).items()}


@pytest.mark.slow
def test_zeros_stay_in_everything_that_is_kept_and_layers_grow_on_schedule():
    schedule: Any = density_schedule(network_settings(settings("ne"), "actor"), UPDATES)
    for name, layers in (("critic", 4), ("actor", 2)):
        shapes = {key: mask.shape[1:] for key, mask in masks_of(path()[0], name).items()}
        assert len(shapes) == layers
        planned = jax.vmap(functools.partial(ne_jax.counts_at, schedule, shapes))(jnp.arange(0, UPDATES, EVERY))
        for number, state in enumerate(path()):
            model = getattr(state, name)
            trees = [model.params, model.opt_state.inner[0].mu, model.opt_state.inner[0].nu]
            for tree in [*trees, state.target_critic] if name == "critic" else trees:
                for key, mask in masks_of(state, name).items():
                    assert not np.asarray(ne_jax.leaves_by_path(tree)[key])[~mask].any(), (number, name, key)
            for key, mask in masks_of(state, name).items():
                expected = planned[key][max(number - 1, 0) // EVERY]  # after n updates, the last had the number n - 1
                np.testing.assert_array_equal(mask.sum(axis=(1, 2)), expected)


def test_dense_nets_and_the_temperature_have_no_masks():
    assert all(ne_jax.masks(model.opt_state) == {} for model in train_states(begun()).values())
    assert ne_jax.masks(begun(method="ne").temperature.opt_state) == {}


def test_rounds_stay_branches_with_many_seeds():
    agent, keys = sac(method="ne"), jax.random.split(jax.random.key(0), SEEDS)
    state = jax.eval_shape(jax.vmap(agent.init), keys)
    batch = jax.tree.map(lambda leaf: np.stack([leaf] * SEEDS), pick(batches(1, shape=STATES), 0))
    jaxpr = jax.make_jaxpr(jax.vmap(agent.update, (0, 0, 0, None)))(state, batch, keys, now(1)).jaxpr
    depths = {depth for name, depth, _ in operations(jaxpr) if name == "cumsum"}
    assert depths == {1}, "a round of growth runs in a branch"


def test_activations_are_named_by_layer():
    found = sac().activations(begun(), jax.tree.map(jnp.asarray, pick(batches(1, shape=STATES), 0)))
    layers = {"actor/policy", "critic/q1", "critic/q2"}
    assert set(found) == {f"{layer}/hidden_{i}" for layer in layers for i in (0, 1)}
    for path_, units in found.items():
        assert units.shape == (BATCH, SAC.hidden[int(path_[-1])]) and units.min() == 0 < units.max()
