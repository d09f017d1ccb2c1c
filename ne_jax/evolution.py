"""How a network changes: the `Evolution` type, which every method is a value of, and what composes them.

An evolution is mostly one pure function from a network (weights, dense gradients, masks, activations) to the network
after a round. `plastic` decides when a round is due and keeps the optimiser's moments consistent. Methods that act in
every update give what they add to the gradients, or which leaves train. The makers are in `growth` (sparse
topologies), `resets` (units and layers that start anew) and here (the rest).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Int, Key, PyTree

from ne_jax.activity import Activity
from ne_jax.sparsity import Leaves, Masks, leaves_by_path, replace_leaves

Step = Int[Array, ""] | int


class Network(NamedTuple):
    """What an evolution sees, every tree as {path: array}. `activations` is None unless the evolution asks for them.

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


class Evolution(NamedTuple):
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
    name: str = "evolution"


def static() -> Evolution:
    """The topology stays as it was initialised; weights off the mask stay exactly zero."""
    return Evolution(name="static")


TOPOLOGIES = ("static", "neuroplastic", "random_grow", "rigl", "set", "magnitude_prune")
"""Methods that own the masks: a network has one of them."""


def chain(*evolutions: Evolution) -> Evolution:
    """Several methods in one network; in a round each sees what the one before has made of it.

    Activations and gradients are those from before the round for all of them.

    Raises:
        ValueError: none are given, a method comes twice, two own the topology, or injection (which trains one of three
            copies) is to go with a method that changes weights in rounds.
    """
    if not evolutions:
        raise ValueError("chain needs at least one evolution")
    names = [name for each in evolutions for name in each.name.split("+")]
    owners = [name for name in names if name in TOPOLOGIES]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name} comes twice in a chain of {', '.join(names)}; once is all it can do")
    if len(owners) > 1:
        raise ValueError(f"{' and '.join(owners)} cannot share a network: each of them says alone what is connected")
    changing = [each.name for each in evolutions if each.evolve is not None]
    if "plasticity_injection" in names and changing:
        raise ValueError(
            f"plasticity_injection cannot go with {', '.join(changing)}, whose rounds would move the frozen copies"
        )

    def evolve(key: Key[Array, ""], step: Step, network: Network) -> Evolved:
        params, masks, fresh = {}, {}, {}
        for i, each in enumerate(evolutions):
            if each.evolve is None:
                continue
            # The first method draws what it would draw alone. It may split the key, and splits are small numbers.
            changed = each.evolve(key if i == 0 else jax.random.fold_in(key, 2**31 - i), step, network)
            network = network._replace(params=network.params | changed.params, masks=network.masks | changed.masks)
            params, masks = params | changed.params, masks | changed.masks
            fresh |= {path: flags | fresh.get(path, False) for path, flags in changed.fresh.items()}
        return Evolved(params, masks, fresh)

    activities = [each.activity for each in evolutions if each.activity is not None]
    befores = [each.before for each in evolutions if each.before is not None]
    limits = [each.trainable for each in evolutions if each.trainable is not None]

    def activity(params: PyTree, batch: Any) -> Leaves:
        return {path: h for look in dict.fromkeys(activities) for path, h in look(params, batch).items()}

    def trainable(step: Step, path: str) -> Any:
        allowed = limits[0](step, path)
        for limit in limits[1:]:
            allowed &= limit(step, path)
        return allowed

    return Evolution(
        evolve if changing else None,
        activity if activities else None,
        optax.chain(*befores) if befores else None,
        trainable if limits else None,
        name="+".join(names),
    )


def spaced(evolution: Evolution, every: int) -> Evolution:
    """`evolution` only in rounds at multiples of `every` updates, for a chain whose rounds come more often.

    Raises:
        ValueError: `every` is not positive.
    """
    if every < 1:
        raise ValueError(f"`every` must be a positive number of updates, got {every}")
    rule = evolution.evolve
    if rule is None:
        return evolution

    def evolve(key: Key[Array, ""], step: Step, network: Network) -> Evolved:
        shapes = jax.eval_shape(rule, key, step, network)

        def rest() -> Evolved:
            return Evolved(
                {path: network.params[path] for path in shapes.params},
                {path: network.masks[path] for path in shapes.masks},
                {path: jnp.zeros(flags.shape, bool) for path, flags in shapes.fresh.items()},
            )

        return jax.lax.cond(jnp.asarray(step) % every == 0, lambda: rule(key, step, network), rest)

    return evolution._replace(evolve=evolve)


def regenerative_l2(strength: float) -> Evolution:
    """Regenerative regularisation: the loss gets `strength * ||p - p_0||^2` (Kumar et al. 2023, arXiv:2308.11958).

    p_0 are the parameters that the optimiser was initialised with. The gradient `2 * strength * (p - p_0)` goes through
    the optimiser, as a term of the loss does.

    Raises:
        ValueError: `strength` is not positive.
    """
    if strength <= 0:
        raise ValueError(f"strength must be positive, got {strength}")

    def update(gradients: PyTree, initial: PyTree, params: PyTree | None = None) -> tuple[PyTree, PyTree]:
        pulled = jax.tree.map(lambda g, p, p0: g + 2 * strength * (p - p0), gradients, params, initial)
        return pulled, initial

    # A copy, because a program may donate the parameters and what the optimiser keeps beside each other.
    init = partial(jax.tree.map, jnp.copy)
    return Evolution(before=optax.GradientTransformation(init, update), name="regenerative_l2")


def plasticity_injection(at: int, *, trunk: str = "trunk", fresh: str = "fresh", anchor: str = "anchor") -> Evolution:
    """Plasticity injection at update `at`: h(x; trunk) + h(x; fresh) - h(x; anchor), the last two equal at first
    (Nikishin et al. 2023, arXiv:2305.15555, section 3).

    Until `at` the trunk trains alone and the other two cancel; from `at` on the trunk is frozen and `fresh` learns what
    is to be added. The output is the same right before and after, and so is the number of trained parameters. The three
    are modules of those names in the network; `inject` makes the last two equal. Other leaves train throughout.

    Raises:
        ValueError: `at` is negative.
    """
    if at < 0:
        raise ValueError(f"`at` must not be a negative number of updates, got {at}")

    def trainable(step: Step, path: str) -> Any:
        parts = path.split("/")
        if anchor in parts:
            return False
        if trunk in parts:
            return jnp.asarray(step) < at
        return jnp.asarray(step) >= at if fresh in parts else True

    return Evolution(trainable=trainable, name="plasticity_injection")


def inject(params: PyTree, *, fresh: str = "fresh", anchor: str = "anchor") -> PyTree:
    """`params` with the modules called `anchor` set to what those called `fresh` beside them hold.

    Raises:
        ValueError: the network has no module called `anchor`.
    """
    found = leaves_by_path(params)
    copies = {
        path: found["/".join(fresh if part == anchor else part for part in path.split("/"))]
        for path in found
        if anchor in path.split("/")
    }
    if not copies:
        raise ValueError(f"the network has no module called {anchor!r} that could cancel the injected one")
    return replace_leaves(params, copies)


def within_masks(network: Network, changed: Leaves) -> Leaves:
    """The changed leaves, exactly zero where the network's masks say that there is no weight."""
    return {p: jnp.where(network.masks[p], leaf, 0) if p in network.masks else leaf for p, leaf in changed.items()}
