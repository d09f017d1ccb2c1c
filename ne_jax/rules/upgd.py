"""Utility-based perturbed gradient descent: what is of use moves little, what is not moves more, and with noise."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from ne_jax.numbers import Number, is_known, is_zero
from ne_jax.rule import Network, Rule, Step
from ne_jax.sparsity import Leaves, Masks


class Utilities(NamedTuple):
    """What is remembered of all weights."""

    utility: Leaves
    """Running average of -gradient * weight, from zero; not corrected for its bias."""
    updates: Int[Array, ""]
    """So many updates it is the average of."""


class _Setup(NamedTuple):
    """The settings of `upgd`, as it takes them."""

    sigma: Number
    decay: Number
    scale: Number


def upgd(*, sigma: Number = 1e-6, decay: Number = 0.999, scale: Number = 2.0) -> Rule:
    """UPGD with a global, first-order utility of single weights, around any optimiser (Elsayed and Mahmood 2024,
    arXiv:2404.00781, algorithm 1; around Adam it is the adaptive one of their PPO)::

        U_t = decay * U_t-1 + (1 - decay) * (-g_t * w_t)       # for each weight, from 0; g_t of the loss
        V   = sigmoid(u / max u),  u = U_t / (1 - decay^t)     # the maximum is over all weights of the network
        w_t+1 = w_t + scale * (1 - V) * (d_t + sigma * N(0, 1))

    -g * w is the first-order estimate of how much the loss would rise without the weight. d_t is the update of the
    optimiser, such as Adam, with its learning rate. All parameters take part, biases and norms too.

    - `sigma` is per update: it stands for the published sigma times the learning rate.
    - Their supervised learners have scale 1. There a weight of no use, V = 1/2, goes half as far as without UPGD; their
      code for PPO makes good for that by doubling the learning rate, and so does the default here.
    - Their code divides by the maximum of U_t rather than of u, which makes V larger in the first 1 / (1 - decay)
      updates. This is the paper's.
    - Where no weight has a positive utility, all count as of no use (the paper's formula would turn their order round).
    - Their learners decay weights, too: put `weight_decay` behind it in a chain.
    - A weight that another rule of the chain bears or resets begins with U = 0, and so as one of no use.

    Args:
        sigma: standard deviation of the noise on a weight of no use, per update and before `scale`; >= 0.
        decay: of the running utility per update, in [0, 1).
        scale: of the whole step, > 0.

    Raises:
        ValueError: a setting is out of range.
    """
    if is_known(sigma) and sigma < 0:
        raise ValueError(f"sigma must not be negative, got {sigma}: it is a standard deviation")
    if is_known(decay) and not 0 <= decay < 1:
        raise ValueError(f"decay must lie in [0, 1), got {decay}: with 1 nothing would ever be remembered")
    if is_known(scale) and scale <= 0:
        raise ValueError(f"scale must be positive, got {scale}")
    setup = _Setup(sigma, decay, scale)
    return Rule(init=_of_no_use, adjust=partial(_protected, setup), reborn=_born_of_no_use, name="upgd")


def _of_no_use(params: Leaves, masks: Masks) -> Utilities:
    return Utilities({path: jnp.zeros_like(leaf) for path, leaf in params.items()}, jnp.zeros((), jnp.int32))


def _born_of_no_use(state: Utilities, params: Leaves, fresh: dict[str, Bool[Array, "..."]]) -> Utilities:
    born = {path: jnp.where(flags, 0, state.utility[path]) for path, flags in fresh.items()}
    return state._replace(utility=state.utility | born)


def _protected(
    setup: _Setup, state: Utilities, key: Key[Array, ""], step: Step, network: Network, updates: Leaves
) -> tuple[Utilities, Leaves]:
    utility = {
        path: setup.decay * state.utility[path] - (1 - setup.decay) * network.gradients[path] * leaf
        for path, leaf in network.params.items()
    }
    state = Utilities(utility, state.updates + 1)
    # The bias that both sides of the quotient have cancels.
    most = jnp.stack([leaf.max() for leaf in utility.values()]).max()
    keys = jax.random.split(key, len(utility))
    return state, {
        path: setup.scale * _freedom(utility[path], most) * (updates[path] + _noise(setup, own, updates[path]))
        for own, path in zip(keys, sorted(utility), strict=True)
    }


def _freedom(utility: Float[Array, "..."], most: Float[Array, ""]) -> Float[Array, "..."]:
    """1 - V: one half without utility, less with it."""
    return jax.nn.sigmoid(-jnp.where(most > 0, utility / jnp.where(most > 0, most, 1), 0))


def _noise(setup: _Setup, key: Key[Array, ""], like: Array) -> Array:
    if is_zero(setup.sigma):
        return jnp.zeros_like(like)
    return setup.sigma * jax.random.normal(key, like.shape, like.dtype)
