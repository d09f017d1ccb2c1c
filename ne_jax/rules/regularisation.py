"""Rules that pull weights in every update, as a term of the loss does, or beside it."""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from ne_jax.numbers import Number, is_known
from ne_jax.rule import Network, Rule, RuleState, Step
from ne_jax.sparsity import Leaves, Masks, Where, hidden_kernels, kernels


def regenerative_l2(strength: Number) -> Rule:
    """Regenerative regularisation: the loss gets `strength * ||p - p_0||^2` (Kumar et al. 2023, arXiv:2308.11958).

    p_0 is each weight's value at its birth: that at the start of training, and where a round of another rule in the
    chain bears or resets the weight, its value then. The gradient `2 * strength * (p - p_0)` goes through the
    optimiser, as a term of the loss does.

    Args:
        strength: weight of the squared distance in the loss, > 0.

    Raises:
        ValueError: `strength` is not positive.
    """
    if is_known(strength) and strength <= 0:
        raise ValueError(f"strength must be positive, got {strength}")
    return Rule(
        init=births, gradient=partial(pulled_to_birth, strength), reborn=values_at_birth, name="regenerative_l2"
    )


def births(params: Leaves, masks: Masks) -> Leaves:
    """Every weight was born with the value that it has."""
    return dict(params)


def values_at_birth(births: Leaves, params: Leaves, fresh: dict[str, Bool[Array, "..."]]) -> Leaves:
    """What weights were born with, after a round that bore or reset those in `fresh`."""
    return births | {path: jnp.where(flags, params[path], births[path]) for path, flags in fresh.items()}


def pulled_to_birth(strength: Number, births: Leaves, step: Step, network: Network) -> Leaves:
    """The gradients with that of `strength * ||p - births||^2`."""
    return {p: network.gradients[p] + 2 * strength * (network.params[p] - old) for p, old in births.items()}


def l2(*, strength: Number = 1e-4, where: Where = lambda path, leaf: True) -> Rule:
    """L2 regularisation: the loss gets `strength * ||p||^2`, whose gradient goes through the optimiser.

    The baseline of Kumar et al. 2023 (arXiv:2308.11958): it takes all parameters, biases and norms included, just as
    `regenerative_l2` does, and differs from that in pulling to zero. Under Adam it is not weight decay, see there.

    Args:
        strength: weight of the squared length in the loss, > 0.
        where: the leaves that it pulls, by path; all of them by default.

    Raises:
        ValueError: `strength` is not positive.
    """
    if is_known(strength) and strength <= 0:
        raise ValueError(f"strength must be positive, got {strength}")
    return Rule(gradient=partial(_pulled_to_zero, strength, where), name="l2")


def _pulled_to_zero(strength: Number, where: Where, state: RuleState, step: Step, network: Network) -> Leaves:
    chosen = {path: leaf for path, leaf in network.params.items() if where(path, leaf)}
    return {path: network.gradients[path] + 2 * strength * leaf for path, leaf in chosen.items()}


def weight_decay(*, rate: Number = 1e-5, where: Where = kernels) -> Rule:
    """Decoupled weight decay: after the optimiser, `p_t+1 = (1 - rate) * p_t + u_t`, u_t being its update (Loshchilov
    and Hutter 2019, arXiv:1711.05101, eq. 1).

    The gradient does not know of it, so that Adam does not divide it away. `optax.adamw(a, weight_decay=w)` is the same
    with `rate = a * w`. It takes kernels alone, as is the custom: a bias or a norm's scale is not pulled to zero.

    Args:
        rate: share of a weight that decays per update, in (0, 1). It stands for learning rate times weight decay.
        where: the leaves that decay, by path; all kernels, the head's included, by default.

    Raises:
        ValueError: `rate` lies outside (0, 1).
    """
    if is_known(rate) and not 0 < rate < 1:
        raise ValueError(f"rate must lie in (0, 1), got {rate}: it is the share of a weight that decays per update")
    return Rule(adjust=partial(_decayed, rate, where), name="weight_decay")


def _decayed(
    rate: Number, where: Where, state: RuleState, key: Key[Array, ""], step: Step, network: Network, updates: Leaves
) -> tuple[RuleState, Leaves]:
    chosen = {path: leaf for path, leaf in network.params.items() if where(path, leaf)}
    return state, {path: updates[path] - rate * leaf for path, leaf in chosen.items()}


def parseval(*, strength: Number = 1e-3, scale: Number = 2.0, where: Where = hidden_kernels) -> Rule:
    """Parseval regularisation: the loss gets `strength * sum_l ||W_l W_l^T - scale * I||_F^2` (Chung et al. 2024,
    arXiv:2412.07224), so that the rows of W, which are the incoming weights of its units, stay orthogonal.

    W is [units, inputs], the transpose of a kernel; a convolution's inputs are those of all places of its window. The
    last layer, biases and norms take no part, as in the paper. A layer with more units than inputs cannot reach zero:
    there, too, the gradient draws each singular value to sqrt(scale). It goes through the optimiser.

    The authors' code multiplies the strength by (64 / width)^2, because it was tuned at a width of 64; here it is as
    in the paper, and `strength` is what is tuned.

    Args:
        strength: weight of the term in the loss, > 0.
        scale: what the squared length of a unit's incoming weights is drawn to, > 0. 2 is that of orthogonal weights of
            gain sqrt(2), with which the published networks begin; orthogonal weights of gain 1 have 1.
        where: the kernels that it takes, by path; by default all but those of a module called `head`.

    Raises:
        ValueError: `strength` or `scale` is not positive.
    """
    for name, value in (("strength", strength), ("scale", scale)):
        if is_known(value) and value <= 0:
            raise ValueError(f"{name} must be positive, got {value}")
    return Rule(gradient=partial(_made_orthogonal, strength, scale, where), name="parseval")


def _made_orthogonal(
    strength: Number, scale: Number, where: Where, state: RuleState, step: Step, network: Network
) -> Leaves:
    chosen = {path: leaf for path, leaf in network.params.items() if where(path, leaf)}
    return {path: network.gradients[path] + strength * _parseval_gradient(leaf, scale) for path, leaf in chosen.items()}


def _parseval_gradient(kernel: Float[Array, "*fan units"], scale: Number) -> Float[Array, "*fan units"]:
    """Of ||K^T K - scale * I||_F^2, which is 4 K (K^T K - scale * I) = 4 (K K^T - scale * I) K: the smaller is made."""
    matrix = kernel.reshape(-1, kernel.shape[-1])
    inputs, units = matrix.shape
    if units <= inputs:
        product = matrix @ (matrix.T @ matrix)
    else:
        product = (matrix @ matrix.T) @ matrix
    return (4 * (product - scale * matrix)).reshape(kernel.shape)
