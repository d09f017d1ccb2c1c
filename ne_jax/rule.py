"""How a network changes: the `Rule` type, which every method is a value of, and what composes them.

A rule is mostly one pure function from a network (weights, dense gradients, masks, activations) to the network
after a round. `plastic` decides when a round is due and keeps the optimiser's state consistent. A rule may remember
something between updates, change the gradients of every update, or say which leaves train. The makers are in
`ne_jax.rules`, a file per family; what composes them is here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key, PyTree

from ne_jax.activity import Activity
from ne_jax.control import cond_any_closing
from ne_jax.sparsity import Leaves, Masks, Where

Step = Int[Array, ""] | int
RuleState = PyTree[Array]
"""What a rule remembers from update to update: arrays alone; `()` for a rule that remembers nothing."""


class Network(NamedTuple):
    """What a rule sees, every tree as {path: array}. `activations` is None unless the rule asks for them.

    `masks` is empty for a dense network. `inputs` is the batch that `tx.update` was given, a pytree of [batch, ...].
    """

    params: Leaves
    gradients: Leaves
    masks: Masks
    activations: Leaves | None
    inputs: PyTree = None


class Evolved(NamedTuple):
    """The network after a round. Leaves that did not change may be left out of all five.

    Attributes:
        fresh: the weights that were born, removed or reset; what the optimiser keeps of them begins anew.
        adjusted: the weights that change too, but of which the optimiser keeps what it has. All others train on as
            usual.
        renewed: whether the whole leaf began anew, so that its copies (targets) should be replaced at once; only for
            leaves that `Rule.renews` chooses.
    """

    params: Leaves
    masks: Masks
    fresh: dict[str, Bool[Array, "..."]]
    adjusted: dict[str, Bool[Array, "..."]] | None = None
    renewed: dict[str, Bool[Array, ""]] | None = None


Evolve = Callable[[RuleState, Key[Array, ""], Step, Network], tuple[RuleState, Evolved]]
Observe = Callable[[RuleState, Step, Network], RuleState]
Gradient = Callable[[RuleState, Step, Network], Leaves]
Adjust = Callable[[RuleState, Key[Array, ""], Step, Network, Leaves], tuple[RuleState, Leaves]]
Reborn = Callable[[RuleState, Leaves, dict[str, Bool[Array, "..."]]], RuleState]


class Rule(NamedTuple):
    """A rule that changes a network beside what its optimiser does. Every part may be None, and then costs nothing.

    Attributes:
        evolve(state, key, step, network): one round at update `step`; see `stateless` for a rule that remembers
            nothing.
        activity(params, batch): the unit activations that `evolve` and `observe` look at.
        gradient(state, step, network): the gradients that change before the optimiser sees them, in every update; there
            are no activations.
        adjust(state, key, step, network, updates): in every update, the new state, and those updates of the optimiser
            that change; `network` is that before the update, without activations.
        trainable(step, path): may this leaf train at update `step`? None: all may, always.
        init(params, masks): the state that the rule begins with, any pytree of arrays; None: `()`.
        observe(state, step, network): the state after an update, in every one; `network` holds the updated weights, and
            the gradients and activations that the update was made from. In a round it comes before `evolve`.
        reborn(state, params, fresh): the state after a round, whichever rule of a chain made it: the network's
            parameters after it, and the weights that were born, removed or reset.
        urgent(state): must there be a round at once, after this update, whenever the next one would be? In a chain it
            is a round of all methods but those that `spaced` keeps to their updates.
        renews(path, leaf): the leaves that a round may start anew as wholes, see `Evolved.renewed`.
        name: what a sentence about it calls it; methods in a `chain` are joined by `+`.
    """

    evolve: Evolve | None = None
    activity: Activity | None = None
    gradient: Gradient | None = None
    adjust: Adjust | None = None
    trainable: Callable[[Step, str], Bool[Array, ""] | bool] | None = None
    init: Callable[[Leaves, Masks], RuleState] | None = None
    observe: Observe | None = None
    reborn: Reborn | None = None
    urgent: Callable[[RuleState], Bool[Array, ""]] | None = None
    renews: Where | None = None
    name: str = "rule"


def stateless(evolve: Callable[[Key[Array, ""], Step, Network], Evolved]) -> Evolve:
    """`evolve` of a rule that remembers nothing: `Rule(stateless(evolve))`."""
    return lambda state, key, step, network: (state, evolve(key, step, network))


def initial(rule: Rule, params: Leaves, masks: Masks) -> RuleState:
    """The state that a rule begins with."""
    return () if rule.init is None else rule.init(params, masks)


def static() -> Rule:
    """The topology stays as it was initialised; weights off the mask stay exactly zero."""
    return Rule(name="static")


TOPOLOGIES = ("static", "neuroplastic", "lifelong_ne", "random_grow", "rigl", "set", "magnitude_prune")
"""Methods that own the masks: a network has one of them."""


def chain(*rules: Rule) -> Rule:
    """Several methods in one network; in a round each sees what the one before has made of it.

    Activations and gradients are those from before the round for all of them. The state is a tuple of theirs.

    Raises:
        ValueError: none are given, a method comes twice, two own the topology, or injection (which trains one of three
            copies) is to go with a method that changes weights in rounds.
    """
    _check_chain(rules)

    def has(part: str) -> bool:
        return any(getattr(each, part) is not None for each in rules)

    return Rule(
        evolve=partial(_evolve_all, rules) if has("evolve") else None,
        activity=_all_activities(rules),
        gradient=partial(_all_gradients, rules) if has("gradient") else None,
        adjust=partial(_adjust_all, rules) if has("adjust") else None,
        trainable=partial(_all_allow, rules) if has("trainable") else None,
        init=partial(_init_all, rules) if has("init") else None,
        observe=partial(_observe_all, rules) if has("observe") else None,
        reborn=partial(_reborn_all, rules) if has("reborn") else None,
        urgent=partial(_any_urgent, rules) if has("urgent") else None,
        renews=partial(_any_renews, rules) if has("renews") else None,
        name="+".join(each.name for each in rules),
    )


def _check_chain(rules: tuple[Rule, ...]) -> None:
    if not rules:
        raise ValueError("chain needs at least one rule")
    names = [name for each in rules for name in each.name.split("+")]
    owners = [name for name in names if name in TOPOLOGIES]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"{name} comes twice in a chain of {', '.join(names)}; once is all it can do (rules of your own need a "
                "`name` each)"
            )
    if len(owners) > 1:
        raise ValueError(f"{' and '.join(owners)} cannot share a network: each of them says alone what is connected")
    changing = [each.name for each in rules if each.evolve is not None]
    if "plasticity_injection" in names and changing:
        raise ValueError(
            f"plasticity_injection cannot go with {', '.join(changing)}, whose rounds would move the frozen copies"
        )


def _states(rules: tuple[Rule, ...], state: RuleState) -> tuple[RuleState, ...]:
    """Of each rule of a chain; the chain of rules without any state has none itself."""
    return state or ((),) * len(rules)


def _init_all(rules: tuple[Rule, ...], params: Leaves, masks: Masks) -> RuleState:
    return tuple(initial(each, params, masks) for each in rules)


def _observe_all(rules: tuple[Rule, ...], state: RuleState, step: Step, network: Network) -> RuleState:
    pairs = zip(rules, _states(rules, state), strict=True)
    return tuple(
        own if each.observe is None else each.observe(own, step, _as_seen_by(each, network)) for each, own in pairs
    )


def _all_gradients(rules: tuple[Rule, ...], state: RuleState, step: Step, network: Network) -> Leaves:
    changed: Leaves = {}
    for each, own in zip(rules, _states(rules, state), strict=True):
        if each.gradient is not None:
            seen = network._replace(gradients=network.gradients | changed)
            changed |= each.gradient(own, step, seen)
    return changed


def _adjust_all(
    rules: tuple[Rule, ...], state: RuleState, key: Key[Array, ""], step: Step, network: Network, updates: Leaves
) -> tuple[RuleState, Leaves]:
    states, changed = list(_states(rules, state)), {}
    for i, each in enumerate(rules):
        if each.adjust is not None:
            own_key = jax.random.fold_in(key, i)
            states[i], new = each.adjust(states[i], own_key, step, network, updates | changed)
            changed |= new
    return tuple(states) if state else state, changed


def _reborn_all(
    rules: tuple[Rule, ...], state: RuleState, params: Leaves, fresh: dict[str, Bool[Array, "..."]]
) -> RuleState:
    pairs = zip(rules, _states(rules, state), strict=True)
    return tuple(own if each.reborn is None else each.reborn(own, params, fresh) for each, own in pairs)


def _any_urgent(rules: tuple[Rule, ...], state: RuleState) -> Bool[Array, ""]:
    pairs = zip(rules, _states(rules, state), strict=True)
    return jnp.stack([each.urgent(own) for each, own in pairs if each.urgent is not None]).any()


def _as_seen_by(rule: Rule, network: Network) -> Network:
    """A rule that asks for no activations sees none, whoever else does."""
    return network if rule.activity is not None else network._replace(activations=None)


def _evolve_all(
    rules: tuple[Rule, ...], state: RuleState, key: Key[Array, ""], step: Step, network: Network
) -> tuple[RuleState, Evolved]:
    states, params, masks, fresh, renewed = list(_states(rules, state)), {}, {}, {}, {}
    adjusted: Masks = {}
    for i, each in enumerate(rules):
        if each.evolve is None:
            continue
        # The first method draws what it would draw alone. It may split the key, and splits are small numbers. A chain
        # in the chain counts as all its methods, so that no two of them draw the same.
        place = sum(len(before.name.split("+")) for before in rules[:i])
        own_key = key if place == 0 else jax.random.fold_in(key, 2**31 - place)
        states[i], changed = each.evolve(states[i], own_key, step, _as_seen_by(each, network))
        network = network._replace(params=network.params | changed.params, masks=network.masks | changed.masks)
        params, masks = params | changed.params, masks | changed.masks
        fresh |= {path: flags | fresh.get(path, False) for path, flags in changed.fresh.items()}
        adjusted |= {path: flags | adjusted.get(path, False) for path, flags in (changed.adjusted or {}).items()}
        renewed |= {path: flag | renewed.get(path, False) for path, flag in (changed.renewed or {}).items()}
    return tuple(states) if state else state, Evolved(params, masks, fresh, adjusted, renewed)


def _all_activities(rules: tuple[Rule, ...]) -> Activity | None:
    activities = tuple(dict.fromkeys(each.activity for each in rules if each.activity is not None))
    if not activities:
        return None
    return lambda params, batch: {path: h for each in activities for path, h in each(params, batch).items()}


def _all_allow(rules: tuple[Rule, ...], step: Step, path: str) -> Bool[Array, ""] | bool:
    allowed = True
    for each in rules:
        if each.trainable is not None:
            allowed &= each.trainable(step, path)
    return allowed


def _any_renews(rules: tuple[Rule, ...], path: str, leaf: Array) -> bool:
    return any(each.renews is not None and each.renews(path, leaf) for each in rules)


def spaced(rule: Rule, every: int) -> Rule:
    """`rule` only in rounds at multiples of `every` updates, or where it is urgent, for a chain whose rounds come more
    often.

    What the rule observes, it goes on observing in every update.

    Raises:
        ValueError: `every` is not positive.
    """
    if every < 1:
        raise ValueError(f"`every` must be a positive number of updates, got {every}")
    return rule if rule.evolve is None else rule._replace(evolve=partial(_evolve_spaced, rule, rule.evolve, every))


def _evolve_spaced(
    rule: Rule, evolve: Evolve, every: int, state: RuleState, key: Key[Array, ""], step: Step, network: Network
) -> tuple[RuleState, Evolved]:
    due = jnp.asarray(step) % every == 0
    if rule.urgent is not None:
        due |= rule.urgent(state)
    return evolve_if(due, evolve, state, key, step, network)


def evolve_if(
    due: Bool[Array, ""], evolve: Evolve, state: RuleState, key: Key[Array, ""], step: Step, network: Network
) -> tuple[RuleState, Evolved]:
    """`evolve` where it is due, else the network as it is; a branch also under `vmap`, see `cond_any`."""
    shapes: PyTree = jax.eval_shape(evolve, state, key, step, network)[1]

    def rest(state: RuleState, key: Key[Array, ""], step: Step, network: Network) -> tuple[RuleState, Evolved]:
        def no(flags: dict[str, jax.ShapeDtypeStruct] | None) -> Masks | None:
            return None if flags is None else {path: jnp.zeros(each.shape, bool) for path, each in flags.items()}

        params = {path: network.params[path] for path in shapes.params}
        masks = {path: network.masks[path] for path in shapes.masks}
        return state, Evolved(params, masks, no(shapes.fresh) or {}, no(shapes.adjusted), no(shapes.renewed))

    return cond_any_closing(due, evolve, rest, state, key, jnp.asarray(step), network)


def within_masks(network: Network, changed: Leaves) -> Leaves:
    """The changed leaves, exactly zero where the network's masks say that there is no weight."""
    return {p: jnp.where(network.masks[p], leaf, 0) if p in network.masks else leaf for p, leaf in changed.items()}
