"""Pulls of every update against numpy: L2, decoupled decay, Parseval, and what regenerative L2 pulls newborns to."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from accounts import RATE, SPARSE, check, check_lanes_and_pause, flat, gradients_at, key_at, parameters, transformation

import ne_jax

BOTH = pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
PARSEVAL = ("conv_0/kernel", "hidden_0/dense/kernel", "hidden_1/dense/kernel")


@BOTH
def test_l2(sparse):
    check(ne_jax.l2(strength=0.25), lambda p, g: {k: g[k] + 2 * 0.25 * p[k] for k in p}, sparse=sparse)


@BOTH
def test_weight_decay_takes_kernels_alone_and_adam_does_not_see_it(sparse):
    def after(params, gradients, updates, t):
        kept = {k: 0.97 if k.endswith("kernel") else 1 for k in params}
        return {k: kept[k] * params[k] + updates[k] for k in params}

    check(ne_jax.weight_decay(rate=0.03), after=after, sparse=sparse)


def test_weight_decay_is_adamw():
    params: Any = {"kernel": jax.random.normal(jax.random.key(0), (4, 3))}
    ours = ne_jax.plastic(optax.adam(0.125), ne_jax.weight_decay(rate=0.125 * 0.5), 1, where=None)
    theirs, pair = optax.adamw(0.125, weight_decay=0.5), [params, params]
    states = [ours.init(params), theirs.init(params)]
    for t in range(20):
        gradients = {"kernel": jax.random.normal(jax.random.key(t), (4, 3))}
        for i, tx in enumerate((ours, theirs)):
            updates, states[i] = tx.update(gradients, states[i], pair[i])
            pair[i] = optax.apply_updates(pair[i], updates)
    np.testing.assert_allclose(pair[0]["kernel"], pair[1]["kernel"], rtol=1e-5, atol=1e-6)


def by_single_weights(kernel, scale):
    """The gradient of ||W W^T - scale * I||_F^2 by the product rule, weight by weight; W's rows are units."""
    w = kernel.reshape(-1, kernel.shape[-1]).T
    units, inputs = w.shape
    off = [[sum(w[a] * w[b]) - scale * (a == b) for b in range(units)] for a in range(units)]
    gradient = np.zeros_like(w)
    for a, b, i in itertools.product(range(units), range(units), range(inputs)):
        gradient[a, i] += 2 * off[a][b] * w[b, i]
        gradient[b, i] += 2 * off[a][b] * w[a, i]
    return gradient.T.reshape(kernel.shape)


@BOTH
def test_parseval(sparse):
    def gradient(params, gradients):
        return gradients | {k: gradients[k] + 0.25 * by_single_weights(params[k], 1.5) for k in PARSEVAL}

    check(ne_jax.parseval(strength=0.25, scale=1.5), gradient, sparse=sparse)


def test_parseval_is_the_gradient_of_its_loss_and_makes_units_orthogonal():
    kernel = jax.random.normal(jax.random.key(0), (5, 3))
    tx = ne_jax.plastic(optax.sgd(0.01), ne_jax.parseval(strength=1.0), 1, where=None)

    def term(kernel):
        return ((kernel.T @ kernel - 2 * jnp.eye(3)) ** 2).sum()

    params: Any = {"kernel": kernel}
    updates, state = tx.update({"kernel": jnp.zeros((5, 3))}, tx.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.01 * jax.grad(term)(kernel), rtol=1e-4, atol=1e-5)
    for _ in range(300):
        updates, state = tx.update({"kernel": jnp.zeros((5, 3))}, state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params["kernel"].T @ params["kernel"], 2 * np.eye(3), atol=1e-4)


@pytest.mark.parametrize("sparse", [pytest.param(False, marks=pytest.mark.slow), True], ids=["dense", "sparse"])
def test_lanes_and_pause(sparse):
    rules = [ne_jax.l2(), ne_jax.weight_decay(rate=0.01), ne_jax.parseval(strength=0.01)]
    topology = [ne_jax.set_(ne_jax.constant_share(0.3))] if sparse else []
    check_lanes_and_pause(ne_jax.chain(*topology, *rules, ne_jax.regenerative_l2(0.01)), sparse)


def reset_head(key):
    return parameters(5)


@pytest.mark.parametrize("name", ["neuroplastic", "reset"])
def test_regenerative_l2_pulls_to_the_value_at_birth(name):
    """Of weights that another rule of the chain bears, removes or resets, the value right after the round."""
    every, updates, strength = 5, 31, 0.5
    sparse = name == "neuroplastic"
    rules = {
        "neuroplastic": lambda: ne_jax.neuroplastic(
            ne_jax.linear_growth(ne_jax.uniform(0.6), ne_jax.uniform(0.9), 20),
            prune="magnitude",
            omega=0.3,
            birth="lecun",
        ),
        "reset": lambda: ne_jax.reset(reset_head, where=lambda path, _: path.startswith("head")),
    }
    tx = ne_jax.plastic(
        optax.sgd(RATE),
        ne_jax.chain(rules[name](), ne_jax.regenerative_l2(strength)),
        every,
        where=SPARSE if sparse else None,
    )
    params = parameters(sparse=sparse)
    state, update = tx.init(params), jax.jit(tx.update)
    births, pulled = flat(params), 0
    for t in range(updates):
        before, old = flat(params), state
        changes, state = update(gradients_at(t), state, params, key=key_at(t))
        params = optax.apply_updates(params, changes)
        now, gradients, due = flat(params), flat(gradients_at(t)), t > 0 and t % every == 0
        for path, leaf in now.items():
            mask = np.asarray(state.masks[path]) if path in state.masks else np.ones(leaf.shape, bool)
            was = np.asarray(old.masks[path]) if path in old.masks else mask
            fresh = mask != was if sparse else np.full(leaf.shape, due and path.startswith("head"))
            assert due or not fresh.any()
            step = gradients[path] + 2 * strength * (before[path] - births[path])
            expected = np.where(mask & was, before[path] - RATE * step, 0)
            np.testing.assert_allclose(leaf[~fresh], expected[~fresh], rtol=1e-4, atol=1e-6, err_msg=path)
            births[path] = np.where(fresh, leaf, births[path])
            pulled += (fresh & mask).sum()
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), dict(state.rule[1]), births)
    assert pulled > 20


@pytest.mark.parametrize(
    ("maker", "knobs", "message"),
    [
        (ne_jax.l2, {"strength": 0.0}, "strength must be positive, got 0.0"),
        (ne_jax.weight_decay, {"rate": 1.0}, r"rate must lie in \(0, 1\), got 1.0"),
        (ne_jax.parseval, {"strength": -1.0}, "strength must be positive, got -1.0"),
        (ne_jax.parseval, {"scale": 0.0}, "scale must be positive, got 0.0"),
    ],
)
def test_wrong_settings(maker, knobs, message):
    with pytest.raises(ValueError, match=message):
        maker(**knobs)


def test_an_absent_weight_keeps_no_optimiser_state_of_a_pull():
    tx, params = transformation(ne_jax.parseval(strength=1.0), sparse=True), parameters(sparse=True)
    _, state = tx.update(gradients_at(0), tx.init(params), params, key=key_at(0))
    for path, mask in state.masks.items():
        assert not ne_jax.leaves_by_path(state.inner[0].mu)[path][~mask].any()
