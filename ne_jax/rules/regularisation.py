"""Rules that pull weights in every update, as a term of the loss does."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from ne_jax.rule import Rule


def regenerative_l2(strength: float) -> Rule:
    """Regenerative regularisation: the loss gets `strength * ||p - p_0||^2` (Kumar et al. 2023, arXiv:2308.11958).

    p_0 are the parameters that the optimiser was initialised with. The gradient `2 * strength * (p - p_0)` goes through
    the optimiser, as a term of the loss does.

    Args:
        strength: weight of the squared distance in the loss, > 0.

    Raises:
        ValueError: `strength` is not positive.
    """
    if strength <= 0:
        raise ValueError(f"strength must be positive, got {strength}")

    def update(gradients: PyTree, initial: PyTree, params: PyTree | None = None) -> tuple[PyTree, PyTree]:
        pulled = jax.tree.map(lambda g, p, p0: g + 2 * strength * (p - p0), gradients, params, initial)
        return pulled, initial

    # A copy, because a program may donate the parameters and what the optimiser keeps beside each other.
    init = partial(jax.tree.map, jnp.copy)
    return Rule(before=optax.GradientTransformation(init, update), name="regenerative_l2")
