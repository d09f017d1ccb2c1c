"""Flax modules shared by the agents."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt8

_orthogonal = nn.initializers.orthogonal


class Conv(nn.Module):
    """A 3x3 convolution without padding and its ReLU, [batch, height, width, in] to
    [batch, height', width', features]; the activations are sown.

    `im2col=True` computes it as strided slices and one matrix product. XLA on CPU runs its own convolution on one
    thread inside any loop or branch, and under `vmap`; the matrix product is immune to both.
    """

    features: int
    stride: int = 1
    im2col: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch height2 width2 features"]:
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", _orthogonal(math.sqrt(2)), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        if self.im2col:
            out = _im2col(x, self.stride) @ kernel.reshape(-1, self.features)
        else:
            strides = (self.stride, self.stride)
            out = jax.lax.conv_general_dilated(x, kernel, strides, "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        h = nn.relu(out + bias)
        self.sow("intermediates", "activation", h)
        return h


def _im2col(x: Float[Array, "batch height width channels"], stride: int) -> Float[Array, "batch h w patch"]:
    height, width = (conv_size(n, stride) for n in x.shape[1:3])
    taps = [
        x[:, i : i + stride * (height - 1) + 1 : stride, j : j + stride * (width - 1) + 1 : stride]
        for i in range(3)
        for j in range(3)
    ]
    return jnp.concatenate(taps, axis=-1)


def conv_size(size: int, stride: int) -> int:
    """Width of the output of `Conv` for an input of `size` pixels."""
    return (size - 3) // stride + 1


def encoded_size(image_size: int, strides: tuple[int, ...]) -> int:
    """Width of the encoder's output. ValueError if the image is too small for it."""
    size = image_size
    for stride in strides:
        if size < 3:
            raise ValueError(
                f"env.image_size={image_size} is too small for an encoder with strides {strides}; "
                f"it needs at least {_smallest_image(strides)} pixels"
            )
        size = conv_size(size, stride)
    return size


def _smallest_image(strides: tuple[int, ...]) -> int:
    size = 1
    for stride in reversed(strides):
        size = (size - 1) * stride + 3
    return size


class Encoder(nn.Module):
    """DrQ-v2's convolutional encoder: uint8 [batch, height, width, channels] to float32 [batch, features]."""

    channels: int = 32
    strides: tuple[int, ...] = (2, 1, 1, 1)
    im2col: bool = False

    @nn.compact
    def __call__(self, pixels: UInt8[Array, "batch height width channels"]) -> Float[Array, "batch features"]:
        x = pixels.astype(jnp.float32) / 255 - 0.5
        for i, stride in enumerate(self.strides):
            x = Conv(self.channels, stride, self.im2col, name=f"conv_{i}")(x)
        return x.reshape(x.shape[0], -1)


Init = Literal["orthogonal", "uniform"]
"""Of dense layers: orthogonal weights and zero biases (DrQ-v2), or both uniform over +-1/sqrt(inputs), as PyTorch
does by default and TD3's published results are made with."""


def dense(features: int, x: Float[Array, "batch in"], init: Init, name: str) -> Float[Array, "batch features"]:
    """A dense layer called `name`, for use inside a compact module."""
    kernel_init, bias_init = _orthogonal(), nn.initializers.zeros
    if init == "uniform":
        bound = 1 / math.sqrt(x.shape[-1])
        kernel_init = bias_init = partial(_uniform, bound)
    return nn.Dense(features, kernel_init=kernel_init, bias_init=bias_init, name=name)(x)


def _uniform(bound: float, key: Key[Array, ""], shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    return jax.random.uniform(key, shape, dtype, -bound, bound)


class Projection(nn.Module):
    """Encoder output to a small feature vector: dense, LayerNorm, tanh."""

    features: int
    init_as: Init = "orthogonal"

    @nn.compact
    def __call__(self, x: Float[Array, "batch in"]) -> Float[Array, "batch features"]:
        x = dense(self.features, x, self.init_as, "dense")
        return jnp.tanh(nn.LayerNorm(epsilon=1e-5, name="norm")(x))


class Hidden(nn.Module):
    """A dense layer, LayerNorm if wanted, and a ReLU, whose activations are sown for those who study units.

    `crelu`: the ReLU of both signs, side by side, so that the output is twice as wide (Shang et al. 2016).
    """

    features: int
    init_as: Init = "orthogonal"
    layer_norm: bool = False
    crelu: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "batch in"]) -> Float[Array, "batch features"]:
        x = dense(self.features, x, self.init_as, "dense")
        if self.layer_norm:
            x = nn.LayerNorm(epsilon=1e-5, name="norm")(x)
        h = nn.relu(jnp.concatenate([x, -x], axis=-1) if self.crelu else x)
        self.sow("intermediates", "activation", h)
        return h


class MLP(nn.Module):
    """Hidden layers named `hidden_0`, `hidden_1`, ... and a linear `head`."""

    hidden: tuple[int, ...]
    out: int
    init_as: Init = "orthogonal"
    layer_norm: bool = False
    crelu: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "batch in"]) -> Float[Array, "batch out"]:
        for i, features in enumerate(self.hidden):
            x = Hidden(features, self.init_as, self.layer_norm, self.crelu, name=f"hidden_{i}")(x)
        return dense(self.out, x, self.init_as, "head")


class Injectable(nn.Module):
    """An MLP with room for plasticity injection (`ne_jax.plasticity_injection`): trunk + fresh - anchor."""

    hidden: tuple[int, ...]
    out: int
    init_as: Init = "orthogonal"
    layer_norm: bool = False
    crelu: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "batch in"]) -> Float[Array, "batch out"]:
        settings = (self.hidden, self.out, self.init_as, self.layer_norm, self.crelu)
        trunk, fresh, anchor = (MLP(*settings, name=name)(x) for name in ("trunk", "fresh", "anchor"))
        return trunk + fresh - anchor


class Actor(nn.Module):
    """Deterministic policy: features to the mean action in (-1, 1). `projection=None` leaves them as they are."""

    hidden: tuple[int, ...]
    actions: int
    projection: int | None
    init_as: Init = "orthogonal"
    layer_norm: bool = False
    crelu: bool = False
    injectable: bool = False

    @nn.compact
    def __call__(self, features: Float[Array, "batch in"]) -> Float[Array, "batch actions"]:
        x = (
            features
            if self.projection is None
            else Projection(self.projection, self.init_as, name="projection")(features)
        )
        mlp = Injectable if self.injectable else MLP
        return jnp.tanh(mlp(self.hidden, self.actions, self.init_as, self.layer_norm, self.crelu, name="policy")(x))


class Critic(nn.Module):
    """Twin action values: features and action to [2, batch]. The projection is shared by the twins, as in DrQ-v2."""

    hidden: tuple[int, ...]
    projection: int | None
    init_as: Init = "orthogonal"
    layer_norm: bool = False
    crelu: bool = False
    injectable: bool = False

    @nn.compact
    def __call__(
        self, features: Float[Array, "batch in"], action: Float[Array, "batch actions"]
    ) -> Float[Array, "2 batch"]:
        x = (
            features
            if self.projection is None
            else Projection(self.projection, self.init_as, name="projection")(features)
        )
        x = jnp.concatenate([x, action], axis=-1)
        mlp = Injectable if self.injectable else MLP
        settings = (self.hidden, 1, self.init_as, self.layer_norm, self.crelu)
        twins = [mlp(*settings, name=name)(x) for name in ("q1", "q2")]
        return jnp.stack([q[:, 0] for q in twins])
