"""Rules that start parts of a network anew: units that went silent, layers, or everything a little.

They need `initialise(key)`, the network's own initialiser: fresh parameters of the same structure. They work on dense
networks (`plastic(..., where=None)`) and on sparse ones, whose absent weights stay exactly zero.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Key, PyTree

from ne_jax.activity import Activity, incoming, outgoing, units_of
from ne_jax.rule import Evolved, Network, Rule, Step, stateless, within_masks
from ne_jax.sparsity import Where, kernels, leaves_by_path
from ne_jax.units import Follows, beside, gradient_idle, idle_units, numbered

Initialise = Callable[[Key[Array, ""]], PyTree]
TO_HEAD = numbered("head")


def redo(activity: Activity, initialise: Initialise, *, tau: float = 0.1, follows: Follows = TO_HEAD) -> Rule:
    """ReDo: units whose dormancy score is at most `tau` start anew (Sokar et al. 2023, algorithm 1).

    Weights into such a unit, its bias and its norm's scale and bias are drawn by `initialise`, weights that lead on
    from it are set to zero, and the optimiser forgets both. A layer takes part if it has activations and `follows` says
    whose input it is; a network's last layer has no units that could be dormant.

    Args:
        activity: `(params, batch) -> {module path: activations}`, see `flax_activity`; needs `tx.update(batch=...)`.
        initialise: draws fresh parameters of the whole network from a key.
        tau: a unit starts anew when its score is at most this, >= 0.
        follows: says which kernel takes a layer's output; layers that none follows have no units to recycle.

    Raises:
        ValueError: `tau` is negative; in a round, no layer takes part.
    """

    def idle(path: str, network: Network) -> Bool[Array, " units"]:
        return idle_units(path, network.params[path].shape[-1], network.activations or {}, tau)

    return _recycle("redo", idle, activity, initialise, tau, follows)


def grama(activity: Activity, initialise: Initialise, *, tau: float = 0.01, follows: Follows = TO_HEAD) -> Rule:
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

    def idle(path: str, network: Network) -> Bool[Array, " units"]:
        return gradient_idle(network.gradients[path], tau)

    return _recycle("grama", idle, activity, initialise, tau, follows)


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
        return Evolved(
            within_masks(network, new),
            {},
            fresh={p: jnp.ones(leaf.shape, bool) for p, leaf in new.items()},
            renewed={p: jnp.ones((), bool) for p in new},
        )

    return Rule(stateless(evolve), renews=where, name="reset")


def shrink_and_perturb(initialise: Initialise, *, shrink: float = 0.8, perturb: float = 0.2) -> Rule:
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
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must lie in [0, 1], got {value}")

    def evolve(key: Key[Array, ""], step: Step, network: Network) -> Evolved:
        new = {p: shrink * network.params[p] + perturb * leaf for p, leaf in leaves_by_path(initialise(key)).items()}
        return Evolved(
            within_masks(network, new),
            {},
            fresh={p: jnp.ones(leaf.shape, bool) for p, leaf in new.items()},
            renewed={p: jnp.ones((), bool) for p in new},
        )

    return Rule(stateless(evolve), renews=lambda path, leaf: True, name="shrink_and_perturb")


def _recycle(
    name: str,
    idle: Callable[[str, Network], Bool[Array, " units"]],
    activity: Activity,
    initialise: Initialise,
    tau: float,
    follows: Follows,
) -> Rule:
    if tau < 0:
        raise ValueError(f"tau must not be negative, got {tau}: a score never is")

    def evolve(key: Key[Array, ""], step: Step, network: Network) -> Evolved:
        paths = [p for p, leaf in network.params.items() if kernels(p, leaf)]
        layers = {p: follows(p, paths) for p in paths if units_of(p, network.activations or {}) is not None}
        layers = {p: following for p, following in layers.items() if following is not None}
        if not layers:
            raise ValueError(f"{name} finds no layer that has activations and a layer behind it, among {sorted(paths)}")
        drawn = leaves_by_path(initialise(key))
        params, fresh = {}, {}

        def put(path: str, flags: Array, value: Array) -> None:
            params[path] = jnp.where(flags, value, params.get(path, network.params[path]))
            fresh[path] = flags | fresh.get(path, False)

        units = {path: idle(path, network) for path in layers}
        for path, flags in units.items():
            put(path, incoming(flags, drawn[path].shape), drawn[path])
            for leaf in beside(path, network):
                put(leaf, flags, drawn[leaf])
        # After all that comes in: what leads on from a recycled unit is zero even into another one.
        for path, flags in units.items():
            following = layers[path]
            put(following, outgoing(flags, drawn[following].shape), jnp.zeros(()))
        return Evolved(within_masks(network, params), {}, fresh)

    return Rule(stateless(evolve), activity, name=name)
