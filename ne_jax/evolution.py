"""How a topology changes: the `Evolution` type and its makers.

An evolution is one pure function from a network (weights, dense gradients, masks, activations) to the network after a
round of growing and pruning. `plastic` decides when a round is due and keeps the optimiser's moments consistent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from ne_jax.activity import Activity, dormant, incoming, units_of
from ne_jax.schedules import DensitySchedule, counts_at
from ne_jax.sparsity import Leaves, Masks, select

Step = Int[Array, ""] | int


class Network(NamedTuple):
    """What an evolution sees, every tree as {path: array}. `activations` is None unless the evolution asks for them."""

    params: Leaves
    gradients: Leaves
    masks: Masks
    activations: Leaves | None


class Evolved(NamedTuple):
    """The network after a round. `fresh` marks the weights that were born, removed or reset: their optimiser state is
    cleared. Leaves that did not change may be left out of all three."""

    params: Leaves
    masks: Masks
    fresh: dict[str, Bool[Array, "..."]]


class Evolution(NamedTuple):
    """A rule that changes a network's topology.

    `evolve(key, step, network)` is one round at update `step`, or None where the topology stands still. `activity`
    computes the unit activations that the rule looks at, or is None where it looks at none.
    """

    evolve: Callable[[Key[Array, ""], Step, Network], Evolved] | None
    activity: Activity | None = None


def static() -> Evolution:
    """The topology stays as it was initialised; weights off the mask stay exactly zero."""
    return Evolution(evolve=None)


def neuroplastic(
    schedule: DensitySchedule,
    *,
    activity: Activity | None = None,
    omega: float = 0.4,
    tau: float = 0.0,
    birth: Literal["zero", "lecun"] = "zero",
) -> Evolution:
    """Neuroplastic Expansion: prune what dormant units hold, grow where the loss gradient asks (Liu et al., ICLR 2025).

    Each round and layer: weights into dormant units are removed, whole units in random order, but never more than
    `omega` of the number grown; then the absent weights with the largest |dense gradient| are born, as many as bring
    the layer to `schedule` exactly. Once the schedule stands still nothing is pruned either, and the topology is fixed.
    The bias of a unit that lost every incoming weight is reset to zero.

    Args:
        schedule: weights per layer over time, see `cosine_growth`.
        activity: `(params, batch) -> {module path: activations}`, see `flax_activity`; needs `tx.update(batch=...)`.
            None: the network grows and nothing is pruned.
        omega: most that is pruned in a round, as a share of what is grown in it, in [0, 1).
        tau: a unit is dormant when its dormancy score is at most this, >= 0.
        birth: newborn weights start at `zero`, or as the layer's LeCun-normal initialiser would draw them.
    """
    if not 0 <= omega < 1:
        raise ValueError(
            f"omega must lie in [0, 1), got {omega}: pruning all that grows would never reach the schedule"
        )
    if tau < 0:
        raise ValueError(f"tau must not be negative, got {tau}: a dormancy score never is")
    if birth not in ("zero", "lecun"):
        raise ValueError(f"birth must be 'zero' or 'lecun', got {birth!r}")

    def evolve(key: Key[Array, ""], step: Step, network: Network) -> Evolved:
        shapes = {path: mask.shape for path, mask in network.masks.items()}
        targets = counts_at(schedule, shapes, step)
        params, masks, fresh = {}, {}, {}
        for path, layer_key in zip(sorted(shapes), jax.random.split(key, len(shapes)), strict=True):
            mask, kernel = network.masks[path], network.params[path]
            net_growth = jnp.maximum(targets[path] - mask.sum(), 0)
            idle = _dormant_units(path, network.activations, tau)
            pruned = jnp.zeros(mask.shape, bool)
            if idle is not None:
                pruned = _choose_units(layer_key, mask & incoming(idle, mask.shape), net_growth, omega)
            kept = mask & ~pruned
            born = select(jnp.abs(network.gradients[path]), net_growth + pruned.sum(), among=~kept)
            newborn = _newborn(layer_key, kernel, birth)
            masks[path], fresh[path] = kept | born, pruned | born
            params[path] = jnp.where(born, newborn, jnp.where(kept, kernel, 0))
            bias = path.rpartition("/")[0] + "/bias"
            if idle is not None and bias in network.params:
                emptied = pruned.any(axis=range(mask.ndim - 1)) & ~kept.any(axis=range(mask.ndim - 1))
                params[bias], fresh[bias] = jnp.where(emptied, 0, network.params[bias]), emptied
        return Evolved(params, masks, fresh)

    return Evolution(evolve, activity)


def _dormant_units(path: str, activations: Leaves | None, tau: float) -> Bool[Array, " units"] | None:
    if activations is None:
        return None
    layer = units_of(path, activations)
    if layer is None:
        raise ValueError(
            f"there are no activations for the sparse kernel {path}, only for {sorted(activations)}; "
            "sow them in its module, or leave it out by `where`"
        )
    return dormant(layer, tau)


def _choose_units(
    key: Key[Array, ""], candidates: Bool[Array, "*fan units"], net_growth: Int[Array, ""], omega: float
) -> Bool[Array, "*fan units"]:
    """All candidates, or where they exceed the cap, unit after unit in random order up to it."""
    # grown = net + pruned, so pruned <= omega * grown means pruned <= net * omega / (1 - omega)
    cap = jnp.floor(net_growth * (omega / (1 - omega))).astype(jnp.int32)
    order = jax.random.uniform(key, candidates.shape[-1:])
    return select(jnp.broadcast_to(order, candidates.shape), cap, among=candidates)


def _newborn(key: Key[Array, ""], kernel: Float[Array, "..."], birth: str) -> Float[Array, "..."]:
    if birth == "zero":
        return jnp.zeros_like(kernel)
    # folded, because the layer's key has chosen the units to prune
    return jax.nn.initializers.lecun_normal()(jax.random.fold_in(key, 1), kernel.shape, kernel.dtype)
