"""Plasticity as an optax transformation around any other."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from ne_jax.control import cond_any
from ne_jax.metrics import churn
from ne_jax.rule import Network, Rule
from ne_jax.sparsity import Leaves, Masks, Where, apply, kernels, leaves_by_path, nonzero, replace_leaves


class Record(NamedTuple):
    """What the newest round did, over all sparse layers. Zero before the first one."""

    born: Int[Array, ""]
    """Weights that exist and did not before."""
    removed: Int[Array, ""]
    regrown: Int[Array, ""]
    """Of those born: how many had existed at some time before."""
    churn: Float[Array, ""]
    """1 - Jaccard index of the masks before and after."""


class PlasticState(NamedTuple):
    """State of `plastic`: the wrapped optimiser's, the masks by path, and the updates counted so far."""

    inner: optax.OptState
    masks: Masks
    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    before: optax.OptState | None
    """What `Rule.before` keeps."""
    gathered: tuple[Leaves, Int[Array, ""]] | None
    """Sum of the newest dense gradients and how many they are, where a round looks at several."""
    ever: Masks | None
    """The weights that have existed at some time; None where the topology cannot change, as with `record`."""
    record: Record | None


def plastic(
    inner: optax.GradientTransformation,
    rule: Rule,
    every: int,
    *,
    where: Where | None = kernels,
    seed: int = 0,
    accumulate: int = 1,
) -> optax.GradientTransformationExtraArgs:
    """Train a network with `inner` and let `rule` change it every `every` updates.

    The transformation has the type of what it wraps: it goes wherever an optax optimiser goes. Parameters are exactly
    zero where a mask is False, before and after every update, so forward passes need no change and the gradient at an
    absent weight is its growth score. `init` reads the first masks off the zero pattern that `sparsify` left.

    In a round the update of a removed weight is `-p`, of a newborn or reset one what makes it its new value. What
    `inner` keeps of either (`optax.tree_map_params` finds it) goes back to its initial value: moments of Adam to zero.

    Args:
        where: which leaves are sparse; None for a dense network, which has no masks.
        seed: of the random numbers, where `update` gets no key.
        accumulate: a round sees the mean of the dense gradients of the last so many updates, its own included.

    `update` takes these extra arguments, all optional:
        step: updates made so far, an int32 scalar. Where it is the same for all lanes of a `vmap`, pass it unbatched:
            the round is then a plain branch. Without it a counter in the state is used, and the branch is kept by
            `cond_any`. The first round comes after `every` updates.
        batch: inputs for `rule.activity`; required when the rule has one.
        key: PRNG key of this update. Without it one is derived from `seed` and the step, so that lanes of a `vmap` that
            should differ in their random choices must pass it.

    Usage::

        params = ne_jax.sparsify(key, params, ne_jax.erdos_renyi(density=0.2))
        growth = ne_jax.cosine_growth(0.2, 0.75, until=500_000)
        tx = ne_jax.plastic(optax.adam(3e-4), ne_jax.neuroplastic(growth), every=1_000)

    Raises:
        ValueError: `every` is not positive, or `accumulate` not in 1 to `every`; at `init`, `where` chooses no leaf, a
            sparse leaf is zero throughout, or `inner` keeps factored state (adafactor), which single weights cannot be
            taken out of; at `update`, params or a batch is missing.
    """
    if every < 1:
        raise ValueError(f"`every` must be a positive number of updates, got {every}")
    if not 1 <= accumulate <= every:
        raise ValueError(f"`accumulate` must lie between 1 and `every`={every} updates, got {accumulate}")
    inner = optax.with_extra_args_support(inner)
    rounds = rule.evolve is not None

    def init(params: PyTree) -> PlasticState:
        _check_state_shapes(inner, params)
        masks = {} if where is None else nonzero(params, where)
        leaves = leaves_by_path(params)

        def zero() -> Int[Array, ""]:  # an array of its own each time, so that the state can be donated
            return jnp.zeros((), jnp.int32)

        def sums() -> Leaves:
            return {path: jnp.zeros_like(leaf) for path, leaf in _scored(leaves, masks).items()}

        return PlasticState(
            inner.init(params),
            masks,
            zero(),
            before=rule.before.init(params) if rule.before else None,
            gathered=(sums(), zero()) if rounds and accumulate > 1 else None,
            ever=jax.tree.map(jnp.copy, masks) if rounds and masks else None,
            record=Record(zero(), zero(), zero(), jnp.zeros(())) if rounds and masks else None,
        )

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
        if rule.activity is not None and batch is None:
            raise ValueError("this rule looks at activations: call tx.update(..., batch=inputs), or drop `activity`")
        step = state.count if step is None else step
        dense = updates  # the loss gradient, absent weights included
        before = state.before
        if rule.before is not None:
            updates, before = rule.before.update(updates, before, params)
        updates, inner_state = inner.update(limit(step, state.masks, updates), state.inner, params, **extra)
        # Masked again, because an inner transformation may move weights without any gradient (noise, for example).
        updates = limit(step, state.masks, updates)
        state = state._replace(
            inner=inner_state, count=state.count + 1, before=before, gathered=gather(state, dense, step)
        )
        if rounds:
            key = jax.random.fold_in(jax.random.key(seed), step) if key is None else key
            due = (step > 0) & (step % every == 0)
            updates, state = cond_any(due, round_, keep, updates, state, params, dense, batch, key, step)
        return updates, state

    def limit(step, masks, updates):
        """Nothing for absent weights, nor for leaves that do not train now."""
        updates = apply(masks, updates)
        if rule.trainable is None:
            return updates
        found = leaves_by_path(updates)
        return replace_leaves(updates, {p: jnp.where(rule.trainable(step, p), u, 0) for p, u in found.items()})

    def gather(state, gradients, step):
        """The sums that a round's mean gradient is made of, in the updates just before it and in its own."""
        if state.gathered is None:
            return None

        def add(gathered, gradients):
            sums, count = gathered
            return {path: total + gradients[path] for path, total in sums.items()}, count + 1

        wanted = (step > 0) & (-step % every < accumulate)  # there is no round at update 0
        return cond_any(wanted, add, lambda gathered, _: gathered, state.gathered, leaves_by_path(gradients))

    def keep(updates, state, *_):
        return updates, state

    def round_(updates, state, params, gradients, batch, key, step):
        assert rule.evolve is not None  # or `update` calls no round
        activations = None if rule.activity is None else rule.activity(params, batch)
        before = leaves_by_path(optax.apply_updates(params, updates))
        gradients = leaves_by_path(gradients)
        if state.gathered is not None:
            sums, count = state.gathered
            gradients |= {path: total / count for path, total in sums.items()}
        evolved = rule.evolve(key, step, Network(before, gradients, state.masks, activations))
        old, ordinary = leaves_by_path(params), leaves_by_path(updates)
        changed = {
            # `new - old` is exact for what matters: a removed weight gets -old, a newborn one comes from old = 0.
            path: jnp.where(fresh, evolved.params[path] - old[path], ordinary[path])
            for path, fresh in evolved.fresh.items()
        }
        inner_state = forget(state.inner, replace_leaves(params, evolved.params), evolved.fresh)
        state = _recorded(state, {**state.masks, **evolved.masks})
        gathered = jax.tree.map(jnp.zeros_like, state.gathered)  # the next round's sums
        return replace_leaves(updates, changed), state._replace(inner=inner_state, gathered=gathered)

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


def _scored(leaves: Leaves, masks: Masks) -> Leaves:
    """The leaves whose gradient a round looks at: the sparse ones, or the kernels of a dense network."""
    return {path: leaf for path, leaf in leaves.items() if (path in masks if masks else kernels(path, leaf))}


def _recorded(state: PlasticState, masks: Masks) -> PlasticState:
    """The state with new masks, and what changed from the old ones."""
    if state.ever is None:
        return state._replace(masks=masks)
    none = jnp.zeros((), jnp.int32)
    born = {path: masks[path] & ~old for path, old in state.masks.items()}
    record = Record(
        born=sum((each.sum() for each in born.values()), none),
        removed=sum(((old & ~masks[path]).sum() for path, old in state.masks.items()), none),
        regrown=sum(((each & state.ever[path]).sum() for path, each in born.items()), none),
        churn=churn(state.masks, masks),
    )
    ever = {path: old | masks[path] for path, old in state.ever.items()}
    return state._replace(masks=masks, ever=ever, record=record)


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
    return {path: mask for state in _states(opt_state) for path, mask in state.masks.items()}


def record(opt_state: optax.OptState) -> Record | None:
    """What the newest round inside any optax state did; None if the topology in it cannot change."""
    return next((state.record for state in _states(opt_state) if state.record is not None), None)


def _states(opt_state: optax.OptState) -> list[PlasticState]:
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, PlasticState))
    return [node for node in nodes if isinstance(node, PlasticState)]
