"""A conditional that stays a conditional when it is vmapped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.extend import core
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


def cond_any_closing(
    pred: Bool[Array, ""], true_fn: Callable[..., Out], false_fn: Callable[..., Out], *operands: PyTree
) -> Out:
    """`cond_any` whose functions may also close over traced values, such as a rule's numbers.

    It looks for them by tracing, and hands them over as operands; where there are none it is `cond_any`.
    """
    (run_true, of_true), (run_false, of_false) = (_opened(fn, operands) for fn in (true_fn, false_fn))
    if not of_true and not of_false:
        return cond_any(pred, true_fn, false_fn, *operands)
    return cond_any(
        pred,
        lambda of_true, of_false, *args: run_true(of_true, args),
        lambda of_true, of_false, *args: run_false(of_false, args),
        of_true,
        of_false,
        *operands,
    )


def _opened(
    fn: Callable[..., Any], operands: tuple[PyTree, ...]
) -> tuple[Callable[[list[Array], tuple[PyTree, ...]], Any], list[Array]]:
    """`fn` as a function of the traced values that it closes over and its operands; and these values."""
    program, shape = jax.make_jaxpr(fn, return_shape=True)(*operands)
    traced = [isinstance(each, Tracer) for each in program.consts]
    own, tree = [each for each, is_traced in zip(program.consts, traced) if is_traced], jax.tree.structure(shape)

    def run(values: list[Array], args: tuple[PyTree, ...]) -> Any:
        given = iter(values)
        consts = [next(given) if is_traced else each for each, is_traced in zip(program.consts, traced)]
        found = core.jaxpr_as_fun(core.ClosedJaxpr(program.jaxpr, consts))(*jax.tree.leaves(args))
        return tree.unflatten(found)

    return run, own
