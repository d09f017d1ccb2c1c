"""How a seed uses its past: which of it an update learns from, and what a dynamic replay forgets of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from agents.replay import Replay, ReplayState, Stored
from agents.types import Agent, AgentState, Clock, Metrics, Obs, Transition
from ne_jax import Decision, Review, ReviewState, fau, repeat_half

DROP = 0.1
"""What a dynamic replay forgets at a time, as a share of what it holds; RLx2's."""
PARTS = 8
"""Batches of the oldest transitions on which the policy's distance is measured; RLx2's."""


class Dynamic(NamedTuple):
    """When a dynamic replay forgets: the policy is further than `threshold` from that which collected the oldest data.

    `min_size` transitions are always kept.
    """

    min_size: int
    threshold: float


class Sampler(NamedTuple):
    """What an update learns from, as functions of one seed; without review its state is None.

    init(): the state before the first update.
    sample(replay_state, state, keys, now): a batch, and the decision that led to it. Takes two keys, the second for
        the decision.
    observe(state, agent_state, replay_state, key, now): the state with which this update samples; where a measurement
        is due, it is made first, on a batch of its own.
    report(state, decision): what is logged.
    """

    init: Callable[[], ReviewState | None]
    sample: Callable[..., tuple[Transition, Decision | None]]
    observe: Callable[..., ReviewState | None]
    report: Callable[..., Metrics]


def make_sampler(
    agent: Agent,
    replay: Replay,
    batch_size: int,
    horizon: Callable[[Clock], Int[Array, ""]] | None = None,
    review: Review | None = None,
) -> Sampler:
    """Batches of `batch_size` transitions, from early data as often as `review` decides.

    Args:
        horizon: steps that returns sum at a time; None leaves it to the replay.
    """

    def draw(replay_state: ReplayState, key: Key[Array, ""], now: Clock, **span: Float[Array, "2"]) -> Transition:
        how_far = {"horizon": horizon(now)} if horizon else {}
        return replay.sample(replay_state, key, batch_size, **span, **how_far)

    if review is None:
        return Sampler(
            init=lambda: None,
            sample=lambda replay_state, state, keys, now: (draw(replay_state, keys[0], now), None),
            observe=lambda state, *_: state,
            report=lambda *_: {},
        )
    return Sampler(
        review.init, partial(_reviewed, review, draw), partial(_observe, agent, replay, review, batch_size), _report
    )


def _reviewed(
    review: Review,
    draw: Callable[..., Transition],
    replay_state: ReplayState,
    state: ReviewState,
    keys: tuple[Key[Array, ""], Key[Array, ""]],
    now: Clock,
) -> tuple[Transition, Decision]:
    decision = review.decide(state, keys[1])
    batch = draw(replay_state, keys[0], now, span=decision.span)
    return batch if decision.half is None else repeat_half(batch, decision.half), decision


def _observe(
    agent: Agent,
    replay: Replay,
    review: Review,
    batch_size: int,
    state: ReviewState,
    agent_state: AgentState,
    replay_state: ReplayState,
    key: Key[Array, ""],
    now: Clock,
) -> ReviewState:
    def measure(state: ReviewState, agent_state: AgentState, stored: Stored) -> ReviewState:
        obs, nothing = replay.drawn(stored), jnp.zeros(batch_size)
        batch = Transition(obs, stored.action, nothing, nothing, obs)
        return review.observe(state, critic_fau(agent.activations(agent_state, batch)))

    # Of all that is stored: the batch that is learned from may hold early data alone, because of this.
    stored = replay.stored(replay_state, key, batch_size)
    # Time is the same for all seeds, so this stays a branch when they are vmapped; most updates do nothing.
    due = jnp.asarray(now.update) % review.every == 0
    return jax.lax.cond(due, measure, lambda state, *_: state, state, agent_state, stored)


def _report(state: ReviewState, decision: Decision) -> Metrics:
    told = {"probability": decision.probability, "share": decision.review, "fau": state.fau}
    if decision.half is not None:
        told["half_batch"] = decision.half
    return {f"review/{name}": jnp.asarray(value, jnp.float32) for name, value in told.items()}


def critic_fau(activations: dict[str, Array]) -> Float[Array, ""]:
    """FAU over the layers of the critic, whose paths begin with `critic/`.

    Raises:
        ValueError: there are none.
    """
    critic = {path: h for path, h in activations.items() if path.startswith("critic/")}
    if not critic:
        raise ValueError("review needs the activations of a critic, and the agent has none; set review.mode=none")
    return fau(critic)


def greedy_actions(agent: Agent, state: AgentState, obs: Obs) -> Float[Array, "batch actions"]:
    """What the agent does without noise where it sees each of these observations [batch, ...]."""
    return jax.vmap(lambda each: agent.act(state, each, jax.random.key(0), None))(obs)


def make_forget(
    agent: Agent, replay: Replay, batch_size: int, dynamic: Dynamic
) -> Callable[[AgentState, ReplayState], tuple[Int[Array, " envs"], Float[Array, ""]]]:
    """One check of a dynamic replay, `forget(agent_state, replay_state)`: the new `forgotten`, and the distance.

    The distance is half the mean squared difference between the means of the policy that collected the oldest
    `PARTS * batch_size` transitions (as many as there are) and those of today's on the same observations
    (RLx2, Tan et al., ICLR 2023; half, as in its code).
    """
    return partial(_forget, agent, replay, batch_size, dynamic)


def _forget(
    agent: Agent, replay: Replay, batch_size: int, dynamic: Dynamic, state: AgentState, replay_state: ReplayState
) -> tuple[Int[Array, " envs"], Float[Array, ""]]:
    def part(places: Int[Array, " batch"]) -> tuple[Float[Array, ""], Int[Array, ""]]:
        then = replay.past(replay_state, places)
        now = greedy_actions(agent, state, then.obs)
        squares = ((now - then.mean) ** 2).mean(axis=-1)
        return jnp.where(then.held, squares, 0).sum(), then.held.sum()

    places = jnp.arange(PARTS * batch_size).reshape(PARTS, batch_size)
    total, count = (each.sum() for each in jax.lax.map(part, places))  # one batch in memory at a time
    distance = total / jnp.maximum(count, 1) / 2
    share = jnp.where(distance > dynamic.threshold, DROP, 0)
    forgotten = replay.forget(replay_state, share, dynamic.min_size).forgotten
    assert forgotten is not None  # of a dynamic replay
    return forgotten, distance
