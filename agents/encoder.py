"""DrQ-v2's convolutional encoder and what it sees."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import flax.linen as nn
import jax
from jaxtyping import Array, Float, UInt8

from agents.blocks import Layer, conv_size, encode, patches, scale
from ne_jax.target import on_cpu
from settings import check, setting


@dataclass(frozen=True)
class VisionSettings:
    """How pixels become features; the defaults are those of DrQ-v2."""

    channels: int = setting(32, "filters of each convolution", least=1)
    strides: tuple[int, ...] = setting((2, 1, 1, 1), "of the convolutions, one each", unit="pixels", least=1)
    projection: int = setting(50, "features that actor and critic each make of the encoder's output", least=1)
    shift_pad: int = setting(4, "largest random shift of what the losses see", unit="pixels", least=0)
    conv: Literal["auto", "xla", "im2col", "blocks"] = setting(
        "auto",
        "how convolutions are computed: by XLA, as matrix products, in blocks of images that stay in a CPU's cache, or "
        "auto: in blocks on a CPU, else by XLA",
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
    conv = vision.conv
    if conv == "auto":
        conv = "blocks" if on_cpu() else "xla"
    return Encoder(vision.channels, vision.strides, conv != "xla", conv == "blocks")


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
            out = patches(x, self.stride) @ kernel.reshape(-1, self.features)
        else:
            strides = (self.stride, self.stride)
            out = jax.lax.conv_general_dilated(x, kernel, strides, "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        h = nn.relu(out + bias)
        self.sow("intermediates", "activation", h)
        return h


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
    """DrQ-v2's convolutional encoder: uint8 [batch, height, width, channels] to float32 [batch, features].

    `blocks=True` computes it a few images at a time (`agents.blocks`), unless activations are to be sown.
    """

    channels: int = 32
    strides: tuple[int, ...] = (2, 1, 1, 1)
    im2col: bool = False
    blocks: bool = False

    @nn.compact
    def __call__(self, pixels: UInt8[Array, "batch height width channels"]) -> Float[Array, "batch features"]:
        if self.blocks and not self.is_initializing() and not self.is_mutable_collection("intermediates"):
            named = (self.variables["params"][f"conv_{i}"] for i in range(len(self.strides)))
            x: Array = encode(self.strides, pixels, tuple(Layer(each["kernel"], each["bias"]) for each in named))
            return x.reshape(x.shape[0], -1)
        x = scale(pixels)
        for i, stride in enumerate(self.strides):
            x = Conv(self.channels, stride, self.im2col, name=f"conv_{i}")(x)
        return x.reshape(x.shape[0], -1)
