"""The probe of what a network can still learn: against Adam and backpropagation in float64, and its two ends."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ne_jax
from ne_jax.probe import FREQUENCY, capacity, fitted_error, random_targets

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(40, 3)).astype(np.float32)
ALL = np.ones((3, 16), bool)


def network(params, x):
    """3-16-2, one hidden layer."""
    return jax.nn.relu(x @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]


def initialise(key):
    keys = jax.random.split(key, 2)
    w1, w2 = jax.random.normal(keys[0], (3, 16)) / 2, jax.random.normal(keys[1], (16, 2)) / 4
    return {"w1": w1, "b1": jnp.zeros(16) + 0.1, "w2": w2, "b2": jnp.zeros(2) + 0.2}


def reference(params, sine, steps, rate, mask=ALL):
    """Adam (Kingma and Ba 2015, algorithm 1) on the mean squared error, backpropagated by hand in float64."""
    p = {name: np.asarray(value, np.float64) for name, value in params.items()}
    x = INPUTS.astype(np.float64)
    forward = lambda: np.maximum(x @ p["w1"] + p["b1"], 0)  # noqa: E731
    targets = np.asarray(sine, np.float64) + (forward() @ p["w2"] + p["b2"]).mean(axis=0)
    m, v = ({name: np.zeros_like(value) for name, value in p.items()} for _ in range(2))
    for t in range(1, steps + 1):
        h = forward()
        slope = 2 * (h @ p["w2"] + p["b2"] - targets) / targets.size
        back = slope @ p["w2"].T * (h > 0)
        g = {"w1": x.T @ back, "b1": back.sum(axis=0), "w2": h.T @ slope, "b2": slope.sum(axis=0)}
        g["w1"] = np.where(mask, g["w1"], 0)
        for name in p:
            m[name] = 0.9 * m[name] + 0.1 * g[name]
            v[name] = 0.999 * v[name] + 0.001 * g[name] ** 2
            p[name] = p[name] - rate * m[name] / (1 - 0.9**t) / (np.sqrt(v[name] / (1 - 0.999**t)) + 1e-8)
    return ((forward() @ p["w2"] + p["b2"] - targets) ** 2).mean()


def test_targets_are_the_sine_of_a_random_network():
    params = initialise(jax.random.key(1))
    exact = np.maximum(INPUTS.astype(np.float64) @ np.asarray(params["w1"]) + np.asarray(params["b1"]), 0)
    exact = exact @ np.asarray(params["w2"], np.float64) + np.asarray(params["b2"], np.float64)
    found = random_targets(network, params, INPUTS)
    # float32 knows f to some 2e-7, so the angle to a few hundredths of a radian.
    np.testing.assert_allclose(found, np.sin(FREQUENCY * exact), atol=0.06)
    assert 0.3 < np.var(found) < 0.7 and abs(np.mean(found)) < 0.2


@pytest.mark.parametrize("masked", [False, True])
def test_the_error_after_some_steps_is_adams(masked):
    params, sine = initialise(jax.random.key(2)), np.sin(1e4 * RNG.normal(size=(40, 2))).astype(np.float32)
    mask, masks = RNG.random((3, 16)) < (0.3 if masked else 2), None
    if masked:
        params["w1"], masks = jnp.where(mask, params["w1"], 0), {"w1": jnp.asarray(mask)}
    found = fitted_error(network, params, INPUTS, jnp.asarray(sine), 60, 3e-3, masks)
    expected = reference(params, sine, 60, 3e-3, mask)
    np.testing.assert_allclose(found, expected, rtol=2e-4)
    assert expected < 0.98 * reference(params, sine, 1, 1e-9)  # it has learned something
    if masked:
        assert abs(reference(params, sine, 60, 3e-3) - expected) > 1e-3  # and the mask matters


def test_a_fresh_network_has_all_capacity_and_one_whose_units_are_dead_none():
    key = jax.random.key(3)
    fresh = initialise(jax.random.split(key)[1])
    found = capacity(network, fresh, INPUTS, key, initialise, steps=50, learning_rate=3e-3)
    np.testing.assert_allclose(found.relative, 1, rtol=1e-4)
    assert found.fresh_error < 0.95 * found.baseline
    dead = fresh | {"b1": jnp.full(16, -100.0)}
    gone = capacity(network, dead, INPUTS, key, initialise, steps=50, learning_rate=3e-3)
    assert abs(gone.relative) < 0.05 and gone.fresh_error == found.fresh_error
    sine = random_targets(network, initialise(jax.random.split(key)[0]), INPUTS)
    np.testing.assert_allclose(found.baseline, np.var(np.asarray(sine, np.float64), axis=0).mean(), rtol=1e-5)


def test_a_large_offset_costs_nothing():
    """Targets lie around the network's own mean prediction."""
    key = jax.random.key(4)
    fresh = initialise(jax.random.split(key)[1])
    moved = fresh | {"b2": fresh["b2"] + 8.0}
    found = capacity(network, moved, INPUTS, key, initialise, steps=50, learning_rate=3e-3)
    np.testing.assert_allclose(found.relative, 1, atol=0.01)


def test_draws_side_by_side_of_a_flax_network():
    net = nn.Sequential([nn.Dense(16), nn.relu, nn.Dense(2)])
    init = jax.jit(lambda key: net.init(key, INPUTS[:1])["params"])

    def apply(params, x):
        return jnp.asarray(net.apply({"params": params}, x))

    masks = {"layers_0/kernel": jnp.asarray(RNG.random((3, 16)) < 0.5)}
    params = ne_jax.apply(masks, init(jax.random.key(5)))
    keys = jax.random.split(jax.random.key(6), 3)
    probe = lambda key: ne_jax.capacity(apply, params, INPUTS, key, init, steps=10, masks=masks)  # noqa: E731
    found = jax.jit(jax.vmap(probe))(keys)
    assert found.relative.shape == (3,) and len(set(np.asarray(found.baseline).tolist())) == 3
    np.testing.assert_allclose(found.relative, (found.baseline - found.error) / (found.baseline - found.fresh_error))


@pytest.mark.parametrize(
    "settings, sentence", [({"steps": 0}, "steps must"), ({"learning_rate": 0.0}, "learning_rate")]
)
def test_what_cannot_be_is_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        capacity(network, initialise(jax.random.key(0)), INPUTS, jax.random.key(0), initialise, **settings)
