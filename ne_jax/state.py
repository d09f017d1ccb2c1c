"""What `plastic` keeps in the optimiser's state, and how it is read out of any optax state around it."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from ne_jax.fresh import Births
from ne_jax.metrics import churn
from ne_jax.rule import RuleState
from ne_jax.sparsity import Leaves, Masks


class Record(NamedTuple):
    """What the newest round did, over all sparse layers. Zero before the first one."""

    born: Int[Array, ""]
    """Weights that exist and did not before."""
    removed: Int[Array, ""]
    regrown: Int[Array, ""]
    """Of those born: how many had existed at some time before."""
    churn: Float[Array, ""]
    """1 - Jaccard index of the masks before and after."""


class PlasticState(NamedTuple):
    """State of `plastic`: the wrapped optimiser's, the masks by path, and the updates counted so far."""

    inner: optax.OptState
    masks: Masks
    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    rule: RuleState
    """What the rule remembers, see `Rule.init`."""
    births: Births | None
    """When each weight was last born, by the optimiser's counts; None without rounds, or where it counts nothing."""
    renewed: dict[str, Bool[Array, ""]]
    """Of the leaves that the rule may start anew as wholes: whether the newest update did."""
    gathered: tuple[Leaves, Int[Array, ""]] | None
    """Sum of the newest dense gradients and how many they are, where a round looks at several."""
    ever: Masks | None
    """The weights that have existed at some time; None without rounds or without masks, as with `record`."""
    record: Record | None


def recorded(state: PlasticState, masks: Masks) -> PlasticState:
    """The state with new masks, and what changed from the old ones."""
    if state.ever is None:
        return state._replace(masks=masks)
    none = jnp.zeros((), jnp.int32)
    born = {path: masks[path] & ~old for path, old in state.masks.items()}
    record = Record(
        born=sum((each.sum() for each in born.values()), none),
        removed=sum(((old & ~masks[path]).sum() for path, old in state.masks.items()), none),
        regrown=sum(((each & state.ever[path]).sum() for path, each in born.items()), none),
        churn=churn(state.masks, masks),
    )
    ever = {path: old | masks[path] for path, old in state.ever.items()}
    return state._replace(masks=masks, ever=ever, record=record)


def masks(opt_state: optax.OptState) -> Masks:
    """The masks inside any optax state, by path; an empty dictionary if nothing in it is `plastic`.

    Works through chains and wrappers: `target = ne_jax.apply(ne_jax.masks(opt_state), target)`.
    """
    return {path: mask for state in _states(opt_state) for path, mask in state.masks.items()}


def record(opt_state: optax.OptState) -> Record | None:
    """What the newest round inside any optax state did; None if nothing in it has both rounds and masks."""
    return next((state.record for state in _states(opt_state) if state.record is not None), None)


def renewed(opt_state: optax.OptState) -> dict[str, Bool[Array, ""]]:
    """{path: did the newest update start this whole leaf anew?} inside any optax state, for the leaves that a rule may.

    Copies of such a leaf should follow at once, as Nikishin et al. (2022) create target networks anew with the networks
    that they reset. Empty, so that no code is needed, unless the rule is one like `reset`. Usage::

        new = ne_jax.leaves_by_path(params)
        old = ne_jax.leaves_by_path(target)
        flags = ne_jax.renewed(opt_state)
        target = ne_jax.replace_leaves(target, {p: jnp.where(flag, new[p], old[p]) for p, flag in flags.items()})
    """
    return {path: flag for state in _states(opt_state) for path, flag in state.renewed.items()}


def _states(opt_state: optax.OptState) -> list[PlasticState]:
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, PlasticState))
    return [node for node in nodes if isinstance(node, PlasticState)]
