"""Rules of the topology: which weights exist. NE, and the sparse training that people compare it with.

All of them work layer by layer: some existing weights are removed, then absent ones are born, in exact numbers. What is
removed, how many are born and where is what tells them apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from ne_jax.activity import Activity
from ne_jax.numbers import Number, is_known
from ne_jax.rule import Network, Rule, Step
from ne_jax.rules.topology import (
    Birth,
    Grow,
    Layer,
    Plan,
    Prune,
    Revive,
    change_topology,
    smallest,
    smallest_of_each_sign,
    smallest_share,
    to_prune,
)
from ne_jax.schedules import DensitySchedule, Share, counts_at


def neuroplastic(
    schedule: DensitySchedule,
    *,
    activity: Activity | None = None,
    prune: Prune = "dormant",
    omega: Number = 0.4,
    tau: Number = 0.0,
    grow: Grow = "gradient",
    birth: Birth = "zero",
    revive: Revive = "none",
    rewire: Share | None = None,
) -> Rule:
    """Neuroplastic Expansion: prune what dormant units hold, grow where the loss gradient asks (Liu et al., ICLR 2025).

    Each round and layer: weights into dormant units are removed, whole units in random order, but never more than
    `omega` of the number grown; then the absent weights with the largest `|dense gradient|` are born, as many as bring
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
        grow: the largest `|dense gradient|`, or at `random`.
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
        pruned = to_prune(layer, network, prune, _most_pruned(net, omega), tau)
        recycled = None if prune == "magnitude" else pruned
        if rewire is not None:
            dropped = smallest_share(layer, jnp.where(schedule.progress(step) >= 1, rewire(step), 0))
            pruned = dropped if pruned is None else pruned | dropped
        return Plan(pruned, net if pruned is None else net + pruned.sum(), recycled)

    return change_topology("neuroplastic", plan, activity if prune == "dormant" else None, grow, birth, revive)


def random_grow(
    schedule: DensitySchedule,
    *,
    activity: Activity | None = None,
    prune: Prune = "dormant",
    omega: Number = 0.4,
    tau: Number = 0.0,
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
    """RigL: exchange a share of the smallest weights for absent ones with the largest `|dense gradient|`, at the
    density that the network was given (Evci et al. 2020, section 3).

    What is dropped and grown again at once keeps its value and moments.

    Args:
        share: share of a layer's weights that is exchanged per round, usually `cosine_share(0.3, until)`.
        birth: newborn weights start at `zero`, or as the layer's LeCun-normal initialiser would draw them.
        revive: what happens to units without any incoming weight, as in `neuroplastic`.
    """
    return _exchange("rigl", share, "gradient", birth, revive, smallest_share)


def set_(share: Share, *, birth: Birth = "lecun", revive: Revive = "none") -> Rule:
    """SET: exchange a share of the smallest weights for random absent ones, at the density that the network was given
    (Mocanu et al. 2018, algorithm 1).

    The share is dropped from the positive weights, and again from the negative ones, as in the paper: those nearest to
    zero of each sign. What is dropped and grown again at once keeps its value and moments.

    Args:
        share: share of a layer's weights that is exchanged per round; the paper's is `constant_share(0.3)`.
        birth: newborn weights start at `zero`, or as the layer's LeCun-normal initialiser would draw them. The paper
            is silent; its authors' sparse code draws them as it draws initial weights, their masked code has zero.
        revive: what happens to units without any incoming weight, as in `neuroplastic`.
    """
    return _exchange("set", share, "random", birth, revive, smallest_of_each_sign)


def magnitude_prune(schedule: DensitySchedule) -> Rule:
    """Gradual pruning from dense to sparse: the smallest weights go until the layer is on `schedule` (Zhu and Gupta
    2017, arXiv:1710.01878). Nothing is ever born.

    Args:
        schedule: weights per layer over time, usually `cubic_pruning`.
    """

    def plan(layer: Layer, step: Step, network: Network) -> Plan:
        target = counts_at(schedule, {path: mask.shape for path, mask in network.masks.items()}, step)[layer.path]
        return Plan(smallest(layer, layer.mask.sum() - target), jnp.zeros((), jnp.int32))

    return change_topology("magnitude_prune", plan, None, "gradient", "zero", "none")


def _most_pruned(net: Int[Array, ""], omega: Number) -> Int[Array, ""]:
    """Of weights that a round may prune: grown = net + pruned, so pruned <= omega * grown means
    pruned <= net * omega / (1 - omega)."""
    share = omega / (1 - omega)
    if not is_known(omega):  # the quotient has float32's errors, and what should be whole must not fall below it
        share *= 1 + 1e-6
    return jnp.floor(net * share).astype(jnp.int32)


def _exchange(
    name: str,
    share: Share,
    grow: Grow,
    birth: Birth,
    revive: Revive,
    drop: Callable[[Layer, Array | float], Bool[Array, "*fan units"]],
) -> Rule:
    _check(birth=birth, revive=revive)

    def plan(layer: Layer, step: Step, network: Network) -> Plan:
        pruned = drop(layer, share(step))
        return Plan(pruned, pruned.sum())

    return change_topology(name, plan, None, grow, birth, revive)


def _check(omega: Number = 0.0, tau: Number = 0.0, **choices: str) -> None:
    if is_known(omega) and not 0 <= omega < 1:
        raise ValueError(
            f"omega must lie in [0, 1), got {omega}: pruning all that grows would never reach the schedule"
        )
    if is_known(tau) and tau < 0:
        raise ValueError(f"tau must not be negative, got {tau}: a dormancy score never is")
    kinds = {"prune": Prune, "grow": Grow, "birth": Birth, "revive": Revive}
    for name, value in choices.items():
        allowed = get_args(kinds[name])
        if value not in allowed:
            raise ValueError(f"{name} must be {' or '.join(map(repr, allowed))}, got {value!r}")
