"""Plasticity as an optax transformation around any other."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Int, Key, PyTree

from ne_jax import fresh
from ne_jax.control import cond_any, cond_any_closing
from ne_jax.rule import Evolved, Network, Rule, RuleState, initial
from ne_jax.sparsity import Leaves, Masks, Where, apply, kernels, leaves_by_path, nonzero, replace_leaves
from ne_jax.state import PlasticState, Record, recorded

ADJUST = 2**31 - 1
"""Folded into an update's key for `Rule.adjust`: far from the small numbers that rounds use."""


class _Setup(NamedTuple):
    """The settings of `plastic`, as it takes them."""

    inner: optax.GradientTransformationExtraArgs
    rule: Rule
    every: int
    where: Where | None
    seed: int
    accumulate: int


def plastic(
    inner: optax.GradientTransformation,
    rule: Rule,
    every: int,
    *,
    where: Where | None = kernels,
    seed: int = 0,
    accumulate: int = 1,
) -> optax.GradientTransformationExtraArgs:
    """Train a network with `inner` and let `rule` change it every `every` updates, or at once where it is `urgent`.

    The transformation has the type of what it wraps: it goes wherever an optax optimiser goes. Parameters are exactly
    zero where a mask is False, before and after every update, so forward passes need no change and the gradient at an
    absent weight is its growth score. `init` reads the first masks off the zero pattern that `sparsify` left.

    In a round the update of a removed weight is `-p`, of a newborn or reset one what makes it its new value. What
    `inner` keeps of either (`optax.tree_map_params` finds it) goes back to its initial value: moments of Adam to zero.
    From then on `inner` counts the updates of such a weight from zero, so that it trains as under a new optimiser (see
    `ne_jax.fresh`), while the clocks of learning-rate schedules go on. So does a leaf that a rule lets train only from
    some update on. `inner` must keep its count in a named field beside its moments, as optax's own optimisers do; a
    count anywhere else is taken for a clock.

    Args:
        where: which leaves are sparse; None for a dense network, which has no masks.
        seed: of the random numbers, where `update` gets no key.
        accumulate: a round sees the mean of the dense gradients of the last so many updates, its own included: of the
            sparse leaves, or of the kernels of a dense network; of other leaves it sees the newest.

    Optional arguments of update:
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
            taken out of; at `update`, params or a batch is missing, or `inner` uses the count that corrects its bias in
            a way that cannot be had for single weights (at `init` already, unless `inner` takes extra arguments).
    """
    if every < 1:
        raise ValueError(f"`every` must be a positive number of updates, got {every}")
    if not 1 <= accumulate <= every:
        raise ValueError(f"`accumulate` must lie between 1 and `every`={every} updates, got {accumulate}")
    plain = not isinstance(inner, optax.GradientTransformationExtraArgs)
    setup = _Setup(optax.with_extra_args_support(inner), rule, every, where, seed, accumulate)
    return optax.GradientTransformationExtraArgs(partial(_init, setup, plain), partial(_update, setup))


def _init(setup: _Setup, plain: bool, params: PyTree) -> PlasticState:
    rule, rounds = setup.rule, setup.rule.evolve is not None
    fresh.check_shapes(setup.inner, params)
    masks = {} if setup.where is None else nonzero(params, setup.where)
    leaves = leaves_by_path(params)
    inner = setup.inner.init(params)
    can_begin = rounds or rule.trainable is not None
    births = fresh.init_births(setup.inner, inner, params) if can_begin else None
    if births is not None and plain:
        # Says at once if it cannot be done; an optimiser with extra arguments says so in its first update.
        jax.eval_shape(partial(fresh.update, setup.inner, births, frozenset(leaves)), params, inner, params)

    def zero() -> Int[Array, ""]:  # an array of its own each time, so that the state can be donated
        return jnp.zeros((), jnp.int32)

    def sums() -> Leaves:
        return {path: jnp.zeros_like(leaf) for path, leaf in _scored(leaves, masks).items()}

    return PlasticState(
        inner,
        masks,
        zero(),
        rule=jax.tree.map(jnp.copy, initial(rule, leaves, masks)),
        births=births,
        renewed={p: jnp.zeros((), bool) for p, leaf in leaves.items() if rule.renews and rule.renews(p, leaf)},
        gathered=(sums(), zero()) if rounds and setup.accumulate > 1 else None,
        ever=jax.tree.map(jnp.copy, masks) if rounds and masks else None,
        record=Record(zero(), zero(), zero(), jnp.zeros(())) if rounds and masks else None,
    )


def _update(
    setup: _Setup,
    updates: PyTree,
    state: PlasticState,
    params: PyTree | None = None,
    *,
    step: Int[Array, ""] | int | None = None,
    batch: PyTree = None,
    key: Key[Array, ""] | None = None,
    **extra: PyTree,
) -> tuple[PyTree, PlasticState]:
    rule = setup.rule
    if params is None:
        raise ValueError("plastic needs the parameters: call tx.update(grads, state, params)")
    if rule.activity is not None and batch is None:
        raise ValueError("this rule looks at activations: call tx.update(..., batch=inputs), or drop `activity`")
    step = state.count if step is None else jnp.asarray(step)
    dense = updates  # the loss gradient, absent weights included
    seen = Network(leaves_by_path(params), leaves_by_path(dense), state.masks, None)
    if rule.gradient is not None:
        updates = replace_leaves(updates, rule.gradient(state.rule, step, seen))
    descent = setup.inner.update
    if (rule.evolve is not None or rule.adjust is not None) and key is None:
        key = jax.random.fold_in(jax.random.key(setup.seed), step)
    waiting = _waiting(rule, step, params)
    if state.births is not None:
        renewable = frozenset(waiting)
        if rule.evolve is not None and key is not None:
            renewable |= _renewable(setup, state, params, dense, batch, key, step)
        descent = partial(fresh.update, setup.inner, state.births, renewable)
    updates, inner = descent(_limit(rule, step, state.masks, updates), state.inner, params, **extra)
    if rule.adjust is not None and key is not None:
        adjust_key = jax.random.fold_in(key, ADJUST)
        remembered, adjusted = rule.adjust(state.rule, adjust_key, step, seen, leaves_by_path(updates))
        updates, state = replace_leaves(updates, adjusted), state._replace(rule=remembered)
    # Masked again, because an inner transformation may move weights without any gradient (noise, for example).
    updates = _limit(rule, step, state.masks, updates)
    gathered = _gather(setup, state.gathered, dense, step)
    births = fresh.born_again(state.births, inner, waiting)  # what does not train yet begins when it may
    state = state._replace(inner=inner, count=state.count + 1, gathered=gathered, births=births)
    activations = None
    if rule.observe is not None:
        activations = None if rule.activity is None else rule.activity(params, batch)
        moved = leaves_by_path(optax.apply_updates(params, updates))
        network = Network(moved, seen.gradients, state.masks, activations, batch)
        state = state._replace(rule=rule.observe(state.rule, step, network))
    if rule.evolve is not None and key is not None:
        state = state._replace(renewed={path: jnp.zeros((), bool) for path in state.renewed})
        due = (step > 0) & (step % setup.every == 0)
        if rule.urgent is not None:
            due |= rule.urgent(state.rule)
        operands = (updates, state, params, dense, batch, activations, key, step)
        updates, state = cond_any_closing(due, partial(_round, setup), _keep, *operands)
    return updates, state


def _waiting(rule: Rule, step: Int[Array, ""], params: PyTree) -> dict[str, Bool[Array, ""]]:
    """Of the leaves that do not train throughout: whether they do not train now."""
    if rule.trainable is None:
        return {}
    allowed = {path: rule.trainable(step, path) for path in leaves_by_path(params)}
    return {path: ~jnp.asarray(now) for path, now in allowed.items() if now is not True}


def _limit(rule: Rule, step: Int[Array, ""], masks: Masks, updates: PyTree) -> PyTree:
    """Nothing for absent weights, nor for leaves that do not train now."""
    updates = apply(masks, updates)
    if rule.trainable is None:
        return updates
    found = leaves_by_path(updates)
    return replace_leaves(updates, {p: jnp.where(rule.trainable(step, p), u, 0) for p, u in found.items()})


def _gather(
    setup: _Setup, gathered: tuple[Leaves, Int[Array, ""]] | None, gradients: PyTree, step: Int[Array, ""]
) -> tuple[Leaves, Int[Array, ""]] | None:
    """The sums that a round's mean gradient is made of, in the updates just before it and in its own."""
    if gathered is None:
        return None

    def add(gathered: tuple[Leaves, Int[Array, ""]], gradients: Leaves) -> tuple[Leaves, Int[Array, ""]]:
        sums, count = gathered
        return {path: total + gradients[path] for path, total in sums.items()}, count + 1

    wanted = (step > 0) & (-step % setup.every < setup.accumulate)  # there is no round at update 0
    return cond_any(wanted, add, lambda gathered, _: gathered, gathered, leaves_by_path(gradients))


def _keep(updates: PyTree, state: PlasticState, *_: PyTree) -> tuple[PyTree, PlasticState]:
    return updates, state


def _round(
    setup: _Setup,
    updates: PyTree,
    state: PlasticState,
    params: PyTree,
    gradients: PyTree,
    batch: PyTree,
    activations: Leaves | None,
    key: Key[Array, ""],
    step: Int[Array, ""],
) -> tuple[PyTree, PlasticState]:
    """One round: what the rule makes of the network, as updates, and the optimiser's state that goes with it."""
    if activations is None and setup.rule.activity is not None:
        activations = setup.rule.activity(params, batch)
    moved = leaves_by_path(optax.apply_updates(params, updates))
    gradients = leaves_by_path(gradients)
    if state.gathered is not None:
        sums, count = state.gathered
        # A round that comes at once may find nothing gathered.
        gradients |= {
            path: jnp.where(count > 0, total / jnp.maximum(count, 1), gradients[path]) for path, total in sums.items()
        }
    remembered, evolved = _evolved(
        setup.rule, state.rule, key, step, Network(moved, gradients, state.masks, activations, batch)
    )
    if setup.rule.reborn is not None:
        remembered = setup.rule.reborn(remembered, {**moved, **evolved.params}, evolved.fresh)
    old, ordinary = leaves_by_path(params), leaves_by_path(updates)
    flags = {path: each | (evolved.adjusted or {}).get(path, False) for path, each in evolved.fresh.items()}
    flags = (evolved.adjusted or {}) | flags
    changed = {
        # `new - old` is exact for what matters: a removed weight gets -old, a newborn one comes from old = 0.
        path: jnp.where(here, evolved.params[path] - old[path], ordinary[path])
        for path, here in flags.items()
    }
    state = recorded(state, {**state.masks, **evolved.masks})
    return replace_leaves(updates, changed), state._replace(
        inner=fresh.forget(setup.inner, state.inner, replace_leaves(params, evolved.params), evolved.fresh),
        rule=remembered,
        births=fresh.born_again(state.births, state.inner, evolved.fresh),
        renewed=state.renewed | (evolved.renewed or {}),
        gathered=jax.tree.map(jnp.zeros_like, state.gathered),  # the next round's sums
    )


def _evolved(
    rule: Rule, state: RuleState, key: Key[Array, ""], step: Int[Array, ""], network: Network
) -> tuple[RuleState, Evolved]:
    assert rule.evolve is not None  # or `update` calls no round
    state, evolved = rule.evolve(state, key, step, network)
    for path in evolved.renewed or {}:
        if rule.renews is None or not rule.renews(path, network.params[path]):
            raise ValueError(f"the rule {rule.name} says that {path} began anew; let its `renews` choose it")
    return state, evolved


def _renewable(
    setup: _Setup,
    state: PlasticState,
    params: PyTree,
    gradients: PyTree,
    batch: PyTree,
    key: Key[Array, ""],
    step: Int[Array, ""],
) -> frozenset[str]:
    """The leaves whose weights the rule may mark as fresh in a round. Nothing is computed for it."""

    def flags() -> Mapping[str, Array]:
        activations = None if setup.rule.activity is None else setup.rule.activity(params, batch)
        network = Network(leaves_by_path(params), leaves_by_path(gradients), state.masks, activations, batch)
        return _evolved(setup.rule, state.rule, key, step, network)[1].fresh

    return frozenset(jax.eval_shape(flags))


def _scored(leaves: Leaves, masks: Masks) -> Leaves:
    """The leaves whose gradient a round looks at: the sparse ones, or the kernels of a dense network."""
    return {path: leaf for path, leaf in leaves.items() if (path in masks if masks else kernels(path, leaf))}
