"""One step of one seed, and all seeds side by side.

`remember` stores what the environments sent, `act` answers it, `learn` makes the updates that are due, `forget` finds
what a dynamic replay no longer needs. These are pure functions of one seed; `Steps` puts the seeds side by side and
jits them, and `experiments.train.loop` drives them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int, Key, Shaped

from agents.replay import Entry, Replay, ReplayState, side_by_side
from agents.types import Agent, AgentState, Clock, Metrics, Obs, Params
from agents.updates import train_states
from envs.types import AutoResetStep, EnvSpec, Scene
from experiments.train.experience import Dynamic, make_forget, make_sampler
from experiments.train.schedule import Schedule
from ne_jax import Review, ReviewState

Stack = Shaped[Array, "stack *frame"]
OverSeeds = Literal["vmap", "map"]
ACT, LEARN, LOOK, WORLD, EVALUATE, REVIEW = range(6)
"""Streams of random numbers that a seed draws from in each step."""
NEVER = 2**31 - 1
"""A step that no run reaches: its random numbers are free for initialisation."""


@struct.dataclass
class MetricAccumulator:
    """Sums and how many values they sum, since the last log point."""

    total: Any
    count: Int[Array, ""]

    @classmethod
    def of(cls, values: Any) -> MetricAccumulator:
        """An empty tally of values of this structure."""
        return cls(jax.tree.map(lambda _: jnp.zeros(()), values), jnp.zeros((), jnp.int32))

    def add(self, values: Any, when: Array | bool = True) -> MetricAccumulator:
        """Count `values` in, where `when` holds; scalars, or arrays of one shape."""
        total = jax.tree.map(lambda t, v: t + jnp.where(when, v, 0).sum(), self.total, values)
        return MetricAccumulator(total, self.count + jnp.asarray(when).sum())


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

    def after(self, check: Check) -> RolloutState:
        """The same after a check of the dynamic replay."""
        return replace(
            self, replay_state=replace(self.replay_state, forgotten=check.forgotten), distance=check.distance
        )


class Check(NamedTuple):
    """All that a check of the dynamic replay changes in a seed's `RolloutState`."""

    forgotten: Any
    distance: Any


class Choice(NamedTuple):
    """What an agent does, and, for a dynamic replay, what it would do without noise."""

    action: Float[Array, "*seeds envs actions"]
    mean: Float[Array, "*seeds envs actions"] | None


@struct.dataclass
class LearnerState:
    """What one seed has learned, its losses since the last log point, and what decides what it reviews."""

    agent: AgentState
    metrics: MetricAccumulator
    review: ReviewState | None = None


class Steps(NamedTuple):
    """The jitted programs of a run; every argument but `step` has a leading seed axis, `step` is shared.

    Scenes and arrivals come with one leading axis of lanes, the environments of the first seed first. `forget` is None
    where the replay is not dynamic.
    """

    init: Callable[[Key[Array, " seeds"], Scene], tuple[LearnerState, RolloutState]]
    act: Callable[[LearnerState, RolloutState, Key[Array, " seeds"], Clock], Choice]
    learn: Callable[[LearnerState, RolloutState, Key[Array, " seeds"], Clock], LearnerState]
    remember: Callable[[RolloutState, Choice, AutoResetStep], RolloutState]
    enter: Callable[[RolloutState, Scene], RolloutState]
    forget: Callable[[LearnerState, RolloutState], Check] | None
    initial: Callable[[Key[Array, " seeds"]], dict[str, Params]]
    look: Callable[[LearnerState, RolloutState, Key[Array, " seeds"], dict[str, Params], Clock], dict[str, Array]]
    greedy: Callable[[AgentState, Stack], Float[Array, "seeds actions"]]
    watch: Callable[[Stack | None, Scene], Stack]


def over_seeds(fn: Callable, how: OverSeeds, shared: int = 0) -> Callable:
    """`fn` of one seed as a function of all: the last `shared` arguments are passed to every seed as they are.

    `vmap` batches the seeds, which suits dense nets. `map` runs one after the other inside one program: under `vmap`,
    convolutions with different weights become grouped convolutions, which are slow on every device.
    """

    def batched(*args: Any) -> Any:
        lanes, rest = args[: len(args) - shared], args[len(args) - shared :]
        if how == "vmap":
            return jax.vmap(lambda each: fn(*each, *rest))(lanes)
        return jax.lax.map(lambda each: fn(*each, *rest), lanes)

    return batched


def key_at(key: Key[Array, ""], number: Any, stream: int) -> Key[Array, ""]:
    """The random numbers of one step, or update, of a seed."""
    return jax.random.fold_in(jax.random.fold_in(key, number), stream)


def stack_frames(frames: int, stack: Stack | None, frame: Obs) -> Stack:
    """Push a frame onto a stack, newest last; None starts one with the frame repeated.

    The stack is a leading axis, along which pushing moves whole frames; `replay.side_by_side` is for who looks at it.
    """
    if stack is None:
        return jnp.stack([frame] * frames)
    return jnp.concatenate([stack[1:], frame[None]])


def make_steps(
    agent: Agent,
    replay: Replay,
    spec: EnvSpec,
    schedule: Schedule,
    *,
    batch_size: int,
    frames: int,
    how: OverSeeds,
    measure: Callable[..., Metrics],
    keep_frames: bool = False,
    horizon: Callable[[Clock], Any] | None = None,
    review: Review | None = None,
    dynamic: Dynamic | None = None,
) -> Steps:
    """Build the programs of a run.

    Args:
        frames: observations in a stack.
        measure: `(agent_state, activations, gradients, initial)` to what is logged beside the losses; `initial` are the
            parameters that each network began with.
        keep_frames: the replay stores what was observed, not the scenes.
        horizon: steps that returns sum at a time; None leaves it to the replay.
        review: how often updates learn from early data; None for never.
        dynamic: when the replay, which must be dynamic, forgets; None for never.
    """
    sampler = make_sampler(agent, replay, batch_size, horizon, review)
    observe, envs = jax.vmap(spec.observe), schedule.num_envs
    begin_stacks = jax.vmap(lambda frame: stack_frames(frames, None, frame))
    push = jax.vmap(lambda stack, frame: stack_frames(frames, stack, frame))

    def begin_learning(key: Key[Array, ""]) -> LearnerState:
        state, review_state = agent.init(key_at(key, NEVER, ACT)), sampler.init()
        *_, metrics = jax.eval_shape(lambda: update(state, review_state, replay.init(), key, Clock(0, 0)))
        return LearnerState(state, MetricAccumulator.of(metrics), review_state)

    def begin_memory(scene: Scene) -> RolloutState:
        unset: Any = None
        distance = MetricAccumulator.of(0.0) if dynamic else None
        return enter(RolloutState(replay.init(), unset, unset, unset, MetricAccumulator.of(0.0), distance), scene)

    def enter(rollout: RolloutState, scene: Scene) -> RolloutState:
        """Whatever was under way is over, without an end: these are first scenes."""
        frame, none = observe(scene), jnp.zeros(envs)
        replay_state = add_first(rollout.replay_state, frame if keep_frames else scene, jnp.ones(envs, bool))
        return replace(
            rollout,
            replay_state=replay_state,
            obs=begin_stacks(frame),
            episode_step=none.astype(jnp.int32),
            episode_return=none,
        )

    def init(keys: Key[Array, " seeds"], scene: Scene) -> tuple[LearnerState, RolloutState]:
        return over_seeds(begin_learning, "map")(keys), over_seeds(begin_memory, "vmap")(by_seed(scene))

    def by_seed(lanes: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.reshape(leaf, (-1, envs, *leaf.shape[1:])), lanes)

    def add_first(replay_state: ReplayState, scene: Scene, keep: Array) -> ReplayState:
        action, none = jnp.zeros((envs, spec.action_dim)), jnp.zeros(envs)
        mean = action if dynamic else None
        return replay.add(replay_state, Entry(scene, action, none, none > 0, none.astype(jnp.int32), mean), keep)

    def remember(rollout: RolloutState, choice: Choice, outcome: AutoResetStep) -> RolloutState:
        (scene, *rest), first, episode_step = outcome.step, outcome.reset, rollout.episode_step + 1
        reward, terminated, truncated = (jnp.asarray(value) for value in rest)
        over = terminated | truncated

        def where_over(new: Any, old: Any) -> Any:
            return jax.tree.map(lambda n, o: jnp.where(over.reshape(-1, *[1] * (n.ndim - 1)), n, o), new, old)

        if keep_frames:
            scene, first = observe(scene), observe(first)
            frame = where_over(first, scene)
        else:  # the last scene of an episode is stored and never acted upon: it need not be drawn
            frame = observe(where_over(first, scene))
        entry = Entry(scene, choice.action, reward, terminated, episode_step, choice.mean)
        replay_state = add_first(replay.add(rollout.replay_state, entry, jnp.ones(envs, bool)), first, over)
        total = rollout.episode_return + reward
        return replace(
            rollout,
            replay_state=replay_state,
            obs=where_over(begin_stacks(frame), push(rollout.obs, frame)),
            episode_step=jnp.where(over, 0, episode_step),
            episode_return=jnp.where(over, 0.0, total),
            returns=rollout.returns.add(total, over),
        )

    def act(learner: LearnerState, rollout: RolloutState, key: Key[Array, ""], step: Clock) -> Choice:
        keys = jax.random.split(key_at(key, step.env, ACT), envs)
        action = jax.vmap(lambda obs, each: agent.act(learner.agent, side_by_side(obs), each, step))(rollout.obs, keys)
        return Choice(action, jax.vmap(partial(greedy, learner.agent))(rollout.obs) if dynamic else None)

    def update(
        state: AgentState, review_state: ReviewState | None, replay_state: ReplayState, key: Key[Array, ""], now: Clock
    ) -> tuple[AgentState, ReviewState | None, Metrics]:
        sample_key, update_key = jax.random.split(key_at(key, now.update, LEARN))
        batch, decision = sampler.sample(replay_state, review_state, (sample_key, key_at(key, now.update, REVIEW)), now)
        review_state = sampler.observe(review_state, state, batch, now)
        state, metrics = agent.update(state, batch, update_key, now)
        return state, review_state, metrics | sampler.tell(review_state, decision)

    def learn(learner: LearnerState, rollout: RolloutState, key: Key[Array, ""], step: Clock) -> LearnerState:
        def one(i: Any, learner: LearnerState) -> LearnerState:
            now = Clock(step.env, step.update + i)
            state, review_state, metrics = update(learner.agent, learner.review, rollout.replay_state, key, now)
            return LearnerState(state, learner.metrics.add(metrics), review_state)

        if schedule.updates_each == 1:
            return one(0, learner)
        return jax.lax.fori_loop(0, schedule.updates_each, one, learner)

    def initial(key: Key[Array, ""]) -> dict[str, Params]:
        return {name: model.params for name, model in train_states(agent.init(key_at(key, NEVER, ACT))).items()}

    def look(learner: LearnerState, rollout: RolloutState, key: Key[Array, ""], origin: Any, step: Clock) -> Metrics:
        state = learner.agent
        sample_key, gradient_key = jax.random.split(key_at(key, step.env, LOOK))
        batch = replay.sample(
            rollout.replay_state, sample_key, batch_size, **({"horizon": horizon(step)} if horizon else {})
        )
        gradients = agent.gradients(state, batch, gradient_key, step)
        return measure(state, agent.activations(state, batch), gradients, origin)

    def greedy(state: AgentState, stack: Stack) -> Float[Array, " actions"]:
        return agent.act(state, side_by_side(stack), jax.random.key(0), None)

    def watch(stack: Stack | None, scene: Scene) -> Stack:
        return begin_stacks(observe(scene)) if stack is None else push(stack, observe(scene))

    def check(learner: LearnerState, rollout: RolloutState) -> Check:
        forgotten, distance = forget(learner.agent, rollout.replay_state)
        tally: Any = rollout.distance
        return Check(forgotten, tally.add(distance))

    forget: Any = make_forget(agent, replay, batch_size, dynamic) if dynamic else None
    remember_all, enter_all = over_seeds(remember, "vmap"), over_seeds(enter, "vmap")
    return Steps(
        init=jax.jit(init),
        act=jax.jit(over_seeds(act, how, shared=1)),
        learn=jax.jit(over_seeds(learn, how, shared=1), donate_argnums=0),
        remember=jax.jit(lambda m, choice, outcome: remember_all(m, choice, by_seed(outcome)), donate_argnums=0),
        enter=jax.jit(lambda rollout, scene: enter_all(rollout, by_seed(scene)), donate_argnums=0),
        forget=jax.jit(over_seeds(check, how)) if dynamic else None,
        initial=jax.jit(over_seeds(initial, "map")),
        look=jax.jit(over_seeds(look, "map", shared=1)),
        greedy=jax.jit(over_seeds(greedy, how)),
        watch=jax.jit(watch),
    )
