"""The probe of an agent's networks: what it is handed, dead networks, sparse ones, and where it is switched on."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_agents import ACTIONS, STATES, td3

import ne_jax
from agents.types import Transition
from configs import gymnax_states
from experiments.build.checks import validate
from experiments.train.capacity import INPUTS, LEARNING_RATE, STEPS, measure_capacity

RNG = np.random.default_rng(0)
OBS = RNG.normal(size=(INPUTS, *STATES)).astype(np.float32)
BATCH = Transition(
    jnp.asarray(OBS),
    jnp.asarray(RNG.uniform(-1, 1, (INPUTS, ACTIONS)), jnp.float32),
    jnp.zeros(INPUTS),
    jnp.ones(INPUTS),
    jnp.asarray(OBS),
)
FRESH, KEY = td3(), jax.random.key(5)
PROBE = jax.jit(measure_capacity, static_argnums=(0, 1))


def mlp(params, x):
    for name in ("hidden_0", "hidden_1"):
        x = jax.nn.relu(x @ params[name]["dense"]["kernel"] + params[name]["dense"]["bias"])
    return x @ params["head"]["kernel"] + params["head"]["bias"]


def critic(params, batch):
    """The smaller of both values, written out."""
    x = jnp.concatenate([batch.obs, batch.action], axis=-1)
    return jnp.minimum(mlp(params["q1"], x), mlp(params["q2"], x))[:, 0]


def actor(params, batch):
    return jnp.tanh(mlp(params["policy"], batch.obs))


def alter(state, name, scale):
    """The biases of a network's hidden layers moved: far below zero nothing is active any more."""
    model = getattr(state, name)
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf + scale if "bias" in str(path) and "hidden" in str(path) else leaf, model.params
    )
    return replace(state, **{name: replace(model, params=params)})


def test_both_networks_are_probed_as_they_are_used():
    state = jax.jit(FRESH.init)(jax.random.key(1))
    found = PROBE(FRESH, FRESH, state, BATCH, KEY)
    assert set(found) == {"capacity/actor", "capacity/critic"}
    for i, (name, network) in enumerate({"actor": actor, "critic": critic}.items()):
        expected = jax.jit(
            lambda key, name=name, network=network: ne_jax.capacity(
                network,
                getattr(state, name).params,
                BATCH,
                key,
                lambda key: getattr(FRESH.init(key), name).params,
                steps=STEPS,
                learning_rate=LEARNING_RATE,
            )
        )(jax.random.fold_in(KEY, i))
        # Targets are the sine of 1e5 times a value that two programs round differently, so they are not quite the same.
        np.testing.assert_allclose(found[f"capacity/{name}"], expected.relative, atol=0.03)
        assert 0.05 < 1 - expected.fresh_error / expected.baseline < 0.95, "neither nothing nor everything is fitted"


def test_a_network_whose_units_are_dead_has_no_capacity_left():
    state = jax.jit(FRESH.init)(jax.random.key(1))
    whole = PROBE(FRESH, FRESH, state, BATCH, KEY)
    dead = PROBE(FRESH, FRESH, alter(state, "critic", -1e3), BATCH, KEY)
    assert abs(dead["capacity/critic"]) < 0.1 < 0.5 < whole["capacity/critic"]
    assert dead["capacity/actor"] == whole["capacity/actor"]


@pytest.mark.slow
def test_masks_hold_while_a_copy_learns_and_the_fresh_network_is_dense():
    agent = td3(method="static")
    state = jax.jit(agent.init)(jax.random.key(1))
    found = PROBE(agent, FRESH, state, BATCH, KEY)
    dense = PROBE(agent, FRESH, replace(state, critic=FRESH.init(jax.random.key(1)).critic), BATCH, KEY)
    assert found["capacity/critic"] < dense["capacity/critic"]


def test_averaged_weights_cannot_be_probed():
    config = gymnax_states.get_config()
    config.capacity_probe = True
    validate(config)
    config.agent.ema = 0.99
    with pytest.raises(ValueError, match=r"agent\.ema=0\.99 their average acts"):
        validate(config)
