"""The newest finished episodes of a replay: what was seen first in each, and what came of it."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from agents.replay.ring import ReplaySettings, ReplayState
from agents.replay.sampling import observe, side_by_side, stack_slots
from agents.types import Obs

NEWEST = 6
"""Episodes of each environment that are looked at; the newest one is as a rule under way."""


class Episodes(NamedTuple):
    """First observations, and the discounted returns from there, scaled as agents learn from them.

    Where `whole` does not hold there is no such episode, or it has not come to its end.
    """

    obs: Obs
    value: Float[Array, " episodes"]
    whole: Bool[Array, " episodes"]


def newest_episodes(settings: ReplaySettings, state: ReplayState, steps: int) -> Episodes:
    """The newest episodes of each environment, which are truncated after so many steps.

    An episode is whole if its last scene is terminal, or came after `steps` steps. One that was cut short by a change
    of the task is not.
    """
    size = settings.size
    newest = jnp.arange(min(NEWEST * (steps + 1), size))

    def of_ring(env: Int[Array, ""]) -> Episodes:
        slots = state.slots[env] - 1 - newest
        begins = (slots >= 0) & (state.episode_step[env, slots % size] == 0)
        first = jax.lax.top_k(jnp.where(begins, slots, -1), min(NEWEST, len(newest)))[0]
        value, whole = jax.vmap(lambda slot: _outcome(settings, state, env, slot, steps))(first)
        stacks = jax.vmap(lambda slot: stack_slots(settings, state, env, slot))(first)
        obs = jax.vmap(lambda each: side_by_side(observe(settings, state, env, each)))(stacks)
        return Episodes(obs, value, whole & (first >= 0))

    found = jax.vmap(of_ring)(jnp.arange(settings.num_envs))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), found)


def _outcome(
    settings: ReplaySettings, state: ReplayState, env: Int[Array, ""], slot: Int[Array, ""], steps: int
) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    """The discounted, scaled return of the episode that begins at a slot, and whether it has come to its end."""
    number = jnp.arange(1, steps + 1)
    later = (slot + number) % settings.size
    inside = (slot + number < state.slots[env]) & (state.episode_step[env, later] == number)
    length = jnp.cumprod(inside.astype(jnp.int32)).sum()
    weight = jnp.where(number <= length, settings.discount ** (number - 1.0), 0)
    ended = state.terminal[env, (slot + length) % settings.size] | (length == steps)
    return (weight * state.reward[env, later]).sum() * settings.reward_scale, ended & (length > 0)
