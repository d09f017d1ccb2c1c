"""Rules beside each other: whose keys, whose activations, and whose optimiser begins when."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ne_jax

HIDDEN = ne_jax.kernels_under("hidden")
SHAPES = {"hidden_0": (5, 8), "hidden_1": (8, 8), "head": (8, 3)}


def initialise(key):
    keys = jax.random.split(key, len(SHAPES))
    return {
        name: {"kernel": jax.random.normal(each, shape), "bias": jnp.zeros(shape[1])}
        for each, (name, shape) in zip(keys, SHAPES.items(), strict=True)
    }


def activity(params, x):
    first = jax.nn.relu(x @ params["hidden_0"]["kernel"])
    second = jax.nn.relu(first @ params["hidden_1"]["kernel"])
    return {"hidden_0": first * (jnp.arange(8) > 2), "hidden_1": second}  # three units are silent


def drawing(name):
    """A rule that sets all weights to what its key draws."""

    def evolve(key, step, network):
        new = {path: jax.random.normal(key, leaf.shape) for path, leaf in network.params.items()}
        return ne_jax.Evolved(new, {}, {path: jnp.ones(leaf.shape, bool) for path, leaf in new.items()})

    return ne_jax.Rule(ne_jax.stateless(evolve), name=name)


def test_no_two_methods_of_nested_chains_draw_the_same():
    seen = []

    def telling(name):
        rule: Any = drawing(name)

        def evolve(state, key, step, network):
            seen.append(tuple(np.asarray(jax.random.key_data(key)).tolist()))
            return rule.evolve(state, key, step, network)

        return rule._replace(evolve=evolve)

    a, b, c, d = (telling(name) for name in "abcd")
    nested = ne_jax.chain(ne_jax.chain(a, b), ne_jax.chain(c, d))
    params = ne_jax.leaves_by_path(initialise(jax.random.key(0)))
    assert nested.evolve is not None
    nested.evolve((), jax.random.key(1), 5, ne_jax.Network(params, params, {}, None))
    assert len(seen) == 4 == len(set(seen))


def test_a_rule_without_activity_sees_none_in_a_chain():
    growth = ne_jax.cosine_growth(0.3, 0.8, until=10)
    alone, beside = ne_jax.neuroplastic(growth), ne_jax.redo(activity, initialise, tau=0.0)
    x = jax.random.normal(jax.random.key(2), (6, 5))
    params = ne_jax.sparsify(jax.random.key(0), initialise(jax.random.key(1)), ne_jax.uniform(0.3), HIDDEN)

    def masks_after(rule):
        tx = ne_jax.plastic(optax.sgd(0.0), rule, every=2, where=HIDDEN)
        state = tx.init(params)
        for step in range(3):
            gradients = jax.tree.map(lambda leaf: jnp.arange(leaf.size, dtype=jnp.float32).reshape(leaf.shape), params)
            _, state = tx.update(gradients, state, params, batch=x, step=jnp.int32(step), key=jax.random.key(step))
        record: Any = ne_jax.record(state)
        return ne_jax.masks(state), record

    (own, record), (together, _) = masks_after(alone), masks_after(ne_jax.chain(alone, beside))
    assert int(record.removed) == 0  # nothing is pruned where nothing is seen
    for path in own:
        np.testing.assert_array_equal(own[path], together[path])
    pruning = ne_jax.neuroplastic(growth, activity=activity, omega=0.5)
    assert int(masks_after(pruning)[1].removed) > 0  # or there would have been nothing to see


@pytest.mark.parametrize("at", [0, 60])
def test_injected_weights_train_as_under_a_new_optimiser(at):
    params = {name: {"kernel": jnp.ones((3, 2))} for name in ("trunk", "fresh", "anchor", "other")}
    tx, plain = ne_jax.plastic(optax.adam(1e-2), ne_jax.plasticity_injection(at), 1, where=None), optax.adam(1e-2)
    state, own = tx.init(params), plain.init(params["fresh"])
    always = plain.init(params["other"])
    update = jax.jit(tx.update)
    for step in range(at + 40):
        key = jax.random.key(step)
        gradients = jax.tree.map(lambda leaf, key=key: 1 + 0.1 * jax.random.normal(key, leaf.shape), params)
        updates, state = update(gradients, state, params, step=jnp.int32(step))
        expected, always = plain.update(gradients["other"], always)
        np.testing.assert_allclose(updates["other"]["kernel"], expected["kernel"], rtol=1e-6)
        assert not np.asarray(updates["anchor"]["kernel"]).any()
        if step < at:
            assert not np.asarray(updates["fresh"]["kernel"]).any()
            continue
        expected, own = plain.update(gradients["fresh"], own)
        np.testing.assert_allclose(updates["fresh"]["kernel"], expected["kernel"], rtol=2e-4, err_msg=str(step))
