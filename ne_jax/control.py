"""A conditional that stays a conditional when it is vmapped."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

Out = TypeVar("Out")


def cond_any(
    pred: Bool[Array, ""], true_fn: Callable[..., Out], false_fn: Callable[..., Out], *operands: PyTree
) -> Out:
    """`jax.lax.cond`, except that under `jax.vmap` with a batched `pred` it remains a real branch.

    `vmap` turns a `lax.cond` whose predicate differs between lanes into a select that runs *both* branches, always.
    This one runs `true_fn` only if at least one lane asks for it, and selects lane by lane inside that branch. With an
    unbatched predicate nothing is selected at all.

    Give the cheap branch as `false_fn`: it is the one that runs when no lane asks. The functions may close over
    constants, never over traced values: pass those as `operands`. Not differentiable.
    """

    @jax.custom_batching.custom_vmap
    def conditional(pred, operands):
        return jax.lax.cond(pred, lambda args: true_fn(*args), lambda args: false_fn(*args), operands)

    @conditional.def_vmap
    def rule(axis_size, in_batched, pred, operands):
        pred_batched, operands_batched = in_batched
        axes = jax.tree.map(lambda batched: 0 if batched else None, operands_batched)

        def over_lanes(fn):
            # axis_size, because no operand may be batched at all
            return jax.vmap(lambda args: fn(*args), in_axes=(axes,), axis_size=axis_size)

        if not pred_batched:
            out = cond_any(
                pred, lambda *args: over_lanes(true_fn)(args), lambda *args: over_lanes(false_fn)(args), *operands
            )
        else:

            def some(lanes, *args):
                chosen, other = over_lanes(true_fn)(args), over_lanes(false_fn)(args)
                return jax.tree.map(lambda a, b: jax.vmap(jnp.where)(lanes, a, b), chosen, other)

            out = cond_any(jnp.any(pred), some, lambda _, *args: over_lanes(false_fn)(args), pred, *operands)
        return out, jax.tree.map(lambda _: True, out)

    return conditional(pred, operands)
