"""The layers that networks of agents are made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

Init = Literal["orthogonal", "uniform", "lecun"]
"""Of dense layers: orthogonal weights and zero biases (DrQ-v2); LeCun-normal weights and zero biases (Flax's default);
or both uniform over +-1/sqrt(inputs), as PyTorch does by default and TD3's published results are made with."""
Activation = Literal["relu", "leaky_relu", "crelu"]
"""Of hidden layers. CReLU is the ReLU of both signs side by side, twice as wide (Shang et al. 2016)."""


def crelu(x: Float[Array, "batch units"]) -> Float[Array, "batch twice"]:
    """ReLU of both signs, side by side."""
    return nn.relu(jnp.concatenate([x, -x], axis=-1))


ACTIVATIONS: dict[Activation, Callable[[Array], Array]] = {
    "relu": nn.relu,
    "leaky_relu": partial(nn.leaky_relu, negative_slope=0.01),
    "crelu": crelu,
}


def dense(features: int, x: Float[Array, "batch in"], init: Init, name: str) -> Float[Array, "batch features"]:
    """A dense layer called `name`, for use inside a compact module."""
    kernel_init, bias_init = nn.initializers.orthogonal(), nn.initializers.zeros
    if init == "lecun":
        kernel_init = nn.initializers.lecun_normal()
    if init == "uniform":
        bound = 1 / math.sqrt(x.shape[-1])
        kernel_init = bias_init = partial(_uniform, bound)
    return nn.Dense(features, kernel_init=kernel_init, bias_init=bias_init, name=name)(x)


def _uniform(
    bound: float, key: Key[Array, ""], shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
) -> Float[Array, "..."]:
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
    """A dense layer, LayerNorm if wanted, and its activation, which is sown for those who study units."""

    features: int
    init_as: Init = "orthogonal"
    layer_norm: bool = False
    activation: Activation = "relu"

    @nn.compact
    def __call__(self, x: Float[Array, "batch in"]) -> Float[Array, "batch features"]:
        x = dense(self.features, x, self.init_as, "dense")
        if self.layer_norm:
            x = nn.LayerNorm(epsilon=1e-5, name="norm")(x)
        h = ACTIVATIONS[self.activation](x)
        self.sow("intermediates", "activation", h)
        return h


class MLP(nn.Module):
    """Hidden layers named `hidden_0`, `hidden_1`, ... and a linear `head`."""

    hidden: tuple[int, ...]
    out: int
    init_as: Init = "orthogonal"
    layer_norm: bool = False
    activation: Activation = "relu"

    @nn.compact
    def __call__(self, x: Float[Array, "batch in"]) -> Float[Array, "batch out"]:
        for i, features in enumerate(self.hidden):
            x = Hidden(features, self.init_as, self.layer_norm, self.activation, name=f"hidden_{i}")(x)
        return dense(self.out, x, self.init_as, "head")


class Injectable(nn.Module):
    """An MLP with room for plasticity injection (`ne_jax.plasticity_injection`): trunk + fresh - anchor."""

    hidden: tuple[int, ...]
    out: int
    init_as: Init = "orthogonal"
    layer_norm: bool = False
    activation: Activation = "relu"

    @nn.compact
    def __call__(self, x: Float[Array, "batch in"]) -> Float[Array, "batch out"]:
        settings = (self.hidden, self.out, self.init_as, self.layer_norm, self.activation)
        trunk, fresh, anchor = (MLP(*settings, name=name)(x) for name in ("trunk", "fresh", "anchor"))
        return trunk + fresh - anchor
