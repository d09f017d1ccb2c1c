"""What the functions of a step are bound to."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Array, Float, Int

from agents.replay import Replay, ReplayState
from agents.types import Agent, AgentState, Clock
from envs.types import EnvSpec
from experiments.train.experience import Dynamic, Sampler, make_forget, make_sampler
from experiments.train.schedule import Schedule
from ne_jax import Review

Horizon = Callable[[Clock], Int[Array, ""]]
Forget = Callable[[AgentState, ReplayState], tuple[Int[Array, " envs"], Float[Array, ""]]]


class Learning(NamedTuple):
    """What the numbers of a lane are in."""

    agent: Agent
    replay: Replay
    review: Review | None = None
    """How often updates learn from early data; None for never."""
    dynamic: Dynamic | None = None
    """When the replay, which must be dynamic, forgets; None for never."""
    fresh: Agent | None = None
    """The agent as its networks are drawn, for the probe of their capacity; None for none."""


class Parts(NamedTuple):
    """Of all seeds of a run, the same for each, but for the numbers that lanes differ in."""

    agent: Agent
    replay: Replay
    spec: EnvSpec
    schedule: Schedule
    sampler: Sampler
    batch_size: int
    frame_stack: int
    """Observations that the agent sees side by side."""
    keep_frames: bool
    """The replay stores what was observed, not the scenes."""
    horizon: Horizon | None
    """Steps that returns sum at a time; None leaves it to the replay."""
    forget: Forget | None
    """A check of a dynamic replay, which keeps the policy's means; None where the replay is not dynamic."""
    fresh: Agent | None
    """The agent as its networks are drawn, for the probe of their capacity; None for none."""


def make_parts(
    spec: EnvSpec,
    schedule: Schedule,
    batch_size: int,
    frame_stack: int,
    keep_frames: bool,
    horizon: Horizon | None,
    learning: Learning,
) -> Parts:
    """The parts, with what `learning` says."""
    agent, replay, review, dynamic, fresh = learning
    sampler = make_sampler(agent, replay, batch_size, horizon, review)
    forget = make_forget(agent, replay, batch_size, dynamic) if dynamic else None
    return Parts(agent, replay, spec, schedule, sampler, batch_size, frame_stack, keep_frames, horizon, forget, fresh)
