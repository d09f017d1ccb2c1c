"""Rules that start parts of a network anew: units that went silent, layers, or everything a little.

They need `initialise(key)`, the network's own initialiser: fresh parameters of the same structure. They work on dense
networks (`plastic(..., where=None)`) and on sparse ones, whose absent weights stay exactly zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Key, PyTree

from ne_jax.activity import Activity, dormant, outgoing, units_of
from ne_jax.numbers import Number, is_known
from ne_jax.rule import Evolved, Network, Rule, Step, stateless, within_masks
from ne_jax.sparsity import Leaves, Where, kernels, leaves_by_path
from ne_jax.units import Follows, begun_anew, beside, gradient_idle, idle_units, numbered

Initialise = Callable[[Key[Array, ""]], PyTree]
Idle = Callable[[str, Network], Bool[Array, " units"]]
"""Which units of the kernel at a path begin anew."""
TO_HEAD = numbered("head")


class _Recycling(NamedTuple):
    """The settings of `redo` and `grama`, as a round takes them."""

    name: str
    idle: Idle
    initialise: Initialise
    follows: Follows
    leads_out: Where
    taken: Callable[[Network], dict[str, Bool[Array, " units"]]]
    """Of kernels that take another network's units: which of these begin anew there."""


def redo(
    activity: Activity,
    initialise: Initialise,
    *,
    tau: Number = 0.1,
    follows: Follows = TO_HEAD,
    leads_out: Where = lambda path, leaf: False,
    taken: Mapping[str, str] | None = None,
) -> Rule:
    """ReDo: units whose dormancy score is at most `tau` start anew (Sokar et al. 2023, algorithm 1).

    Weights into such a unit are drawn by `initialise`, its bias is set to zero (its norm's scale to one and bias to
    zero), weights that lead on from it are set to zero, and the optimiser forgets all of them. A layer takes part if it
    has activations and `follows` says whose input it is; a network's last layer has no units that could be dormant.

    Where the layer behind is in another network with an optimiser of its own, as behind the last convolution of an
    encoder, each of the two does its share in the same round: one with `leads_out`, the other with `taken`.

    Args:
        activity: `(params, batch) -> {module path: activations}`, see `flax_activity`; needs `tx.update(batch=...)`.
        initialise: draws fresh parameters of the whole network from a key.
        tau: a unit starts anew when its score is at most this, >= 0.
        follows: says which kernel takes a layer's output; layers that none follows have no units to recycle.
        leads_out: layers that none follows in this network, but one in another; their units start anew too.
        taken: of kernels that take the output of another network's layer, the key under which `activity` gives that
            layer's activations; their weights from its idle units are set to zero.

    Raises:
        ValueError: `tau` is negative; in a round, no layer takes part, or `taken` names a kernel that there is not.
    """
    _check_tau(tau)

    def idle(path: str, network: Network) -> Bool[Array, " units"]:
        return idle_units(path, network.params[path].shape[-1], network.activations or {}, tau)

    def from_outside(network: Network) -> dict[str, Bool[Array, " units"]]:
        activations = network.activations or {}
        return {path: dormant(activations[layer], tau) for path, layer in (taken or {}).items()}

    setup = _Recycling("redo", idle, initialise, follows, leads_out, from_outside)
    return Rule(stateless(partial(_recycle, setup)), activity, name="redo")


def grama(activity: Activity, initialise: Initialise, *, tau: Number = 0.01, follows: Follows = TO_HEAD) -> Rule:
    """ReGraMa: as `redo`, but a unit starts anew where its gradient is small beside its layer's (Liu et al. 2025,
    arXiv:2505.24061). See `gradient_activity` for the score; `activity` only says which layers have units.

    Args:
        activity: `(params, batch) -> {module path: activations}`, see `flax_activity`; needs `tx.update(batch=...)`.
        initialise: draws fresh parameters of the whole network from a key.
        tau: a unit starts anew when its score is at most this, >= 0.
        follows: says which kernel takes a layer's output; layers that none follows have no units to recycle.

    Raises:
        ValueError: `tau` is negative; in a round, no layer takes part.
    """
    _check_tau(tau)

    def idle(path: str, network: Network) -> Bool[Array, " units"]:
        return gradient_idle(network.gradients[path], tau)

    setup = _Recycling("grama", idle, initialise, follows, lambda path, leaf: False, lambda network: {})
    return Rule(stateless(partial(_recycle, setup)), activity, name="grama")


def reset(initialise: Initialise, *, where: Where = lambda path, leaf: True) -> Rule:
    """Every round the leaves that `where` chooses start anew (Nikishin et al. 2022, "The primacy bias", section 4).

    The paper makes target networks anew too: see `ne_jax.renewed`.

    Args:
        initialise: draws fresh parameters of the whole network from a key.
        where: the leaves that start anew, by path; all of them by default.

    Raises:
        ValueError: in a round, `where` chooses no leaf.
    """

    def evolve(key: Key[Array, ""], step: Step, network: Network) -> Evolved:
        new = {p: leaf for p, leaf in leaves_by_path(initialise(key)).items() if where(p, network.params[p])}
        if not new:
            raise ValueError(f"reset: `where` chooses none of {sorted(network.params)}")
        return renewed_leaves(network, new)

    return Rule(stateless(evolve), renews=where, name="reset")


def shrink_and_perturb(initialise: Initialise, *, shrink: Number = 0.8, perturb: Number = 0.2) -> Rule:
    """Every round p becomes `shrink * p + perturb * fresh`, and the optimiser forgets everything (Ash and Adams 2020,
    arXiv:1910.08475; with fresh initial parameters as noise, as D'Oro et al. 2023 have it).

    Target networks should follow at once, see `ne_jax.renewed`: DrM (Xu et al. 2024) perturbs them too.

    Args:
        initialise: draws fresh parameters of the whole network from a key.
        shrink: share of each weight's old value that stays, in [0, 1].
        perturb: share of the fresh value that is added, in [0, 1].

    Raises:
        ValueError: `shrink` or `perturb` lies outside [0, 1].
    """
    for name, value in (("shrink", shrink), ("perturb", perturb)):
        if is_known(value) and not 0 <= value <= 1:
            raise ValueError(f"{name} must lie in [0, 1], got {value}")

    def evolve(key: Key[Array, ""], step: Step, network: Network) -> Evolved:
        new = {p: shrink * network.params[p] + perturb * leaf for p, leaf in leaves_by_path(initialise(key)).items()}
        return renewed_leaves(network, new)

    return Rule(stateless(evolve), renews=lambda path, leaf: True, name="shrink_and_perturb")


def renewed_leaves(network: Network, new: Leaves) -> Evolved:
    """A round after which these leaves are others as wholes: the optimiser forgets them, and targets copy them."""
    return Evolved(
        within_masks(network, new),
        {},
        fresh={path: jnp.ones(leaf.shape, bool) for path, leaf in new.items()},
        renewed={path: jnp.ones((), bool) for path in new},
    )


def _check_tau(tau: Number) -> None:
    if is_known(tau) and tau < 0:
        raise ValueError(f"tau must not be negative, got {tau}: a score never is")


def _recycle(setup: _Recycling, key: Key[Array, ""], step: Step, network: Network) -> Evolved:
    paths = [p for p, leaf in network.params.items() if kernels(p, leaf)]
    layers = {p: setup.follows(p, paths) for p in paths if units_of(p, network.activations or {}) is not None}
    layers = {p: behind for p, behind in layers.items() if behind or setup.leads_out(p, network.params[p])}
    if not layers:
        raise ValueError(
            f"{setup.name} finds no layer that has activations and a layer behind it, among {sorted(paths)}"
        )
    units = {path: setup.idle(path, network) for path in layers}
    neutral = {path: beside(path, network.params, network.activations) for path in layers}
    inside = {path: behind for path, behind in layers.items() if behind is not None}
    drawn = leaves_by_path(setup.initialise(key))
    params, fresh = begun_anew(units, inside, neutral, drawn, network.params)
    for path, flags in setup.taken(network).items():
        if path not in paths:
            raise ValueError(f"{setup.name}: `taken` names {path}, which is none of {sorted(paths)}")
        gone = outgoing(flags, network.params[path].shape)
        params[path] = jnp.where(gone, 0.0, params.get(path, network.params[path]))
        fresh[path] = gone | fresh.get(path, False)
    return Evolved(within_masks(network, params), {}, fresh)
