"""How a network changes: the `Rule` type, which every method is a value of, and what composes them.

An rule is mostly one pure function from a network (weights, dense gradients, masks, activations) to the network
after a round. `plastic` decides when a round is due and keeps the optimiser's moments consistent. Methods that act in
every update give what they add to the gradients, or which leaves train. The makers are in `growth` (sparse
topologies), `resets` (units and layers that start anew) and here (the rest).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Int, Key, PyTree

from ne_jax.activity import Activity
from ne_jax.sparsity import Leaves, Masks

Step = Int[Array, ""] | int


class Network(NamedTuple):
    """What an rule sees, every tree as {path: array}. `activations` is None unless the rule asks for them.

    `masks` is empty for a dense network.
    """

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


class Rule(NamedTuple):
    """A rule that changes a network beside what its optimiser does.

    evolve(key, step, network): one round at update `step`; None where nothing happens in rounds.
    activity(params, batch): the unit activations that `evolve` looks at; None where it looks at none.
    before: changes the gradients of every update before the optimiser sees them.
    trainable(step, path): may this leaf train at update `step`? A scalar bool, traced or not. None: all may, always.
    name: what a sentence about it calls it; methods in a `chain` are joined by `+`.
    """

    evolve: Callable[[Key[Array, ""], Step, Network], Evolved] | None = None
    activity: Activity | None = None
    before: optax.GradientTransformation | None = None
    trainable: Callable[[Step, str], Any] | None = None
    name: str = "rule"


def static() -> Rule:
    """The topology stays as it was initialised; weights off the mask stay exactly zero."""
    return Rule(name="static")


TOPOLOGIES = ("static", "neuroplastic", "random_grow", "rigl", "set", "magnitude_prune")
"""Methods that own the masks: a network has one of them."""


def chain(*rules: Rule) -> Rule:
    """Several methods in one network; in a round each sees what the one before has made of it.

    Activations and gradients are those from before the round for all of them.

    Raises:
        ValueError: none are given, a method comes twice, two own the topology, or injection (which trains one of three
            copies) is to go with a method that changes weights in rounds.
    """
    if not rules:
        raise ValueError("chain needs at least one rule")
    names = [name for each in rules for name in each.name.split("+")]
    owners = [name for name in names if name in TOPOLOGIES]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name} comes twice in a chain of {', '.join(names)}; once is all it can do")
    if len(owners) > 1:
        raise ValueError(f"{' and '.join(owners)} cannot share a network: each of them says alone what is connected")
    changing = [each.name for each in rules if each.evolve is not None]
    if "plasticity_injection" in names and changing:
        raise ValueError(
            f"plasticity_injection cannot go with {', '.join(changing)}, whose rounds would move the frozen copies"
        )

    def evolve(key: Key[Array, ""], step: Step, network: Network) -> Evolved:
        params, masks, fresh = {}, {}, {}
        for i, each in enumerate(rules):
            if each.evolve is None:
                continue
            # The first method draws what it would draw alone. It may split the key, and splits are small numbers.
            changed = each.evolve(key if i == 0 else jax.random.fold_in(key, 2**31 - i), step, network)
            network = network._replace(params=network.params | changed.params, masks=network.masks | changed.masks)
            params, masks = params | changed.params, masks | changed.masks
            fresh |= {path: flags | fresh.get(path, False) for path, flags in changed.fresh.items()}
        return Evolved(params, masks, fresh)

    activities = [each.activity for each in rules if each.activity is not None]
    befores = [each.before for each in rules if each.before is not None]
    limits = [each.trainable for each in rules if each.trainable is not None]

    def activity(params: PyTree, batch: Any) -> Leaves:
        return {path: h for look in dict.fromkeys(activities) for path, h in look(params, batch).items()}

    def trainable(step: Step, path: str) -> Any:
        allowed = limits[0](step, path)
        for limit in limits[1:]:
            allowed &= limit(step, path)
        return allowed

    return Rule(
        evolve if changing else None,
        activity if activities else None,
        optax.chain(*befores) if befores else None,
        trainable if limits else None,
        name="+".join(names),
    )


def spaced(rule: Rule, every: int) -> Rule:
    """`rule` only in rounds at multiples of `every` updates, for a chain whose rounds come more often.

    Raises:
        ValueError: `every` is not positive.
    """
    if every < 1:
        raise ValueError(f"`every` must be a positive number of updates, got {every}")
    due = rule.evolve
    if due is None:
        return rule

    def evolve(key: Key[Array, ""], step: Step, network: Network) -> Evolved:
        shapes = jax.eval_shape(due, key, step, network)

        def rest() -> Evolved:
            return Evolved(
                {path: network.params[path] for path in shapes.params},
                {path: network.masks[path] for path in shapes.masks},
                {path: jnp.zeros(flags.shape, bool) for path, flags in shapes.fresh.items()},
            )

        return jax.lax.cond(jnp.asarray(step) % every == 0, lambda: due(key, step, network), rest)

    return rule._replace(evolve=evolve)


def within_masks(network: Network, changed: Leaves) -> Leaves:
    """The changed leaves, exactly zero where the network's masks say that there is no weight."""
    return {p: jnp.where(network.masks[p], leaf, 0) if p in network.masks else leaf for p, leaf in changed.items()}
