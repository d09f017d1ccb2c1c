"""Networks against plain numpy and XLA's own convolution, and against the published architecture's shapes and sizes."""

import functools
import itertools
import re
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ne_jax
from agents.encoder import Conv, Encoder, encoded_size
from agents.layers import MLP, Hidden, Injectable, Projection
from agents.networks import Actor, Critic


def run(network: nn.Module, params: Any, *inputs: Any) -> Any:
    return network.apply(params, *map(jnp.asarray, inputs))


def convolve(x, kernel, bias, stride):
    """3x3 convolution and ReLU, one output pixel after another."""
    rows, columns = (range(0, n - 2, stride) for n in x.shape[1:3])
    out = [[np.einsum("bijc,ijcf->bf", x[:, r : r + 3, c : c + 3], kernel) for c in columns] for r in rows]
    return np.maximum(np.moveaxis(np.array(out), 2, 0) + bias, 0)


def conv_inputs(height, width, seed=0):
    rng = np.random.default_rng(seed)
    shapes = ((2, height, width, 3), (3, 3, 3, 4), (4,))
    x, kernel, bias = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
    return {"params": {"kernel": kernel, "bias": bias}}, x


@pytest.mark.parametrize("im2col", [False, True])
@pytest.mark.parametrize(("height", "width", "stride"), [(7, 10, 1), (7, 10, 2), (8, 9, 2), (3, 4, 2), (5, 3, 1)])
def test_conv_equals_numpy(height, width, stride, im2col):
    params, x = conv_inputs(height, width)
    h = run(Conv(4, stride, im2col), params, x)
    np.testing.assert_allclose(h, convolve(x, **params["params"], stride=stride), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("over", ["solo", "vmap", "map"])
def test_im2col_and_its_gradient_equal_xla(over, stride):
    params, x = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(conv_inputs(7, 10, seed) for seed in range(2)))
    weight = np.random.default_rng(9).normal(size=(2, *run(Conv(4, stride), *conv_inputs(7, 10)).shape))

    def lanes(im2col):
        def loss(params, x, weight):
            h = run(Conv(4, stride, im2col), params, x)
            return (h * weight).sum(), h

        grad = jax.grad(loss, argnums=(0, 1), has_aux=True)
        if over == "vmap":
            return jax.jit(jax.vmap(grad))(params, x, weight)
        if over == "map":
            return jax.jit(lambda *each: jax.lax.map(lambda lane: grad(*lane), each))(params, x, weight)
        return jax.jit(grad)(*jax.tree.map(lambda leaf: leaf[0], (params, x, weight)))

    equal = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
    jax.tree.map(equal, lanes(True), lanes(False))


def test_encoder_of_drq_v2_gives_35_by_35_by_32_features():
    pixels = jnp.zeros((2, 84, 84, 9), jnp.uint8)
    for im2col in (False, True):
        features, params = jax.eval_shape(functools.partial(Encoder(im2col=im2col).init_with_output), KEY, pixels)
        assert features.shape == (2, 35 * 35 * 32) and features.dtype == jnp.float32
        assert size(params) == (9 * 9 * 32 + 32) + 3 * (9 * 32 * 32 + 32)
    assert encoded_size(84, (2, 1, 1, 1)) == 35


def test_actor_and_critic_have_the_published_number_of_parameters():
    """DrQ-v2 for walker: 6 actions, features 39200 -> 50, hidden layers of 1024; LayerNorm has a scale and a bias."""
    features, action, hidden = jnp.zeros((1, 39_200)), jnp.zeros((1, 6)), (1024, 1024)
    trunk = 39_200 * 50 + 50 + 2 * 50
    actor = jax.eval_shape(Actor(hidden, 6, 50).init, KEY, features)
    critic = jax.eval_shape(Critic(hidden, 50).init, KEY, features, action)
    assert size(actor) == trunk + (50 * 1024 + 1024) + (1024 * 1024 + 1024) + (1024 * 6 + 6)
    assert size(critic) == trunk + 2 * ((56 * 1024 + 1024) + (1024 * 1024 + 1024) + (1024 + 1))


def test_names_of_parameters():
    actor, critic = small_params()[1:]
    dense, norm = ("bias", "kernel"), ("bias", "scale")
    trunk = {f"projection/dense/{leaf}" for leaf in dense} | {f"projection/norm/{leaf}" for leaf in norm}
    layers = ("hidden_0/dense", "hidden_1/dense", "head")
    assert set(actor) == trunk | {f"policy/{layer}/{leaf}" for layer in layers for leaf in dense}
    assert set(critic) == trunk | {f"{q}/{layer}/{leaf}" for q in ("q1", "q2") for layer in layers for leaf in dense}
    assert set(small_params()[0]) == {f"conv_{i}/{leaf}" for i in range(2) for leaf in dense}


def test_weights_start_orthogonal_and_biases_zero():
    for params in small_params():
        for path, leaf in params.items():
            if path.endswith("kernel"):
                # As a matrix to the outputs, the shorter side is orthonormal; convolutions have the gain of a ReLU.
                matrix, gain = leaf.reshape(-1, leaf.shape[-1]), 2 if "conv" in path else 1
                square = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
                np.testing.assert_allclose(square, gain * np.eye(len(square)), atol=1e-5)
            else:
                np.testing.assert_array_equal(leaf, 1 if path.endswith("scale") else 0)


@functools.cache
def uniform_params():
    """Of an actor and a critic without projection and with LayerNorm, by path; wide enough to judge the spread."""
    features, action = jnp.zeros((1, 150)), jnp.zeros((1, 6))
    trees = jax.jit(
        lambda key: (
            Actor((200, 120), 40, None, "uniform", layer_norm=True).init(key, features),
            Critic((200, 120), None, "uniform", layer_norm=True).init(key, features, action),
        ),
        compiler_options={"xla_backend_optimization_level": 0},
    )(KEY)
    return [{path: np.asarray(leaf) for path, leaf in ne_jax.leaves_by_path(tree["params"]).items()} for tree in trees]


def test_uniform_weights_and_biases_fill_the_range_that_the_inputs_give():
    for params, inputs in zip(uniform_params(), (150, 156), strict=True):
        kernels = {path.removesuffix("/kernel"): leaf for path, leaf in params.items() if path.endswith("kernel")}
        for layer, kernel in kernels.items():
            fan_in = {"hidden_0": inputs, "hidden_1": 200, "head": 120}[layer.split("/")[1]]
            assert kernel.shape[0] == fan_in
            for leaf in (kernel, params[f"{layer}/bias"]):
                scaled = leaf.ravel() * np.sqrt(fan_in)
                assert 0 < np.abs(scaled).max() <= 1 + 1e-6
                if scaled.size > 1:  # the critic's head has one bias
                    error = 3 / np.sqrt(scaled.size)  # several deviations of either statistic
                    assert abs(scaled.mean()) < error and abs(scaled.std() - 1 / np.sqrt(3)) < error / 2
            counts = np.histogram(kernel * np.sqrt(fan_in), 8, (-1, 1))[0] * 8 / kernel.size
            assert np.abs(counts - 1).max() < 12 / np.sqrt(kernel.size)


def test_without_projection_the_first_layer_sees_the_features_themselves():
    features, action = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
    layers = ("hidden_0/dense", "head")
    for network, inputs, names in (
        (Actor((7,), 3, None), (features,), ("policy",)),
        (Critic((7,), None), (features, action), ("q1", "q2")),
    ):
        params = network.init(KEY, *map(jnp.asarray, inputs))["params"]
        paths = ne_jax.leaves_by_path(params)
        assert set(paths) == {f"{n}/{layer}/{leaf}" for n in names for layer in layers for leaf in ("kernel", "bias")}
        expected = [mlp(paths, name, np.concatenate(inputs, axis=1)) for name in names]
        expected = np.tanh(expected[0]) if names == ("policy",) else np.stack(expected)[:, :, 0]
        np.testing.assert_allclose(run(network, {"params": params}, *inputs), expected, rtol=1e-5, atol=1e-6)


def mlp(paths, name, x):
    """One hidden layer and the head, in numpy, with LayerNorm before the ReLU where its parameters are."""
    h = x @ np.asarray(paths[f"{name}/hidden_0/dense/kernel"]) + paths[f"{name}/hidden_0/dense/bias"]
    if f"{name}/hidden_0/norm/scale" in paths:
        h = (h - h.mean(1, keepdims=True)) / np.sqrt(h.var(1, keepdims=True) + 1e-5)
        h = h * paths[f"{name}/hidden_0/norm/scale"] + paths[f"{name}/hidden_0/norm/bias"]
    return np.maximum(h, 0) @ paths[f"{name}/head/kernel"] + paths[f"{name}/head/bias"]


def test_layer_norm_comes_between_the_dense_layer_and_its_relu():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 4)).astype(np.float32)
    for layer_norm in (False, True):
        network = MLP((7,), 3, "uniform", layer_norm)
        params = {"params": network.init(KEY, jnp.asarray(x))["params"]}
        params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), params)
        out, sown = cast(Any, network.apply(params, jnp.asarray(x), mutable="intermediates"))
        paths = {f"net/{path}": np.asarray(leaf) for path, leaf in ne_jax.leaves_by_path(params["params"]).items()}
        assert ("net/hidden_0/norm/scale" in paths) == layer_norm and "net/head/norm/scale" not in paths
        np.testing.assert_allclose(out, mlp(paths, "net", x), rtol=1e-4, atol=1e-5)
        [units] = sown["intermediates"]["hidden_0"]["activation"]
        assert units.min() == 0 < units.max(), "what is sown is what comes out of the ReLU"


def test_layer_norm_starts_as_plain_normalisation():
    for params in uniform_params():
        norms = {path: leaf for path, leaf in params.items() if "/norm/" in path}
        assert {path.split("/")[1] for path in norms} == {"hidden_0", "hidden_1"}
        for path, leaf in norms.items():
            np.testing.assert_array_equal(leaf, 1 if path.endswith("scale") else 0)


def test_the_twins_start_different():
    critic = small_params()[2]
    assert not np.allclose(critic["q1/hidden_0/dense/kernel"], critic["q2/hidden_0/dense/kernel"])


def test_smallest_image_is_told_and_right():
    for strides in itertools.product((1, 2, 3), repeat=3):
        sizes = {size: windows(size, strides) for size in range(1, 60)}
        smallest = min(size for size, out in sizes.items() if out)
        for size, out in sizes.items():
            if out:
                assert encoded_size(size, strides) == out
                continue
            with pytest.raises(ValueError, match=f"env.image_size={size} is too small.*{re.escape(str(strides))}") as e:
                encoded_size(size, strides)
            assert f"at least {smallest} pixels" in str(e.value)


def windows(size, strides):
    """Places for a 3-pixel window, layer after layer; 0 as soon as there is none."""
    for stride in strides:
        size = len(range(0, size - 2, stride))
    return size


def size(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


@functools.cache
def small_params():
    """Parameters of a small encoder, actor and critic, by path."""
    features, action = jnp.zeros((1, 40)), jnp.zeros((1, 3))
    trees = jax.jit(
        lambda key: (
            Encoder(5, (2, 1)).init(key, jnp.zeros((1, 9, 9, 2), jnp.uint8)),
            Actor((12, 20), 3, 7).init(key, features),
            Critic((12, 20), 7).init(key, features, action),
        ),
        compiler_options={"xla_backend_optimization_level": 0},
    )(KEY)
    return [{path: np.asarray(leaf) for path, leaf in ne_jax.leaves_by_path(tree["params"]).items()} for tree in trees]


KEY = jax.random.key(0)


class _Repeated(nn.Module):
    """An actor, or a critic, as each once wrote its layers down for itself."""

    twins: bool
    injectable: bool
    layer_norm: bool

    @nn.compact
    def __call__(self, features, *action):
        x = Projection(5, "uniform", name="projection")(features)
        x = jnp.concatenate([x, *action], axis=-1)
        mlp = Injectable if self.injectable else MLP
        names, out = (("q1", "q2"), 1) if self.twins else (("policy",), 3)
        return [mlp((6, 4), out, "uniform", self.layer_norm, name=name)(x) for name in names]


@pytest.mark.parametrize("injectable", [False, True])
def test_shared_layers_have_the_paths_and_draws_of_layers_written_down_for_each(injectable):
    features, action = jnp.ones((1, 8)), jnp.ones((1, 2))
    form = (5, "uniform", True, "relu", injectable)
    for network, twins, inputs in (
        (Actor((6, 4), 3, *form), False, (features,)),
        (Critic((6, 4), *form), True, (features, action)),
    ):
        expected = _Repeated(twins, injectable, layer_norm=True).init(KEY, *inputs)
        found = network.init(KEY, *inputs)
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize(
    ("activation", "expected"),
    [("relu", [[0, 3]]), ("leaky_relu", [[-0.02, 3]]), ("crelu", [[0, 3, 2, 0]])],
)
def test_activations_by_hand(activation, expected):
    network = Hidden(2, activation=activation)
    params = {"dense": {"kernel": jnp.eye(2), "bias": jnp.zeros(2)}}
    h, sown = network.apply({"params": params}, jnp.array([[-2.0, 3.0]]), mutable=["intermediates"])
    np.testing.assert_allclose(h, expected)
    np.testing.assert_array_equal(sown["intermediates"]["activation"][0], h)  # pyright: ignore
