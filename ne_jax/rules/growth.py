"""Rules of the topology: which weights exist. NE, and the sparse training that people compare it with.

All of them work layer by layer: some existing weights are removed, then absent ones are born, in exact numbers. What is
removed, how many are born and where is what tells them apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from ne_jax.activity import Activity, incoming
from ne_jax.rule import Evolved, Network, Rule, Step, stateless
from ne_jax.schedules import DensitySchedule, Share, counts_at
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


def neuroplastic(
    schedule: DensitySchedule,
    *,
    activity: Activity | None = None,
    prune: Prune = "dormant",
    omega: float = 0.4,
    tau: float = 0.0,
    grow: Grow = "gradient",
    birth: Birth = "zero",
    revive: Revive = "none",
    rewire: Share | None = None,
) -> Rule:
    """Neuroplastic Expansion: prune what dormant units hold, grow where the loss gradient asks (Liu et al., ICLR 2025).

    Each round and layer: weights into dormant units are removed, whole units in random order, but never more than
    `omega` of the number grown; then the absent weights with the largest |dense gradient| are born, as many as bring
    the layer to `schedule` exactly. Once the schedule stands still nothing is pruned either, and the topology is fixed,
    unless `rewire` goes on. The bias of a unit that lost every incoming weight is reset to zero (and, where activations
    tell the layer's module, its norm's scale to one), unless `revive` says otherwise.

    Args:
        schedule: weights per layer over time, see `cosine_growth`.
        activity: `(params, batch) -> {module path: activations}`, see `flax_activity`; needs `tx.update(batch=...)`.
            None: nothing is pruned where pruning needs activations.
        prune: weights into units that are `dormant` by activity, or by gradient (`grama`); or the smallest weights
            (`magnitude`, always as many as `omega` allows); or `none`.
        omega: most that is pruned in a round, as a share of what is grown in it, in [0, 1).
        tau: a unit is dormant when its score is at most this, >= 0.
        grow: the largest |dense gradient|, or at `random`.
        birth: newborn weights start at `zero`, or as the layer's LeCun-normal initialiser would draw them.
        revive: what happens to units without any incoming weight, which a ReLU would keep out of reach of gradients for
            ever: nothing (`none`), a small positive `bias`, or a few of the round's births at random places with LeCun
            values (`lecun`), as many as the layer's average unit has.
        rewire: share of a layer's weights that is exchanged per round once the schedule stands still, smallest weights
            against growth; see `cosine_share`.

    Raises:
        ValueError: a setting is out of range.
    """
    _check(omega=omega, tau=tau, prune=prune, grow=grow, birth=birth, revive=revive)

    def plan(layer: Layer, step: Step, network: Network) -> Plan:
        n = layer.mask.sum()
        target = counts_at(schedule, {path: mask.shape for path, mask in network.masks.items()}, step)[layer.path]
        net = jnp.maximum(target - n, 0)
        # grown = net + pruned, so pruned <= omega * grown means pruned <= net * omega / (1 - omega)
        cap = jnp.floor(net * (omega / (1 - omega))).astype(jnp.int32)
        pruned = _to_prune(layer, network, prune, cap, tau)
        recycled = None if prune == "magnitude" else pruned
        if rewire is not None:
            exchanged = jnp.where(schedule.progress(step) >= 1, _share(rewire, step, n), 0)
            smallest = _smallest(layer, exchanged)
            pruned = smallest if pruned is None else pruned | smallest
        return Plan(pruned, net if pruned is None else net + pruned.sum(), recycled)

    return _topology("neuroplastic", plan, activity if prune == "dormant" else None, grow, birth, revive)


def random_grow(
    schedule: DensitySchedule,
    *,
    activity: Activity | None = None,
    prune: Prune = "dormant",
    omega: float = 0.4,
    tau: float = 0.0,
    birth: Birth = "zero",
    revive: Revive = "none",
    rewire: Share | None = None,
) -> Rule:
    """`neuroplastic`, but weights are born at random: the ablation that says what the gradient is good for.

    Args:
        schedule: weights per layer over time, see `cosine_growth`.
        activity: `(params, batch) -> {module path: activations}`; None: nothing is pruned where that needs activations.
        prune: what is removed, as in `neuroplastic`.
        omega: most that is pruned in a round, as a share of what is grown in it, in [0, 1).
        tau: a unit is dormant when its score is at most this, >= 0.
        birth: newborn weights start at `zero`, or as the layer's LeCun-normal initialiser would draw them.
        revive: what happens to units without any incoming weight, as in `neuroplastic`.
        rewire: share of a layer's weights that is exchanged per round once the schedule stands still.

    Raises:
        ValueError: a setting is out of range.
    """
    rule = neuroplastic(
        schedule,
        activity=activity,
        prune=prune,
        omega=omega,
        tau=tau,
        grow="random",
        birth=birth,
        revive=revive,
        rewire=rewire,
    )
    return rule._replace(name="random_grow")


def rigl(share: Share, *, birth: Birth = "zero", revive: Revive = "none") -> Rule:
    """RigL: exchange a share of the smallest weights for absent ones with the largest |dense gradient|, at the density
    that the network was given (Evci et al. 2020, section 3).

    What is dropped and grown again at once keeps its value and moments.

    Args:
        share: share of a layer's weights that is exchanged per round, usually `cosine_share(0.3, until)`.
        birth: newborn weights start at `zero`, or as the layer's LeCun-normal initialiser would draw them.
        revive: what happens to units without any incoming weight, as in `neuroplastic`.
    """
    return _exchange("rigl", share, "gradient", birth, revive)


def set_(share: Share, *, birth: Birth = "lecun", revive: Revive = "none") -> Rule:
    """SET: exchange a share of the smallest weights for random absent ones, at the density that the network was given
    (Mocanu et al. 2018, algorithm 1).

    What is dropped and grown again at once keeps its value and moments.

    Args:
        share: share of a layer's weights that is exchanged per round; the paper's is `constant_share(0.3)`.
        birth: newborn weights start at `zero`, or as the layer's LeCun-normal initialiser would draw them.
        revive: what happens to units without any incoming weight, as in `neuroplastic`.
    """
    return _exchange("set", share, "random", birth, revive)


def magnitude_prune(schedule: DensitySchedule) -> Rule:
    """Gradual pruning from dense to sparse: the smallest weights go until the layer is on `schedule` (Zhu and Gupta
    2017, arXiv:1710.01878). Nothing is ever born.

    Args:
        schedule: weights per layer over time, usually `cubic_pruning`.
    """

    def plan(layer: Layer, step: Step, network: Network) -> Plan:
        target = counts_at(schedule, {path: mask.shape for path, mask in network.masks.items()}, step)[layer.path]
        return Plan(_smallest(layer, layer.mask.sum() - target), jnp.zeros((), jnp.int32))

    return _topology("magnitude_prune", plan, None, "gradient", "zero", "none")


def _exchange(name: str, share: Share, grow: Grow, birth: Birth, revive: Revive) -> Rule:
    _check(birth=birth, revive=revive)

    def plan(layer: Layer, step: Step, network: Network) -> Plan:
        pruned = _smallest(layer, _share(share, step, layer.mask.sum()))
        return Plan(pruned, pruned.sum())

    return _topology(name, plan, None, grow, birth, revive)


def _topology(
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


def _to_prune(
    layer: Layer, network: Network, prune: Prune, cap: Int[Array, ""], tau: float
) -> Bool[Array, "*fan units"] | None:
    """At most `cap` of the layer's weights: the smallest, or those into dormant units. None: never any."""
    if prune == "none" or (prune == "dormant" and network.activations is None):
        return None
    if prune == "magnitude":
        return _smallest(layer, cap)
    units = layer.mask.shape[-1]
    if prune == "grama":
        idle = gradient_idle(layer.gradient, tau)
    else:
        idle = idle_units(layer.path, units, network.activations or {}, tau)
    # All candidates, or where they exceed the cap, unit after unit in random order up to it.
    order = jax.random.uniform(layer.key, (units,))
    return select(jnp.broadcast_to(order, layer.mask.shape), cap, among=layer.mask & incoming(idle, layer.mask.shape))


def _smallest(layer: Layer, count: Int[Array, ""]) -> Bool[Array, "*fan units"]:
    return select(-jnp.abs(layer.kernel), count, among=layer.mask)


def _share(share: Share, step: Step, n: Int[Array, ""]) -> Int[Array, ""]:
    return jnp.floor(share(step) * n).astype(jnp.int32)


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
    neutral = beside(path, network)
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


def _check(omega: float = 0.0, tau: float = 0.0, **choices: str) -> None:
    if not 0 <= omega < 1:
        raise ValueError(
            f"omega must lie in [0, 1), got {omega}: pruning all that grows would never reach the schedule"
        )
    if tau < 0:
        raise ValueError(f"tau must not be negative, got {tau}: a dormancy score never is")
    kinds = {"prune": Prune, "grow": Grow, "birth": Birth, "revive": Revive}
    for name, value in choices.items():
        allowed = get_args(kinds[name])
        if value not in allowed:
            raise ValueError(f"{name} must be {' or '.join(map(repr, allowed))}, got {value!r}")
