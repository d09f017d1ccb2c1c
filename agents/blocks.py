"""The encoder's convolutions for a CPU: a few images at a time, through all layers, with a backward pass of its own.

What the layers of a few images need stays in a core's cache, where the patches of a whole batch are gigabytes that go
to memory and back. Forward, the activations of each layer are kept; backward, patches and tiles are made from them
anew, block by block, and the gradients of the weights are summed over the blocks. Large layers of stride 1 go by
`winograd`, others as one matrix product of patches. docs/performance.md says what was measured, tried and left.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped, UInt8

from agents import winograd

BLOCK_BYTES = 5 * 2**18
"""Of the largest layer's patches in a block: what fits a core's second-level cache, more or less."""
WINOGRAD_FROM = 16
"""Width of the output from which Winograd's transforms pay for themselves."""

Pixels = UInt8[Array, "batch height width channels"]
Images = Float[Array, "batch height width channels"]


class Layer(NamedTuple):
    """A convolution's parameters; in a block, the kernel is what `_prepare` makes of it."""

    kernel: Float[Array, "..."]
    bias: Float[Array, " features"]


def conv_size(size: int, stride: int) -> int:
    """Width of the output of a 3x3 convolution without padding for an input of `size` pixels."""
    return (size - 3) // stride + 1


def patches(
    x: Shaped[Array, "batch height width channels"], stride: int
) -> Shaped[Array, "batch height2 width2 patch"]:
    """What a 3x3 kernel sees at each place, side by side (im2col): a convolution becomes one matrix product."""
    height, width = (conv_size(n, stride) for n in x.shape[1:3])
    taps = [
        x[:, i : i + stride * (height - 1) + 1 : stride, j : j + stride * (width - 1) + 1 : stride]
        for i in range(3)
        for j in range(3)
    ]
    return jnp.concatenate(taps, axis=-1)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def encode(strides: tuple[int, ...], pixels: Pixels, layers: tuple[Layer, ...]) -> Images:
    """3x3 convolutions without padding, each with a ReLU behind it, of pixels scaled to [-0.5, 0.5]."""
    return _forward(strides, pixels, layers)[-1]


def scale(pixels: UInt8[Array, "..."]) -> Float[Array, "..."]:
    """Pixels as the first layer sees them, in [-0.5, 0.5]."""
    return pixels.astype(jnp.float32) / 255 - 0.5


def _forward(strides: tuple[int, ...], pixels: Array, layers: tuple[Layer, ...]) -> list[Images]:
    """The activations of each layer."""
    sizes = _sizes(strides, pixels.shape)
    blocks = _split(_block(strides, pixels.shape), pixels)
    prepared = _prepare(strides, sizes, layers)
    activations = jax.lax.map(partial(_forward_block, strides, prepared), blocks)
    return [jax.lax.collapse(each, 0, 2) for each in activations]


def _forward_block(strides: tuple[int, ...], layers: list[Layer], pixels: Array) -> list[Images]:
    x, activations = pixels, []
    for stride, (kernel, bias) in zip(strides, layers):
        if _by_winograd(kernel):
            out = winograd.forward(_floats(x), kernel)
        else:
            out = _floats(patches(x, stride)) @ kernel.reshape(-1, kernel.shape[-1])
        x = jax.nn.relu(out + bias)
        activations.append(x)
    return activations


def _floats(x: Array) -> Array:
    """A layer's input, or its patches: of pixels, bytes are moved and then scaled, a quarter of the traffic."""
    return scale(x) if x.dtype == jnp.uint8 else x


def _encode_fwd(strides: tuple[int, ...], pixels: Array, layers: tuple[Layer, ...]):
    activations = _forward(strides, pixels, layers)
    return activations[-1], (pixels, layers, activations)


def _encode_bwd(strides: tuple[int, ...], kept: tuple, gradient: Images):
    pixels, layers, activations = kept
    prepared = _prepare(strides, _sizes(strides, pixels.shape), layers)
    blocks = jax.tree.map(partial(_split, _block(strides, pixels.shape)), (pixels, activations, gradient))
    zeros = jax.tree.map(jnp.zeros_like, prepared)
    total, _ = jax.lax.scan(partial(_backward_block, strides, prepared), zeros, blocks)
    found = [
        Layer(winograd.kernel_gradient(each.kernel) if _by_winograd(each.kernel) else each.kernel, each.bias)
        for each in total
    ]
    return None, tuple(found)


encode.defvjp(_encode_fwd, _encode_bwd)


def _backward_block(
    strides: tuple[int, ...], layers: list[Layer], total: list[Layer], block: tuple[Array, list[Images], Images]
) -> tuple[list[Layer], None]:
    """`total`, the gradients of the layers so far, with those of a block added."""
    pixels, activations, gradient = block
    inputs = [pixels, *activations[:-1]]
    found = []
    for i in reversed(range(len(layers))):
        gradient = jnp.where(activations[i] > 0, gradient, 0)
        bias = gradient.sum((0, 1, 2))
        gradient, kernel = _backward_layer(inputs[i], layers[i].kernel, gradient, strides[i])
        found.append(Layer(kernel, bias))
    return jax.tree.map(jnp.add, total, found[::-1]), None


def _backward_layer(x: Array, kernel: Array, gradient: Images, stride: int) -> tuple[Images, Array]:
    """The gradients of a layer's input and kernel; nobody asks for that of the pixels, which come back as they are."""
    if _by_winograd(kernel):
        return winograd.backward(_floats(x), kernel, gradient)
    features = kernel.shape[-1]
    of_kernel = jnp.einsum("bhwp,bhwf->pf", _floats(patches(x, stride)), gradient).reshape(kernel.shape)
    if x.dtype == jnp.uint8:
        return x, of_kernel
    of_patches = gradient @ kernel.reshape(-1, features).T
    (of_input,) = jax.linear_transpose(partial(patches, stride=stride), x)(of_patches)
    return of_input, of_kernel


def _prepare(strides: tuple[int, ...], sizes: list[int], layers: tuple[Layer, ...]) -> list[Layer]:
    """Kernels as the blocks take them: transformed where Winograd's way pays."""
    return [
        Layer(winograd.transform_kernel(kernel), bias) if stride == 1 and size >= WINOGRAD_FROM else Layer(kernel, bias)
        for stride, size, (kernel, bias) in zip(strides, sizes, layers)
    ]


def _by_winograd(kernel: Array) -> bool:
    return kernel.ndim == 3


def _sizes(strides: tuple[int, ...], shape: tuple[int, ...]) -> list[int]:
    """Of each layer's output, the shorter side."""
    size, sizes = min(shape[1:3]), []
    for stride in strides:
        size = conv_size(size, stride)
        sizes.append(size)
    return sizes


def _block(strides: tuple[int, ...], shape: tuple[int, ...]) -> int:
    """Images in a block: as many as fit the cache, and divide the batch."""
    batch, height, width, channels = shape
    pixels = conv_size(height, strides[0]) * conv_size(width, strides[0])
    most = max(1, BLOCK_BYTES // (4 * 9 * channels * pixels))
    return max(size for size in range(1, min(most, batch) + 1) if batch % size == 0)


def _split(block: int, x: Array) -> Array:
    return x.reshape(-1, block, *x.shape[1:])
