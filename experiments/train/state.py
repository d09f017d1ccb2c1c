"""What one seed carries from step to step: what it has learned, and what it has of its environments."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key, PyTree, Shaped

from agents.replay.ring import ReplayState
from agents.types import Agent, AgentState
from experiments.train.health import Health
from experiments.train.seeds import ACT, NEVER, RENEW, key_at
from ne_jax import ReviewState

Number: TypeAlias = "Int[Array | np.ndarray, ''] | np.integer | int"
Numbers = dict[str, Float[Array, "*rows"]]
"""Settings by their keys, of a row or of all: a row is a seed of a lane."""


@struct.dataclass
class MetricAccumulator:
    """Sums and how many values they sum, since the last log point."""

    total: PyTree[Float[Array, "..."]]
    count: Int[Array, "..."]

    @classmethod
    def of(cls, values: PyTree) -> MetricAccumulator:
        """An empty accumulator of values of this structure."""
        return cls(jax.tree.map(lambda _: jnp.zeros(()), values), jnp.zeros((), jnp.int32))

    def add(self, values: PyTree, when: Bool[Array, "..."] | bool = True) -> MetricAccumulator:
        """Count `values` in, where `when` holds; scalars, or arrays of one shape."""
        total = jax.tree.map(lambda t, v: t + jnp.where(when, v, 0).sum(), self.total, values)
        return MetricAccumulator(total, self.count + jnp.asarray(when).sum())


@struct.dataclass
class LearnerState:
    """What one seed has learned, its losses since the last log point, and what decides what it reviews."""

    agent: AgentState
    metrics: MetricAccumulator
    review: ReviewState | None = None
    health: Health | None = None
    numbers: Numbers | None = None
    """What the lane that this is a seed of differs in from others; None where there are no lanes."""


@struct.dataclass
class RolloutState:
    """What one seed has of its environments: the replay, and of each its newest observations and the episode so far."""

    replay_state: ReplayState
    obs: Shaped[Array, "envs stack *frame"]
    episode_step: Int[Array, " envs"]
    episode_return: Float[Array, " envs"]
    returns: MetricAccumulator
    distance: MetricAccumulator | None = None
    """Of a dynamic replay: how far the policy was from its oldest data, since the last log point."""
    broken: Int[Array, "2"] | None = None
    """`Clock.env` of the first step whose observations, and whose rewards, were not finite; `NEVER` where all were."""

    def after(self, check: Check) -> RolloutState:
        """The same after a check of the dynamic replay."""
        return replace(
            self, replay_state=replace(self.replay_state, forgotten=check.forgotten), distance=check.distance
        )


class Check(NamedTuple):
    """All that a check of the dynamic replay changes in a seed's `RolloutState`."""

    forgotten: Int[Array, "*seeds envs"] | None
    distance: MetricAccumulator | None


class Choice(NamedTuple):
    """What an agent does, and, for a dynamic replay, what it would do without noise."""

    action: Float[Array, "*seeds envs actions"]
    mean: Float[Array, "*seeds envs actions"] | None


def new_agent(agent: Agent, key: Key[Array, ""], task: Number) -> AgentState:
    """The agent that a seed begins with, or with a later task where it begins anew there."""
    later = jax.random.fold_in(key_at(key, NEVER, RENEW), task)
    return agent.init(jnp.where(jnp.asarray(task) == 0, key_at(key, NEVER, ACT), later))
