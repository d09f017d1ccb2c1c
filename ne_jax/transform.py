"""Plasticity as an optax transformation around any other."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, Key, PyTree

from ne_jax.control import cond_any
from ne_jax.evolution import Evolution, Network
from ne_jax.sparsity import Masks, Where, apply, kernels, leaves_by_path, nonzero, replace_leaves


class PlasticState(NamedTuple):
    """State of `plastic`: the wrapped optimiser's, the masks by path, and the updates counted so far."""

    inner: optax.OptState
    masks: Masks
    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]


def plastic(
    inner: optax.GradientTransformation,
    evolution: Evolution,
    every: int,
    *,
    where: Where = kernels,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Train a sparse network with `inner` and let `evolution` change its topology every `every` updates.

    The transformation has the type of what it wraps: it goes wherever an optax optimiser goes. Parameters are exactly
    zero where a mask is False, before and after every update, so forward passes need no change and the gradient at an
    absent weight is its growth score. `init` reads the first masks off the zero pattern that `sparsify` left.

    In a round the update of a removed weight is `-p`, of a newborn one its initial value. What `inner` keeps of either
    (`optax.tree_map_params` finds it) goes back to its initial value: moments of Adam to zero.

    `update` takes these extra arguments, all optional:
        step: updates made so far, an int32 scalar. Where it is the same for all lanes of a `vmap`, pass it unbatched:
            the round is then a plain branch. Without it a counter in the state is used, and the branch is kept by
            `cond_any`. The first round comes after `every` updates.
        batch: inputs for `evolution.activity`; required when the evolution has one.
        key: PRNG key of this update. Without it one is derived from `seed` and the step, so that lanes of a `vmap` that
            should differ in their random choices must pass it.

    Usage::

        params = ne_jax.sparsify(key, params, ne_jax.erdos_renyi(density=0.2))
        growth = ne_jax.cosine_growth(0.2, 0.75, until=500_000)
        tx = ne_jax.plastic(optax.adam(3e-4), ne_jax.neuroplastic(growth), every=1_000)

    Raises:
        ValueError: `every` is not positive; at `init`, `where` chooses no leaf, a sparse leaf is zero throughout, or
            `inner` keeps factored state (adafactor), which single weights cannot be taken out of; at `update`, params
            or a batch is missing.
    """
    if every < 1:
        raise ValueError(f"`every` must be a positive number of updates, got {every}")
    inner = optax.with_extra_args_support(inner)

    def init(params: PyTree) -> PlasticState:
        _check_state_shapes(inner, params)
        return PlasticState(inner.init(params), nonzero(params, where), jnp.zeros((), jnp.int32))

    def update(
        updates: PyTree,
        state: PlasticState,
        params: PyTree | None = None,
        *,
        step: Int[Array, ""] | None = None,
        batch: Any = None,
        key: Key[Array, ""] | None = None,
        **extra: Any,
    ) -> tuple[PyTree, PlasticState]:
        if params is None:
            raise ValueError("plastic needs the parameters: call tx.update(grads, state, params)")
        if evolution.activity is not None and batch is None:
            raise ValueError(
                "this evolution looks at activations: call tx.update(..., batch=inputs), or drop `activity`"
            )
        gradients = updates
        updates, inner_state = inner.update(apply(state.masks, gradients), state.inner, params, **extra)
        # Masked again, because an inner transformation may move weights without any gradient (noise, for example).
        updates = apply(state.masks, updates)
        masks = state.masks
        if evolution.evolve is not None:
            step = state.count if step is None else step
            key = jax.random.fold_in(jax.random.key(seed), step) if key is None else key
            due = (step > 0) & (step % every == 0)
            updates, inner_state, masks = cond_any(
                due, round_, keep, updates, inner_state, masks, params, gradients, batch, key, step
            )
        return updates, PlasticState(inner_state, masks, state.count + 1)

    def keep(updates, inner_state, masks, *_):
        return updates, inner_state, masks

    def round_(updates, inner_state, masks, params, gradients, batch, key, step):
        assert evolution.evolve is not None  # or `update` calls no round
        activations = None if evolution.activity is None else evolution.activity(params, batch)
        before = leaves_by_path(optax.apply_updates(params, updates))
        network = Network(before, leaves_by_path(gradients), masks, activations)
        evolved = evolution.evolve(key, step, network)
        old, ordinary = leaves_by_path(params), leaves_by_path(updates)
        changed = {
            # `new - old` is exact for what matters: a removed weight gets -old, a newborn one comes from old = 0.
            path: jnp.where(fresh, evolved.params[path] - old[path], ordinary[path])
            for path, fresh in evolved.fresh.items()
        }
        inner_state = forget(inner_state, replace_leaves(params, evolved.params), evolved.fresh)
        return replace_leaves(updates, changed), inner_state, {**masks, **evolved.masks}

    def forget(inner_state, params, fresh):
        """What the inner optimiser knows of the weights in `fresh` goes back to what its `init` gives them."""
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, bool), params)
        stale = optax.tree_map_params(
            inner,
            lambda _, flags: flags,
            inner_state,
            replace_leaves(nothing, fresh),
            transform_non_params=lambda _: jnp.zeros((), bool),
        )
        return jax.tree.map(lambda flags, new, old: jnp.where(flags, new, old), stale, inner.init(params), inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


def _check_state_shapes(inner: optax.GradientTransformation, params: PyTree) -> None:
    def check(kept, param):
        if kept.shape != param.shape:
            raise ValueError(
                f"the inner optimiser keeps state of shape {kept.shape} for a parameter of shape {param.shape}, out of "
                "which single weights cannot be taken; use one with a value per weight, such as adam or sgd"
            )
        return kept

    shapes = jax.eval_shape(lambda: params)
    optax.tree_map_params(inner, check, jax.eval_shape(inner.init, shapes), shapes)


def masks(opt_state: optax.OptState) -> Masks:
    """The masks inside any optax state, by path; an empty dictionary if nothing in it is `plastic`.

    Works through chains and wrappers: `target = ne_jax.apply(ne_jax.masks(opt_state), target)`.
    """
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, PlasticState))
    found = [node.masks for node in nodes if isinstance(node, PlasticState)]
    return {path: mask for one in found for path, mask in one.items()}
