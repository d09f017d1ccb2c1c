"""Dormancy and FAU in float64, and the maps from units to weights against Flax networks that are poked."""

from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import FIRST, SECOND, Net, random_params

import ne_jax

X = jax.random.normal(jax.random.key(1), (7, 5))


def activations(shape, seed=0):
    """Rectified noise of very different sizes; the first two units are idle."""
    rng = np.random.default_rng(seed)
    h = np.maximum(rng.normal(size=shape), 0) * 10 ** rng.uniform(-2, 2, shape[-1])
    h[..., :2] = 0
    return h.astype(np.float32)


def scores(h):
    magnitude = np.abs(h.astype(np.float64)).reshape(-1, h.shape[-1]).mean(0)
    return magnitude / magnitude.mean()


@pytest.mark.parametrize("shape", [(9,), (32, 10), (4, 6, 5, 8)])
def test_dormancy(shape):
    h = activations(shape)
    for signed in (h, -h):
        np.testing.assert_allclose(ne_jax.dormancy(jnp.asarray(signed)), scores(h), rtol=1e-6)
    for tau in (0.0, 0.1, 0.7):
        np.testing.assert_array_equal(ne_jax.dormant(jnp.asarray(h), tau), scores(h) <= tau)


def test_silent_layer_is_dormant_throughout():
    h = jnp.zeros((4, 3, 3, 5))
    np.testing.assert_array_equal(ne_jax.dormancy(h), np.zeros(5))
    assert ne_jax.dormant(h).all() and ne_jax.dormant_ratio({"a": h}) == 1 and ne_jax.fau({"a": h}) == 0


def test_dormant_ratio_counts_units_of_all_layers():
    layers = {"conv": activations((3, 4, 4, 8)), "dense": activations((16, 40), 1)}
    for tau in (0.0, 0.025, 0.5):
        flags = np.concatenate([scores(h) <= tau for h in layers.values()])
        ours = ne_jax.dormant_ratio({k: jnp.asarray(h) for k, h in layers.items()}, tau)
        np.testing.assert_allclose(ours, flags.mean(), rtol=1e-6)
    assert 4 / 48 < flags.mean() < 1


def test_fau_counts_samples_and_units():
    layers = {"conv": activations((3, 4, 4, 8)), "dense": activations((16, 40), 1) - 0.1}
    positive = np.concatenate([(h > 0).ravel() for h in layers.values()])
    ours = ne_jax.fau({k: jnp.asarray(h) for k, h in layers.items()})
    np.testing.assert_allclose(ours, positive.mean(dtype=np.float64), rtol=1e-6)


def test_fau_is_not_the_share_of_living_units():
    h = {"a": jnp.array([[1.0, 0.0], [0.0, 1.0]])}
    assert ne_jax.fau(h) == 0.5 and ne_jax.dormant_ratio(h) == 0


def test_shares_by_layer():
    layers = {"conv": activations((3, 4, 4, 8)), "dense": activations((16, 40), 1) - 0.1}
    ours = {k: jnp.asarray(h) for k, h in layers.items()}
    for tau in (0.0, 0.5):
        ratios = ne_jax.dormant_ratio_by_layer(ours, tau)
        assert set(ratios) == {"conv", "dense", "all"} and ratios["all"] == ne_jax.dormant_ratio(ours, tau)
        for name, h in layers.items():
            np.testing.assert_allclose(ratios[name], (scores(h) <= tau).mean(), rtol=1e-6)
    shares = ne_jax.fau_by_layer(ours)
    assert set(shares) == {"conv", "dense", "all"} and shares["all"] == ne_jax.fau(ours)
    for name, h in layers.items():
        np.testing.assert_allclose(shares[name], sum(x > 0 for x in h.ravel().tolist()) / h.size, rtol=1e-6)


def gradient_scores(gradient):
    """GraMa by its definition, unit after unit."""
    units = np.moveaxis(np.asarray(gradient, np.float64), -1, 0).reshape(gradient.shape[-1], -1)
    means = [sum(map(abs, unit)) / len(unit) for unit in units.tolist()]
    return np.array([mean / (sum(means) / len(means)) for mean in means])


def test_gradient_activity():
    rng = np.random.default_rng(0)
    layers = {"conv": (3, 3, 4, 8), "dense": (16, 40)}
    gradients = {k: (rng.normal(size=s) * 10 ** rng.uniform(-2, 2, s[-1])).astype("float32") for k, s in layers.items()}
    gradients["dense"][:, 5:8] = 0
    expected = {k: gradient_scores(g) for k, g in gradients.items()}
    for name, gradient in gradients.items():
        np.testing.assert_allclose(ne_jax.gradient_activity(jnp.asarray(gradient)), expected[name], rtol=1e-6)
    arrays = jax.tree.map(jnp.asarray, gradients)
    for tau in (0.0, 0.02, 0.5):
        below = np.concatenate([score <= tau for score in expected.values()])
        np.testing.assert_allclose(ne_jax.gradient_dormant_ratio(arrays, tau), below.mean(), rtol=1e-6)
        assert 3 / 48 <= below.mean() < 1


def test_gradient_activity_without_gradient():
    np.testing.assert_array_equal(ne_jax.gradient_activity(jnp.zeros((3, 3, 2, 5))), np.zeros(5))
    assert ne_jax.gradient_dormant_ratio({"a": jnp.zeros((4, 5)), "b": jnp.ones((4, 15))}) == 0.25


def test_gradient_reaches_no_unit_that_never_fires():
    params = random_params(Net(), X)
    first = params["params"]["hidden_0"]["dense"]
    first["bias"][3] = -100
    silent = ~(relu_layer(X, first) > 0).any(axis=0)
    assert silent[3] and not silent.all()
    gradient = jax.jit(jax.grad(lambda p: cast(Any, Net().apply(p, X)).sum()))(params)
    score = ne_jax.gradient_activity(gradient["params"]["hidden_0"]["dense"]["kernel"])
    np.testing.assert_array_equal(score == 0, silent)


class Plain(nn.Module):
    @nn.compact
    def __call__(self, x):
        for width in (4, 3):
            x = nn.relu(nn.Dense(width, name=f"layer_{width}")(x))
        return nn.Dense(2, name="head")(x)


def relu_layer(x, layer):
    return np.maximum(np.asarray(x, np.float64) @ np.asarray(layer["kernel"], np.float64) + layer["bias"], 0)


@pytest.mark.parametrize("batch", [X, (X,)], ids=["array", "tuple"])
def test_sown_activations(batch):
    params = random_params(Net(), X)
    found = ne_jax.flax_activity(Net().apply)(params, batch)
    first = relu_layer(X, params["params"]["hidden_0"]["dense"])
    second = relu_layer(first, params["params"]["hidden_1"]["dense"])
    assert set(found) == {"hidden_0", "hidden_1"}
    np.testing.assert_allclose(found["hidden_0"], first, atol=1e-5)
    np.testing.assert_allclose(found["hidden_1"], second, atol=1e-5)
    assert ne_jax.units_of(FIRST, found) is found["hidden_0"] and ne_jax.units_of(SECOND, found) is found["hidden_1"]


def test_captured_activations():
    params = random_params(Plain(), X)["params"]  # bare parameters do as well
    found = ne_jax.flax_activity(Plain().apply, activation=jax.nn.relu)(params, X)
    first = relu_layer(X, params["layer_4"])
    assert set(found) == {"layer_4", "layer_3", "head"}
    np.testing.assert_allclose(found["layer_4"], first, atol=1e-5)
    np.testing.assert_allclose(found["layer_3"], relu_layer(first, params["layer_3"]), atol=1e-5)


class Block(nn.Module):
    """A module whose output is that of the dense layer inside it."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(4, name="dense")(x)


class NormedNet(nn.Module):
    """A norm between dense layers and ReLUs: directly, around a block, twice, and one before a layer."""

    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm(name="first")(x)
        x = nn.relu(nn.LayerNorm(name="norm_0")(nn.Dense(4, name="layer_0")(x)))
        x = nn.relu(nn.RMSNorm(name="norm_1")(Block(name="block")(x)))
        x = nn.relu(nn.LayerNorm(name="norm_3")(nn.LayerNorm(name="norm_2")(nn.Dense(4, name="layer_1")(x))))
        return nn.Dense(2, name="head")(x)


@pytest.mark.parametrize("how", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_captured_activations_behind_a_norm(how):
    """Against the layers by hand, in float64."""
    params = random_params(NormedNet(), X)["params"]
    found = how(ne_jax.flax_activity(NormedNet().apply, activation=jax.nn.relu))(params, X)
    assert set(found) == {"first", "layer_0", "block", "block/dense", "layer_1", "head"}

    def dense(x, layer):
        return x @ np.asarray(layer["kernel"], np.float64) + layer["bias"]

    def layer_norm(x, norm):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return x * norm["scale"] + norm["bias"]

    h = layer_norm(np.asarray(X, np.float64), params["first"])
    expected = np.maximum(layer_norm(dense(h, params["layer_0"]), params["norm_0"]), 0)
    np.testing.assert_allclose(found["layer_0"], expected, rtol=1e-4, atol=1e-5)
    h = dense(expected, params["block"]["dense"])
    expected = np.maximum(h / np.sqrt((h**2).mean(-1, keepdims=True) + 1e-6) * params["norm_1"]["scale"], 0)
    for module in ("block", "block/dense"):
        np.testing.assert_allclose(found[module], expected, rtol=1e-4, atol=1e-5)
    assert ne_jax.units_of("block/dense/kernel", found) is found["block/dense"]
    twice = layer_norm(layer_norm(dense(expected, params["layer_1"]), params["norm_2"]), params["norm_3"])
    np.testing.assert_allclose(found["layer_1"], np.maximum(twice, 0), rtol=1e-4, atol=1e-5)


class Twice(nn.Module):
    @nn.compact
    def __call__(self, x, action):
        return Net(name="critic")(jnp.concatenate([x, action], -1))


def test_activations_of_nested_modules_with_two_inputs():
    inputs = (X, jnp.ones((7, 2)))
    params = random_params(Twice(), *inputs)
    found = ne_jax.flax_activity(Twice().apply)(params, inputs)
    assert set(found) == {"critic/hidden_0", "critic/hidden_1"}
    first = relu_layer(np.concatenate(inputs, -1), params["params"]["critic"]["hidden_0"]["dense"])
    np.testing.assert_allclose(found["critic/hidden_0"], first, atol=1e-5)


def test_network_that_sows_nothing():
    with pytest.raises(ValueError, match="sows no `activation`"):
        ne_jax.flax_activity(Plain().apply)(random_params(Plain(), X), X)


def test_units_of_takes_the_innermost_module():
    layers = {name: jnp.full((1, 1), i) for i, name in enumerate(["critic", "critic/q", "critic/q/hidden_1", "actor"])}
    for path, module in {
        "params/critic/q/hidden_1/dense/kernel": "critic/q/hidden_1",
        "params/critic/q/hidden_10/kernel": "critic/q",
        "critic/kernel": "critic",
        "params/actor/head/kernel": "actor",
    }.items():
        assert ne_jax.units_of(path, layers) is layers[module], path
    assert ne_jax.units_of("params/critics/q/kernel", layers) is None
    assert ne_jax.units_of("params/encoder/kernel", {}) is None


def test_units_of_wants_the_whole_path():
    """Another network's layer of the same name is another layer."""
    layers = {"hidden_0": jnp.ones((1, 1))}
    assert ne_jax.units_of("params/hidden_0/kernel", layers) is layers["hidden_0"]
    assert ne_jax.units_of("params/target/hidden_0/kernel", layers) is None


KINDS = {"dd": ("dense", "dense"), "cc": ("conv", "conv"), "cd": ("conv", "dense")}


class Gated(nn.Module):
    """Two layers with a gate on each unit of the first, to switch them on one by one."""

    kind: str

    @nn.compact
    def __call__(self, x, gate):
        layers = {"dense": nn.Dense, "conv": lambda n, **kw: nn.Conv(n, (3, 2), **kw)}
        first, second = KINDS[self.kind]
        h = layers[first](5, name="first")(x)
        h = (jnp.abs(h) + 0.1) * gate  # never zero but where the gate is
        if first != second:
            h = h.reshape(h.shape[0], -1)
        return h, layers[second](3, name="second")(h)


GATED = {"dd": (4, 6), "cc": (2, 4, 6, 2), "cd": (2, 4, 6, 2)}


@pytest.mark.parametrize("kind, shape", GATED.items(), ids=GATED)
def test_outgoing_weights_are_those_that_carry_a_unit(kind, shape):
    """With only some units switched on, the output depends on exactly the weights that lead out of them."""
    x, net = np.random.default_rng(0).normal(size=shape).astype(np.float32), Gated(kind)
    params, apply = random_params(net, x, jnp.ones(5)), cast(Any, net.apply)

    @jax.jit
    def effect(gate):
        return jax.grad(lambda p: apply(p, x, gate)[1].sum())(params)["params"]["second"]["kernel"]

    for flags in [*np.eye(5, dtype=bool), np.array([1, 0, 0, 1, 0], bool), np.ones(5, bool), np.zeros(5, bool)]:
        changed = np.asarray(effect(flags.astype(np.float32))) != 0
        np.testing.assert_array_equal(ne_jax.outgoing(jnp.asarray(flags), changed.shape), changed)


@pytest.mark.parametrize("kind, shape", GATED.items(), ids=GATED)
def test_incoming_weights_are_those_that_move_a_unit(kind, shape):
    x, net = np.random.default_rng(0).normal(size=shape).astype(np.float32), Gated(kind)
    params, apply = random_params(net, x, jnp.ones(5)), cast(Any, net.apply)

    @jax.jit
    def effect(gate):
        return jax.grad(lambda p: apply(p, x, gate)[0].sum())(params)["params"]["first"]["kernel"]

    for flags in [*np.eye(5, dtype=bool), np.array([0, 1, 1, 0, 0], bool)]:
        changed = np.asarray(effect(flags.astype(np.float32))) != 0
        np.testing.assert_array_equal(ne_jax.incoming(jnp.asarray(flags), changed.shape), changed)


class Normed(nn.Module):
    """Two layers with a LayerNorm between, and nudges to the units of the first before and after it."""

    kind: str

    @nn.compact
    def __call__(self, x, before, after):
        layers = {"dense": nn.Dense, "conv": lambda n, **kw: nn.Conv(n, (3, 2), **kw)}
        first, second = KINDS[self.kind]
        h = nn.LayerNorm()(layers[first](5, name="first")(x) + before)
        h = nn.relu(h) + after
        if first != second:
            h = h.reshape(h.shape[0], -1)
        return layers[second](3, name="second")(h)


@pytest.mark.parametrize("kind, shape", GATED.items(), ids=GATED)
def test_outgoing_weights_behind_a_norm(kind, shape):
    """The next layer reads units behind the norm: without their outgoing weights it does not hear of them at all, and
    with no other weights it hears all of it. Before the norm a unit moves its neighbours as well."""
    x, net, still = np.random.default_rng(0).normal(size=shape).astype(np.float32), Normed(kind), np.zeros(5, "float32")
    params = random_params(net, x, still, still)
    kernel = params["params"]["second"]["kernel"]

    @jax.jit
    def output(kernel, before, after):
        second = {**params["params"]["second"], "kernel": kernel}
        return net.apply({"params": {**params["params"], "second": second}}, x, before, after)

    for flags in [*np.eye(5, dtype=bool), np.array([1, 0, 0, 1, 0], bool)]:
        leads_on, nudge = np.asarray(ne_jax.outgoing(jnp.asarray(flags), kernel.shape)), flags.astype(np.float32)
        without, alone = np.where(leads_on, 0, kernel), np.where(leads_on, kernel, 0)
        np.testing.assert_array_equal(output(without, still, nudge), output(without, still, still))
        effect = output(kernel, still, nudge) - output(kernel, still, still)
        np.testing.assert_allclose(output(alone, still, nudge) - output(alone, still, still), effect, atol=1e-5)
        assert np.abs(effect).min() > 1e-3
        assert np.abs(output(without, nudge, still) - output(without, still, still)).max() > 1e-3


def test_flattened_channels_vary_fastest():
    flags = jnp.array([True, False, False])
    rows = np.asarray(ne_jax.outgoing(flags, (2 * 2 * 3, 4)))[:, 0]
    assert rows.tolist() == [True, False, False] * 4


def test_kernels_of_the_wrong_shape():
    with pytest.raises(ValueError, match="does not lead into 3 units"):
        ne_jax.incoming(jnp.ones(3, bool), (3, 4))
    for shape in ((4, 3), (2, 9), (3, 3, 4, 3)):
        with pytest.raises(ValueError, match="does not take the output of 3 units"):
            ne_jax.outgoing(jnp.ones(3, bool), shape)
