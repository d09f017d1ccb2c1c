"""A round of a changing topology: in each layer some weights are removed, then absent ones born, in exact numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from ne_jax.activity import Activity, incoming
from ne_jax.numbers import Number
from ne_jax.rule import Evolved, Network, Rule, Step, stateless
from ne_jax.sparsity import Leaves, select
from ne_jax.units import beside, gradient_idle, idle_units

Prune = Literal["dormant", "grama", "magnitude", "none"]
Grow = Literal["gradient", "random"]
Birth = Literal["zero", "lecun"]
Revive = Literal["none", "bias", "lecun"]
REVIVED_BIAS = 0.01
"""Small beside what units usually give, and enough for a ReLU to let gradients through."""


class Layer(NamedTuple):
    """One sparse kernel in a round. `key` is the layer's own."""

    path: str
    key: Key[Array, ""]
    mask: Bool[Array, "*fan units"]
    kernel: Float[Array, "*fan units"]
    gradient: Float[Array, "*fan units"]


class Plan(NamedTuple):
    """What is removed from a layer, and how many weights are born in it.

    Of the removed, `recycled` begin anew even if they are chosen again at once. The others stay as they are then, as in
    RigL's published code, which has SET too: a full layer, having no other place, does not change.
    """

    pruned: Bool[Array, "*fan units"] | None
    """None where this never happens."""
    born: Int[Array, ""]
    recycled: Bool[Array, "*fan units"] | None = None
    """None where this never happens."""


def change_topology(
    name: str,
    plan: Callable[[Layer, Step, Network], Plan],
    activity: Activity | None,
    grow: Grow,
    birth: Birth,
    revive: Revive,
) -> Rule:
    """A rule that removes and bears weights layer by layer as `plan` says."""

    def evolve(key: Key[Array, ""], step: Step, network: Network) -> Evolved:
        if not network.masks:
            raise ValueError(f"{name} changes a sparse topology, and the network has no sparse layer; give `where`")
        params, masks, fresh = {}, {}, {}
        paths = sorted(network.masks)
        for path, layer_key in zip(paths, jax.random.split(key, len(paths)), strict=True):
            layer = Layer(path, layer_key, network.masks[path], network.params[path], network.gradients[path])
            pruned, count, recycled = plan(layer, step, network)
            kept = layer.mask if pruned is None else layer.mask & ~pruned
            fan = tuple(range(kept.ndim - 1))
            sprouts = _sprouts(layer, kept, ~kept.any(axis=fan), count) if revive == "lecun" else None
            masks[path] = kept | _to_grow(layer, grow, kept, count, sprouts)
            anew = ~layer.mask if recycled is None else ~layer.mask | recycled
            born = masks[path] & (anew if sprouts is None else anew | sprouts)
            newborn = _newborn(layer, birth if sprouts is None else "lecun")
            if sprouts is not None and birth == "zero":
                newborn = jnp.where(sprouts, newborn, 0)
            old = masks[path] & ~born
            fresh[path] = (layer.mask | born) & ~old
            params[path] = jnp.where(born, newborn, jnp.where(old, layer.kernel, 0))
            if pruned is not None or revive == "bias":
                dead = ~old.any(axis=fan)
                emptied = dead & layer.mask.any(axis=fan)
                changed, flags = _reset_beside(path, network, emptied, dead if revive == "bias" else None)
                params, fresh = params | changed, fresh | flags
        return Evolved(params, masks, fresh)

    return Rule(stateless(evolve), activity, name=name)


def to_prune(
    layer: Layer, network: Network, prune: Prune, cap: Int[Array, ""], tau: Number
) -> Bool[Array, "*fan units"] | None:
    """At most `cap` of the layer's weights: the smallest, or those into dormant units. None: never any."""
    if prune == "none" or (prune == "dormant" and network.activations is None):
        return None
    if prune == "magnitude":
        return smallest(layer, cap)
    units = layer.mask.shape[-1]
    if prune == "grama":
        idle = gradient_idle(layer.gradient, tau)
    else:
        idle = idle_units(layer.path, units, network.activations or {}, tau)
    # All candidates, or where they exceed the cap, unit after unit in random order up to it.
    order = jax.random.uniform(layer.key, (units,))
    return select(jnp.broadcast_to(order, layer.mask.shape), cap, among=layer.mask & incoming(idle, layer.mask.shape))


def smallest(layer: Layer, count: Int[Array, ""]) -> Bool[Array, "*fan units"]:
    """The `count` weights of the layer with the smallest magnitude."""
    return select(-jnp.abs(layer.kernel), count, among=layer.mask)


def smallest_share(layer: Layer, share: Float[Array, ""] | float) -> Bool[Array, "*fan units"]:
    """This share of the layer's weights, rounded down: those with the smallest magnitude."""
    return smallest(layer, jnp.floor(share * layer.mask.sum()).astype(jnp.int32))


def smallest_of_each_sign(layer: Layer, share: Float[Array, ""] | float) -> Bool[Array, "*fan units"]:
    """This share of the layer's weights that are not negative, and of those that are: the smallest magnitudes."""
    negative = layer.kernel < 0
    signs = (layer._replace(mask=layer.mask & ~negative), layer._replace(mask=layer.mask & negative))
    return smallest_share(signs[0], share) | smallest_share(signs[1], share)


def _to_grow(
    layer: Layer, grow: Grow, kept: Bool[Array, "*fan units"], count: Int[Array, ""], first: Array | None
) -> Bool[Array, "*fan units"]:
    """`count` of the weights that are not kept, those in `first` before all others."""
    if grow == "random":
        scores = jax.random.uniform(jax.random.fold_in(layer.key, 2), kept.shape)
    else:
        scores = jnp.abs(layer.gradient)
    if first is not None:
        scores = jnp.where(first, jnp.inf, scores)
    return select(scores, count, among=~kept)


def _sprouts(
    layer: Layer, kept: Bool[Array, "*fan units"], dead: Bool[Array, " units"], count: Int[Array, ""]
) -> Bool[Array, "*fan units"]:
    """Random places into each dead unit, as many as the average unit has weights, and `count` in all at most."""
    units = kept.shape[-1]
    average = jnp.maximum((kept.sum() + count) // units, 1)
    draws = jax.random.uniform(jax.random.fold_in(layer.key, 3), kept.shape).reshape(-1, units)
    rank = jnp.argsort(jnp.argsort(draws, axis=0), axis=0).reshape(kept.shape)
    wanted = incoming(dead, kept.shape) & (rank < average)
    return select(draws.reshape(kept.shape), jnp.minimum(count, wanted.sum()), among=wanted)


def _reset_beside(path: str, network: Network, emptied: Array, lifted: Array | None) -> tuple[Leaves, dict[str, Array]]:
    """What emptied units have besides their weights at its neutral value, and which values changed.

    The bias of the `lifted` units is at least a small positive one.
    """
    neutral = beside(path, network.params, network.activations)
    changed = {each: jnp.where(emptied, value, network.params[each]) for each, value in neutral.items()}
    flags = dict.fromkeys(neutral, emptied)
    bias = path.rpartition("/")[0] + "/bias"
    if lifted is not None and bias in changed:
        low = lifted & (changed[bias] < REVIVED_BIAS)
        changed[bias], flags[bias] = jnp.where(low, REVIVED_BIAS, changed[bias]), emptied | low
    return changed, flags


def _newborn(layer: Layer, birth: Birth) -> Float[Array, "*fan units"]:
    if birth == "zero":
        return jnp.zeros_like(layer.kernel)
    # folded, because the layer's key has chosen the units to prune
    key = jax.random.fold_in(layer.key, 1)
    return jax.nn.initializers.lecun_normal()(key, layer.kernel.shape, layer.kernel.dtype)
