"""DrQ-v2's convolutional encoder and what it sees."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from settings import check, setting


@dataclass(frozen=True)
class VisionSettings:
    """How pixels become features; the defaults are those of DrQ-v2."""

    channels: int = setting(32, "filters of each convolution", least=1)
    strides: tuple[int, ...] = setting((2, 1, 1, 1), "of the convolutions, one each", unit="pixels", least=1)
    projection: int = setting(50, "features that actor and critic each make of the encoder's output", least=1)
    shift_pad: int = setting(4, "largest random shift of what the losses see", unit="pixels", least=0)
    conv: Literal["auto", "xla", "im2col"] = setting(
        "auto", "how convolutions are computed: by XLA, as matrix products, or auto: as these on a CPU"
    )


def make_encoder(vision: VisionSettings, obs_shape: tuple[int, ...]) -> Encoder:
    """The encoder for pixels of `obs_shape` (height, width, channels).

    Raises:
        ValueError: a setting is out of range, these are no pixels, or the image is too small.
    """
    if len(obs_shape) != 3:
        raise ValueError(f"the encoder sees pixels, and got observations of shape {obs_shape}; set env.pixels=True")
    if not vision.strides or min(vision.strides) < 1:
        raise ValueError(f"agent.strides must name a positive stride for each convolution, got {vision.strides}")
    check(VisionSettings, vision, "agent.")
    encoded_size(min(obs_shape[:2]), vision.strides)
    im2col = jax.default_backend() == "cpu" if vision.conv == "auto" else vision.conv == "im2col"
    return Encoder(vision.channels, vision.strides, im2col)


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
        kernel = self.param("kernel", nn.initializers.orthogonal(math.sqrt(2)), shape)
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
