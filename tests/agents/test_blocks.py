"""The encoder in blocks, and Winograd's convolution, against XLA's: values and gradients."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents import blocks, winograd
from agents.encoder import Encoder, VisionSettings, make_encoder

equal = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def convolution(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def encoders(channels, strides) -> tuple[Any, Any]:
    """By XLA's convolution, and in blocks."""
    return Encoder(channels, strides), Encoder(channels, strides, im2col=True, blocks=True)


def all_of_winograd(x, kernel, gradient):
    """The output, and the gradients of both inputs."""
    transformed = winograd.transform_kernel(kernel)
    of_x, of_kernel = winograd.backward(x, transformed, gradient)
    return winograd.forward(x, transformed), of_x, winograd.kernel_gradient(of_kernel)


@pytest.mark.parametrize(("height", "width"), [(3, 3), (4, 7), (9, 6)])
def test_winograd_and_its_gradients_equal_xla(height, width):
    x, kernel = normal(2, height, width, 3), normal(3, 3, 3, 5, seed=1)
    gradient = normal(2, height - 2, width - 2, 5, seed=2)
    out, transpose = jax.vjp(convolution, x, kernel)
    ours, of_x, of_kernel = jax.jit(all_of_winograd)(x, kernel, gradient)
    equal(ours, out)
    jax.tree.map(equal, (of_x, of_kernel), transpose(gradient))


@pytest.mark.parametrize(
    ("over", "strides"), [("vmap", (1, 2, 1)), ("map", (1, 2, 1)), ("solo", (1, 2, 1)), ("solo", (3, 2))]
)
def test_encoder_in_blocks_equals_xla(monkeypatch, over, strides):
    """The first has all three kinds of layers: Winograd's from pixels, one of patches, and a small one of stride 1."""
    side, channels = 21, 4
    two = 2 * 4 * 9 * 3 * blocks.conv_size(side, strides[0]) * blocks.conv_size(side + 3, strides[0])
    monkeypatch.setattr(blocks, "BLOCK_BYTES", two)  # six images in three blocks
    pixels = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 6, side, side + 3, 3)), jnp.uint8)
    plain, ours = encoders(channels, strides)
    params = jax.tree.map(lambda *each: jnp.stack(each), *(plain.init(jax.random.key(i), pixels[0]) for i in range(2)))
    params = jax.tree.map(lambda leaf: leaf + 0.1 * normal(*leaf.shape, seed=3), params)
    weight = normal(2, *plain.apply(jax.tree.map(lambda leaf: leaf[0], params), pixels[0]).shape, seed=4) / 10

    def features_and_gradient(encoder, params, pixels, weight):
        def loss(params):
            features = encoder.apply(params, pixels)
            return (features * weight).sum(), features

        return jax.grad(loss, has_aux=True)(params)

    def run(encoder):
        one = functools.partial(features_and_gradient, encoder)
        if over == "vmap":
            return jax.jit(jax.vmap(one))(params, pixels, weight)
        if over == "map":
            return jax.jit(lambda *each: jax.lax.map(lambda lane: one(*lane), each))(params, pixels, weight)
        return jax.jit(one)(*jax.tree.map(lambda leaf: leaf[0], (params, pixels, weight)))

    jax.tree.map(equal, run(ours), run(plain))


def test_a_batch_that_no_block_divides_goes_image_by_image(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 4 * 4 * 9 * 3 * 9 * 9)  # four images, of a batch of five
    pixels = jnp.asarray(np.random.default_rng(0).integers(0, 256, (5, 11, 11, 3)), jnp.uint8)
    plain, ours = encoders(4, (1,))
    params = plain.init(jax.random.key(0), pixels)
    equal(ours.apply(params, pixels), plain.apply(params, pixels))


def test_patches_of_one_block_at_a_time():
    """No array of the forward or backward pass is as large as the patches of a batch."""
    encoder: Any = make_encoder(VisionSettings(conv="blocks", channels=8, strides=(2, 1)), (84, 84, 9))
    pixels = jnp.zeros((64, 84, 84, 9), jnp.uint8)
    params = encoder.init(jax.random.key(0), pixels[:1])
    compiled: Any = jax.jit(jax.grad(lambda params: encoder.apply(params, pixels).sum())).lower(params).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * 64 * 41 * 41 * 81


def test_auto_is_blocks_on_a_cpu():
    assert make_encoder(VisionSettings(), (40, 40, 9)).blocks == (jax.default_backend() == "cpu")
    assert not make_encoder(VisionSettings(conv="im2col"), (40, 40, 9)).blocks


def test_activations_are_sown_also_from_blocks():
    encoder: Any = make_encoder(VisionSettings(conv="blocks", channels=4, strides=(2, 1)), (20, 20, 9))
    pixels = jnp.ones((2, 20, 20, 9), jnp.uint8)
    params = encoder.init(jax.random.key(0), pixels)
    features, sown = encoder.apply({"params": params["params"]}, pixels, mutable=["intermediates"])
    assert set(sown["intermediates"]) == {"conv_0", "conv_1"}
    equal(features, encoder.apply(params, pixels))
