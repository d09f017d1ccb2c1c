"""Which seeds have diverged: when, and what went first. A few numbers per seed, on the device until a log point.

A seed diverges where a loss or a gradient is not finite, or what its environments send. It is frozen then: its networks
stay as they were before, and it goes on acting. Seeds share nothing, so the others do not notice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Int, Key

from agents.types import Agent, AgentState, Clock, Metrics
from agents.updates import freeze, train_states
from experiments.train.seeds import NEVER, RESTART, key_at


@struct.dataclass
class Health:
    """How one seed came to diverge by an update. `losses` and `networks` have a bit for each, in the order of names."""

    env: Int[Array, ""]
    """`Clock.env` of that update; `NEVER` while all is well."""
    update: Int[Array, ""]
    losses: Int[Array, ""]
    """What the update reported and was not finite."""
    networks: Int[Array, ""]
    """The networks whose gradients were not."""
    restarts: Int[Array, ""]
    """How often the seed got new networks for it."""


def healthy(restarts: Int[Array, ""] | int = 0) -> Health:
    """Of a seed in which nothing is amiss."""
    at, none = jnp.asarray(NEVER, jnp.int32), jnp.zeros((), jnp.int32)
    return Health(at, at, none, none, none + restarts)


def intact() -> Int[Array, "2"]:
    """`RolloutState.broken` while observations and rewards are finite."""
    return jnp.full(2, NEVER, jnp.int32)


def has_diverged(health: Health, broken: Int[Array, "*seeds 2"]) -> Bool[Array, "*seeds"]:
    """Whether a seed has, by an update or by what its environments sent."""
    return (health.env < NEVER) | (broken < NEVER).any(axis=-1)


def next_attempt(agent: Agent, health: Health | None, key: Key[Array, ""]) -> tuple[AgentState, Health]:
    """Another new agent of a seed, for each of its restarts another one."""
    assert health is not None
    attempt = health.restarts + 1
    return agent.init(jax.random.fold_in(key_at(key, NEVER, RESTART), attempt)), healthy(attempt)


def finite_part(values: Any) -> Any:
    """The same with zeros for what is NaN or infinite."""

    def one(leaf: Array) -> Array:
        leaf = jnp.asarray(leaf)
        return jnp.where(jnp.isfinite(leaf), leaf, 0) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(one, values)


def watch(
    health: Health, before: AgentState, after: AgentState, metrics: Metrics, now: Clock
) -> tuple[Health, AgentState]:
    """What an update from one state to the other says of a seed's health; with it the state, frozen where it is bad."""
    losses = _bits([~jnp.isfinite(metrics[name]) for name in sorted(metrics)])
    pairs = [(train_states(before)[name], part) for name, part in sorted(train_states(after).items())]
    networks = _bits([jnp.asarray(new.frozen) & ~jnp.asarray(old.frozen) for old, new in pairs])
    bad = (losses | networks) > 0
    first = bad & (health.env == NEVER)
    found = Health(
        env=jnp.where(first, now.env, health.env),
        update=jnp.where(first, now.update, health.update),
        losses=jnp.where(first, losses, health.losses),
        networks=jnp.where(first, networks, health.networks),
        restarts=health.restarts,
    )
    return found, freeze(after, bad)


def note_broken(
    broken: Int[Array, "2"], observations: Bool[Array, " envs"], rewards: Bool[Array, " envs"], now: Clock
) -> Int[Array, "2"]:
    """`RolloutState.broken` after a step, given which environments sent what is finite."""
    sound = jnp.stack([observations.all(), rewards.all()])
    return jnp.minimum(broken, jnp.where(sound, NEVER, jnp.asarray(now.env, jnp.int32)))


def _bits(flags: Sequence[Bool[Array, ""]]) -> Int[Array, ""]:
    """The first 31 of them as the bits of a number."""
    bits = [jnp.left_shift(flag.astype(jnp.int32), i) for i, flag in enumerate(flags[:31])]
    return sum(bits, jnp.zeros((), jnp.int32))
