"""Greedy evaluation on environments of its own, all seeds side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from agents.types import AgentState, Obs
from envs.pool import HostPool
from envs.types import Scene

Policy = Callable[[Obs], Float[np.ndarray, "seeds actions"]]


class Evaluation(NamedTuple):
    """Undiscounted returns [seeds, episodes], and the first episode's frames if they were asked for."""

    returns: Float[np.ndarray, "seeds episodes"]
    frames: UInt8[np.ndarray, "seeds steps size size 3"] | None


def evaluate(
    pool: HostPool, watch: Callable[[Obs | None, Scene], Obs], policy: Policy, episodes: int, video_size: int = 0
) -> Evaluation:
    """Play `episodes` whole episodes per seed. Episode e starts the same way in every evaluation.

    Args:
        watch: pushes a scene onto the observation stack, see `loop.Steps.watch`.
        video_size: width of the frames kept of episode 0, in pixels; 0 keeps none.
    """
    returns, frames = [], None
    for episode in range(episodes):
        kept: list[np.ndarray] | None = [] if video_size and episode == 0 else None
        returns.append(_play(pool, watch, policy, episode, kept, video_size))
        if kept is not None:
            frames = np.stack(kept, axis=1)
    return Evaluation(np.stack(returns, axis=1), frames)


def _play(
    pool: HostPool,
    watch: Callable[[Obs | None, Scene], Obs],
    policy: Policy,
    episode: int,
    frames: list[np.ndarray] | None,
    size: int,
) -> Float[np.ndarray, " seeds"]:
    scene = pool.reset([episode] * pool.lanes)
    obs = watch(None, scene)
    total, alive = np.zeros(pool.lanes), np.ones(pool.lanes, bool)
    while alive.any():
        if frames is not None:
            shot = pool.render(size)
            # A seed whose episode is over stands still until the others are done.
            frames.append(np.where(alive[:, None, None, None], shot, frames[-1]) if frames else shot)
        arrival = pool.step(policy(obs))
        total += np.where(alive, arrival.step.reward, 0.0)
        alive &= ~np.logical_or(arrival.step.terminated, arrival.step.truncated)
        obs = watch(obs, arrival.step.scene)
    return total


def greedy_policy(greedy: Callable[[AgentState, Obs], Obs], state: AgentState) -> Policy:
    """The agents' mean actions."""
    return lambda obs: np.asarray(greedy(state, obs))


def random_policy(seeds: tuple[int, ...], action_dim: int) -> Policy:
    """Uniform actions, the yardstick for what was learned. The same for a seed whatever its neighbours."""
    generators = [np.random.default_rng((seed, 2)) for seed in seeds]
    return lambda obs: np.stack([g.uniform(-1, 1, action_dim).astype(np.float32) for g in generators])
