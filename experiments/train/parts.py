"""What the functions of a step are bound to."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Array, Int

from agents.replay import Replay
from agents.types import Agent, Clock
from envs.types import EnvSpec
from experiments.train.experience import Sampler
from experiments.train.schedule import Schedule

Horizon = Callable[[Clock], Int[Array, ""]]


class Parts(NamedTuple):
    """Of all seeds of a run, the same for each."""

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
    dynamic: bool
    """The replay keeps the policy's means and can forget."""
    fresh: Agent | None
    """The agent as its networks are drawn, for the probe of their capacity; None for none."""
