"""One step of one seed, and the programs that make it for all seeds side by side.

`act` answers what the environments sent, `learn` makes the updates that are due, `remember` of
`experiments.train.rollout` stores what the answer led to, `check_replay` finds what a dynamic replay no longer needs.
These are pure functions of the parts of a run and one seed's state; `make_steps` binds the parts, puts the seeds side
by side and jits them, and `experiments.train.loop` calls them in turn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from agents.replay import Replay, ReplayState, side_by_side
from agents.types import Agent, AgentState, Clock, Metrics, Params
from agents.updates import freeze
from envs.types import AutoResetStep, EnvSpec, Scene
from experiments.train.capacity import INPUTS, measure_capacity
from experiments.train.experience import Dynamic
from experiments.train.health import finite_part, has_diverged, healthy, next_attempt, watch
from experiments.train.network_metrics import initial_params, measure_behaviour
from experiments.train.parts import Horizon, Learning, Parts, make_parts
from experiments.train.rollout import Stack, Stacks, by_seed, enter, new_rollout, push_observation, remember
from experiments.train.schedule import Schedule
from experiments.train.seeds import ACT, LEARN, MEASURE, REVIEW, OverSeeds, key_at, over_seeds
from experiments.train.state import (
    Check,
    Choice,
    LearnerState,
    MetricAccumulator,
    Number,
    Numbers,
    RolloutState,
    new_agent,
)
from ne_jax import Review, ReviewState

MEASURED = 1
"""Folded into the key of a decision to review, for the batch on which the share of active units is measured."""
Measure = Callable[[AgentState, dict[str, Array], dict[str, Params], dict[str, Params]], Metrics]


class Steps(NamedTuple):
    """The jitted programs of a run; every argument but the time has a leading seed axis, which the time has not.

    Scenes and outcomes come with one leading axis of lanes, the environments of the first seed first. `forget` is None
    where the replay is not dynamic. `init`, `initial` and `greedy` also take the numbers of each seed, where a seed's
    settings may differ from another's; the others find them in the learner.
    """

    init: Callable[..., tuple[LearnerState, RolloutState]]
    act: Callable[[LearnerState, RolloutState, Key[Array, " seeds"], Clock], Choice]
    learn: Callable[[LearnerState, RolloutState, Key[Array, " seeds"], Clock], LearnerState]
    remember: Callable[[RolloutState, Choice, AutoResetStep, Clock], RolloutState]
    enter: Callable[[RolloutState, Scene], RolloutState]
    renew: Callable[[LearnerState, Key[Array, " seeds"], Number], LearnerState]
    restart: Callable[[LearnerState, Key[Array, " seeds"], Bool[Array, " seeds"]], LearnerState]
    forget: Callable[[LearnerState, RolloutState], Check] | None
    initial: Callable[..., dict[str, Params]]
    measure: Callable[[LearnerState, RolloutState, Key[Array, " seeds"], dict[str, Params], Clock], Metrics]
    greedy: Callable[..., Float[Array, "seeds actions"]]
    observe: Callable[[Stacks | None, Scene], Stacks]


def make_steps(
    agent: Agent,
    replay: Replay,
    spec: EnvSpec,
    schedule: Schedule,
    *,
    batch_size: int,
    frame_stack: int,
    how: OverSeeds,
    measure: Measure,
    keep_frames: bool = False,
    horizon: Horizon | None = None,
    review: Review | None = None,
    dynamic: Dynamic | None = None,
    fresh: Agent | None = None,
    learning: Callable[[Numbers], Learning] | None = None,
) -> Steps:
    """Build the programs of a run.

    Args:
        frame_stack: observations that the agent sees side by side.
        measure: `(agent_state, activations, gradients, initial)` to what is logged beside the losses; `initial` are the
            parameters that each network began with.
        keep_frames: the replay stores what was observed, not the scenes.
        horizon: steps that returns sum at a time; None leaves it to the replay.
        review: how often updates learn from early data; None for never.
        dynamic: when the replay, which must be dynamic, forgets; None for never.
        fresh: the agent as its networks are drawn; with it, their capacity is probed when they are measured.
        learning: makes `agent`, `replay`, `review`, `dynamic` and `fresh` anew inside the programs, from the numbers
            that a seed has of its own.
    """
    bound = partial(make_parts, spec, schedule, batch_size, frame_stack, keep_frames, horizon)
    parts = bound(Learning(agent, replay, review, dynamic, fresh))
    row = partial(_parts_of, parts, (lambda numbers: bound(learning(numbers))) if learning else None)
    split, each = partial(by_seed, schedule.num_envs), partial(_with_own_parts, row)
    begin_learning = over_seeds(partial(new_learner, row), "map")
    begin_rollout = over_seeds(partial(new_rollout, parts), "vmap")
    remember_all = over_seeds(partial(remember, parts), "vmap", shared=1)
    enter_all = over_seeds(partial(enter, parts), "vmap")
    initial = over_seeds(lambda key, numbers, task: initial_params(row(numbers).agent, key, task), "map", shared=1)
    greedy = over_seeds(lambda state, obs, numbers: greedy_action(row(numbers).agent, state, obs), how)
    return Steps(
        init=jax.jit(lambda keys, scene, numbers=None: (begin_learning(keys, numbers), begin_rollout(split(scene)))),
        act=jax.jit(over_seeds(each(act), how, shared=1)),
        learn=jax.jit(over_seeds(each(learn), how, shared=1), donate_argnums=0),
        remember=jax.jit(
            lambda rollout, choice, outcome, now: remember_all(rollout, choice, split(outcome), now), donate_argnums=0
        ),
        enter=jax.jit(lambda rollout, scene: enter_all(rollout, split(scene)), donate_argnums=0),
        renew=jax.jit(over_seeds(each(renew), "map", shared=1), donate_argnums=0),
        restart=jax.jit(over_seeds(each(restart), "map"), donate_argnums=0),
        forget=jax.jit(over_seeds(each(check_replay), how)) if parts.forget else None,
        initial=jax.jit(lambda keys, task, numbers=None: initial(keys, numbers, task)),
        measure=jax.jit(over_seeds(each(partial(measure_networks, measure)), "map", shared=1)),
        greedy=jax.jit(lambda state, obs, numbers=None: greedy(state, obs, numbers)),
        observe=jax.jit(partial(push_observation, parts)),
    )


def _parts_of(parts: Parts, make: Callable[[Numbers], Parts] | None, numbers: Numbers | None) -> Parts:
    """The parts of a seed with these numbers of its own, inside a program; those of all where it has none."""
    return parts if make is None or numbers is None else make(numbers)


def _with_own_parts(row: Callable[[Numbers | None], Parts], fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn(parts, learner, ...)` as a function of what follows the parts, which are those of the learner."""
    return lambda learner, *rest: fn(row(learner.numbers), learner, *rest)


def new_learner(
    row: Callable[[Numbers | None], Parts], key: Key[Array, ""], numbers: Numbers | None = None
) -> LearnerState:
    """A new agent, and empty sums of what its updates will report."""
    parts = row(numbers)
    state, review = new_agent(parts.agent, key, 0), parts.sampler.init()
    *_, metrics = jax.eval_shape(lambda: update(parts, state, review, parts.replay.init(), key, Clock(0, 0)))
    return LearnerState(state, MetricAccumulator.of(metrics), review, healthy(), numbers)


def renew(parts: Parts, learner: LearnerState, key: Key[Array, ""], task: Number) -> LearnerState:
    """Another new agent, with a new optimiser, in the place of the one that has learned; sums for the log stay."""
    return replace(learner, agent=new_agent(parts.agent, key, task), review=parts.sampler.init())


def restart(parts: Parts, learner: LearnerState, key: Key[Array, ""], again: Bool[Array, ""]) -> LearnerState:
    """Where `again` holds: the agent of the next attempt, drawn anew, in the place of one that has diverged."""
    agent, health = next_attempt(parts.agent, learner.health, key)
    fresh = replace(learner, agent=agent, review=parts.sampler.init(), health=health)
    return jax.tree.map(lambda new, old: jnp.where(again, new, old), fresh, learner)


def act(parts: Parts, learner: LearnerState, rollout: RolloutState, key: Key[Array, ""], now: Clock) -> Choice:
    """The agent's answer to the newest observation of each environment."""
    drawn = now.env - now.env % (parts.agent.noise_hold * parts.schedule.num_envs)
    keys = jax.random.split(key_at(key, drawn, ACT), parts.schedule.num_envs)
    seen = parts.schedule.seen(now)
    action = jax.vmap(lambda obs, each: parts.agent.act(learner.agent, side_by_side(obs), each, seen))(
        rollout.obs, keys
    )
    action = finite_part(action)  # simulators do not bear what is no number
    if parts.forget is None:
        return Choice(action, None)
    mean = jax.vmap(partial(greedy_action, parts.agent, learner.agent))(rollout.obs)
    # While actions are random, the policy that collects is the random one, as in RLx2's code.
    return Choice(action, jnp.where(jnp.asarray(seen.env) < parts.agent.random_steps, action, mean))


def greedy_action(agent: Agent, state: AgentState, stack: Stack) -> Float[Array, " actions"]:
    """What the agent does without noise."""
    return finite_part(agent.act(state, side_by_side(stack), jax.random.key(0), None))


def learn(parts: Parts, learner: LearnerState, rollout: RolloutState, key: Key[Array, ""], now: Clock) -> LearnerState:
    """All updates of one step."""

    def one(i: Int[Array, ""] | int, learner: LearnerState) -> LearnerState:
        at = Clock(now.env, now.update + i)
        state, review, metrics = update(parts, learner.agent, learner.review, rollout.replay_state, key, at)
        assert learner.health is not None
        health, state = watch(learner.health, learner.agent, state, metrics, at)
        return LearnerState(state, learner.metrics.add(metrics), review, health, learner.numbers)

    assert learner.health is not None and rollout.broken is not None
    learner = replace(learner, agent=freeze(learner.agent, has_diverged(learner.health, rollout.broken)))
    if parts.schedule.updates_each == 1:
        return one(0, learner)
    return jax.lax.fori_loop(0, parts.schedule.updates_each, one, learner)


def update(
    parts: Parts,
    state: AgentState,
    review: ReviewState | None,
    replay_state: ReplayState,
    key: Key[Array, ""],
    now: Clock,
) -> tuple[AgentState, ReviewState | None, Metrics]:
    """One update: sample a batch, learn from it."""
    sampler, seen = parts.sampler, parts.schedule.seen(now)
    sample_key, update_key = jax.random.split(key_at(key, now.update, LEARN))
    review_key = key_at(key, now.update, REVIEW)
    review = sampler.observe(review, state, replay_state, jax.random.fold_in(review_key, MEASURED), seen)
    batch, decision = sampler.sample(replay_state, review, (sample_key, review_key), seen)
    state, metrics = parts.agent.update(state, batch, update_key, seen)
    return state, review, metrics | sampler.report(review, decision)


def check_replay(parts: Parts, learner: LearnerState, rollout: RolloutState) -> Check:
    """A check of the dynamic replay: from where on it is remembered, and the policy's distance counted in."""
    assert parts.forget is not None and rollout.distance is not None  # of a dynamic replay
    forgotten, distance = parts.forget(learner.agent, rollout.replay_state)
    return Check(forgotten, rollout.distance.add(distance))


def measure_networks(
    measure: Measure,
    parts: Parts,
    learner: LearnerState,
    rollout: RolloutState,
    key: Key[Array, ""],
    initial: dict[str, Params],
    now: Clock,
) -> Metrics:
    """What `measure` finds on a batch of its own."""
    sample_key, gradient_key = jax.random.split(key_at(key, now.env, MEASURE))
    if parts.schedule.task_steps:  # at a switch it is the task that ends which is measured
        now = Clock(jnp.maximum(now.env - parts.schedule.num_envs, 0), now.update)
    seen = parts.schedule.seen(now)
    horizon = {"horizon": parts.horizon(seen)} if parts.horizon else {}
    batch = parts.replay.sample(rollout.replay_state, sample_key, parts.batch_size, **horizon)
    gradients = parts.agent.gradients(learner.agent, batch, gradient_key, seen)
    values = measure(learner.agent, parts.agent.activations(learner.agent, batch), gradients, initial)
    newest = parts.replay.episodes(rollout.replay_state, parts.spec.episode_steps)
    values |= measure_behaviour(parts.agent, learner.agent, batch.obs, newest)
    if parts.fresh is None:
        return values
    probe_key = jax.random.fold_in(gradient_key, 1)
    batch = parts.replay.sample(rollout.replay_state, jax.random.fold_in(sample_key, 1), INPUTS, **horizon)
    return values | measure_capacity(parts.agent, parts.fresh, learner.agent, batch, probe_key)
