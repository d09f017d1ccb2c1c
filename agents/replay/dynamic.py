"""A dynamic replay: what the policy met in its oldest transitions, and forgetting them (RLx2, Tan et al. 2023)."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from agents.replay.ring import ReplaySettings, ReplayState, first, ready_each
from agents.replay.sampling import observe, side_by_side, stack_slots
from agents.types import Obs


class Past(NamedTuple):
    """The oldest transitions as the policy met them; where `held` does not hold there are no more."""

    obs: Obs
    mean: Float[Array, "batch actions"]
    held: Bool[Array, " batch"]


def past(settings: ReplaySettings, state: ReplayState, places: Int[Array, " batch"]) -> Past:
    """The transitions at these places from old to new, 0 the oldest; environments take turns.

    Raises:
        ValueError: the replay is not dynamic.
    """
    means = _dynamic(state.mean)

    def one(place: Int[Array, ""]) -> Past:
        env, number = place % settings.num_envs, place // settings.num_envs
        slot = state.start[env, (first(state)[env] + number) % settings.size]
        obs = side_by_side(observe(settings, state, env, stack_slots(settings, state, env, slot)))
        return Past(obs, means[env, (slot + 1) % settings.size], number < ready_each(state)[env])

    return jax.vmap(one)(places)


def forget(state: ReplayState, share: Float[Array, ""] | float, least: int) -> ReplayState:
    """Without the oldest `share` of each environment's transitions, as far as at least `least` remain in all.

    Raises:
        ValueError: the replay is not dynamic.
    """
    _dynamic(state.forgotten)
    ready = ready_each(state)
    drop = jnp.floor(ready * share).astype(jnp.int32)
    # Whole numbers throughout: what may go in all is given to one environment after the other.
    may_go = jnp.maximum(ready.sum() - least, 0) - (jnp.cumsum(drop) - drop)
    return replace(state, forgotten=first(state) + jnp.clip(may_go, 0, drop))


def _dynamic(array: Array | None) -> Array:
    if array is None:
        raise ValueError("only a dynamic replay knows its past and forgets; make it with make_replay(dynamic=True)")
    return array
