"""Batches of transitions: stacks of observations and n-step returns, built from scenes when they are sampled."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree, Shaped

from agents.replay.ring import ReplaySettings, ReplayState, first, ready_each
from agents.types import Obs, Transition

Share = Float[Array, ""] | Int[Array, ""] | float | int
"""A number from 0 to 1."""


def sample(
    settings: ReplaySettings,
    state: ReplayState,
    key: Key[Array, ""],
    batch: int,
    span: tuple[Share, Share] | Float[Array, "2"] = (0.0, 1.0),
    horizon: Int[Array, ""] | int | None = None,
) -> Transition:
    """`batch` transitions, uniform over the share `span` of each environment's, ordered from old to new.

    Args:
        span: (0, 1) is everything, (0, 0.3) the oldest three tenths.
        horizon: how many rewards returns sum, 1 to `nstep`; it may be traced. None means `nstep`.
    """
    env, slot = _starts(settings, state, key, batch, span)
    keys = jax.random.split(jax.random.fold_in(key, 1), batch)
    length = jnp.asarray(settings.nstep if horizon is None else horizon)

    def one(env: Int[Array, ""], slot: Int[Array, ""], key: Key[Array, ""]) -> Transition:
        return transition(settings, state, env, slot, length, key)

    return jax.vmap(one)(env, slot, keys)


class Stored(NamedTuple):
    """What a batch acted upon, as it is stored, and the actions."""

    scene: PyTree[Shaped[Array, "batch stack ..."]]
    action: Float[Array, "batch actions"]


def stored(settings: ReplaySettings, state: ReplayState, key: Key[Array, ""], batch: int) -> Stored:
    """Of the transitions that `sample` would give for this key, the first stacks of scenes and the actions.

    It costs little, as nothing is drawn. Branches should take this and not the state, which would be copied for them.
    """

    def one(env: Int[Array, ""], slot: Int[Array, ""]) -> Stored:
        slots = stack_slots(settings, state, env, slot)
        scene = jax.tree.map(lambda leaf: leaf[env, slots % settings.size], state.scene)
        return Stored(scene, state.action[env, (slot + 1) % settings.size])

    return jax.vmap(one)(*_starts(settings, state, key, batch, (0.0, 1.0)))


def drawn(settings: ReplaySettings, stored: Stored) -> Obs:
    """What was observed, as the agent saw it."""
    return jax.vmap(lambda scenes: side_by_side(jax.vmap(settings.observe)(scenes)))(stored.scene)


def _starts(
    settings: ReplaySettings,
    state: ReplayState,
    key: Key[Array, ""],
    batch: int,
    span: tuple[Share, Share] | Float[Array, "2"],
) -> tuple[Int[Array, " batch"], Int[Array, " batch"]]:
    """Environment and slot where each transition of a batch starts."""
    ready = ready_each(state)
    low, high = (jnp.floor(ready * share).astype(jnp.int32) for share in (span[0], span[1]))
    high = jnp.minimum(high, ready)  # beyond 2**24 scenes the product is rounded
    width = jnp.where(ready > 0, jnp.maximum(high - low, 1), 0)
    ends = jnp.cumsum(width)
    number = jax.random.randint(key, (batch,), 0, jnp.maximum(ends[-1], 1))
    env = jnp.minimum((number[:, None] >= ends).sum(axis=1), settings.num_envs - 1)
    start = (first(state) + low - (ends - width))[env] + number
    return env, state.start[env, start % settings.size]


def transition(
    settings: ReplaySettings,
    state: ReplayState,
    env: Int[Array, ""],
    slot: Int[Array, ""],
    horizon: Int[Array, ""],
    key: Key[Array, ""],
) -> Transition:
    """The transition of an environment that starts at `slot`, with a return of at most `horizon` rewards."""
    size, stack, nstep, discount = settings.size, settings.stack, settings.nstep, settings.discount
    steps = jnp.arange(1, nstep + 1)
    later = slot + steps
    at = later % size
    # Steps rise by one within an episode, so the first slot that breaks the row ends the sum; so does the newest.
    same_episode = state.episode_step[env, at] == state.episode_step[env, slot % size] + steps
    held = same_episode & (later < state.slots[env])
    length = jnp.minimum(jnp.cumprod(held.astype(jnp.int32)).sum(), horizon)
    inside = steps <= length
    reward = jnp.where(inside, state.reward[env, at] * discount ** (steps - 1), 0).sum() * settings.reward_scale
    last = slot + length
    terminal = state.terminal[env, last % size]

    ends = [stack_slots(settings, state, env, end) for end in (slot, last)]
    if nstep < stack:  # the stacks overlap: draw the whole window once
        start = slot - stack + 1
        window = observe(settings, state, env, start + jnp.arange(stack + nstep), key)
        obs, next_obs = (window[slots - start] for slots in ends)
    else:
        obs, next_obs = (observe(settings, state, env, slots, key) for slots in ends)
    return Transition(
        obs=side_by_side(obs),
        action=state.action[env, (slot + 1) % size],
        reward=reward,
        discount=jnp.where(terminal, 0.0, discount ** length.astype(jnp.float32)),
        next_obs=side_by_side(next_obs),
    )


def stack_slots(
    settings: ReplaySettings, state: ReplayState, env: Int[Array, ""], end: Int[Array, ""]
) -> Int[Array, " stack"]:
    """The slots of the stack that ends there; before the reset, the episode's first scene stands in."""
    return end - jnp.minimum(jnp.arange(settings.stack - 1, -1, -1), state.episode_step[env, end % settings.size])


def observe(
    settings: ReplaySettings,
    state: ReplayState,
    env: Int[Array, ""],
    slots: Int[Array, " slots"],
    key: Key[Array, ""] | None = None,
) -> Shaped[Array, "slots *frame"]:
    """What was observed there; with a key, as `vary` changes it."""
    scenes = jax.tree.map(lambda leaf: leaf[env, slots % settings.size], state.scene)
    if settings.vary is not None and key is not None:
        scenes = jax.vmap(settings.vary, in_axes=(None, 0))(key, scenes)
    return jax.vmap(settings.observe)(scenes)


def side_by_side(frames: Shaped[Array, "stack *frame"]) -> Obs:
    """What an agent sees of a stack of observations: all in the last axis, oldest first."""
    return jnp.concatenate(list(frames), axis=-1)
