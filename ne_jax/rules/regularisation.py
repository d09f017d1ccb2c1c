"""Rules that pull weights in every update, as a term of the loss does."""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp
from jaxtyping import Array, Bool

from ne_jax.rule import Network, Rule, Step
from ne_jax.sparsity import Leaves, Masks


def regenerative_l2(strength: float) -> Rule:
    """Regenerative regularisation: the loss gets `strength * ||p - p_0||^2` (Kumar et al. 2023, arXiv:2308.11958).

    p_0 is each weight's value at its birth: that at the start of training, and where a round of another rule in the
    chain bears or resets the weight, its value then. The gradient `2 * strength * (p - p_0)` goes through the
    optimiser, as a term of the loss does.

    Args:
        strength: weight of the squared distance in the loss, > 0.

    Raises:
        ValueError: `strength` is not positive.
    """
    if strength <= 0:
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


def pulled_to_birth(strength: float, births: Leaves, step: Step, network: Network) -> Leaves:
    """The gradients with that of `strength * ||p - births||^2`."""
    return {p: network.gradients[p] + 2 * strength * (network.params[p] - old) for p, old in births.items()}
