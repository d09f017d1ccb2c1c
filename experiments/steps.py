"""One step of one seed, and all seeds side by side.

`remember` stores what the environments sent, `act` answers it, `learn` makes the updates that are due, `forget` finds
what a dynamic replay no longer needs. These are pure functions of one seed; `Steps` puts the seeds side by side and
jits them, and `experiments.loop` drives them.
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

from agents.learn import models
from agents.replay import Entry, Replay, Ring, side_by_side
from agents.types import Agent, AgentState, Metrics, Obs, Params, Step
from envs.types import Arrival, EnvSpec, Scene
from experiments.past import Dynamic, make_forget, make_sampler
from experiments.schedule import Schedule
from ne_jax import Review, ReviewState

Stack = Shaped[Array, "stack *frame"]
OverSeeds = Literal["vmap", "map"]
ACT, LEARN, LOOK, WORLD, EVALUATE, REVIEW = range(6)
"""Streams of random numbers that a seed draws from in each step."""
NEVER = 2**31 - 1
"""A step that no run reaches: its random numbers are free for initialisation."""


@struct.dataclass
class Tally:
    """Sums and how many values they sum, since the last log point."""

    total: Any
    count: Int[Array, ""]

    @classmethod
    def of(cls, values: Any) -> Tally:
        """An empty tally of values of this structure."""
        return cls(jax.tree.map(lambda _: jnp.zeros(()), values), jnp.zeros((), jnp.int32))

    def add(self, values: Any, when: Array | bool = True) -> Tally:
        """Count `values` in, where `when` holds; scalars, or arrays of one shape."""
        total = jax.tree.map(lambda t, v: t + jnp.where(when, v, 0).sum(), self.total, values)
        return Tally(total, self.count + jnp.asarray(when).sum())


@struct.dataclass
class Memory:
    """What one seed has of its environments: the replay, and of each its newest observations and the episode so far."""

    ring: Ring
    obs: Shaped[Array, "envs stack *frame"]
    age: Int[Array, " envs"]
    episode_return: Float[Array, " envs"]
    returns: Tally
    distance: Tally | None = None
    """Of a dynamic replay: how far the policy was from its oldest data, since the last log point."""

    def after(self, check: Check) -> Memory:
        """The memory after a check of the dynamic replay."""
        return replace(self, ring=replace(self.ring, forgotten=check.forgotten), distance=check.distance)


class Check(NamedTuple):
    """All that a check of the dynamic replay changes in a seed's memory."""

    forgotten: Any
    distance: Any


class Choice(NamedTuple):
    """What an agent does, and, for a dynamic replay, what it would do without noise."""

    action: Float[Array, "*seeds envs actions"]
    mean: Float[Array, "*seeds envs actions"] | None


@struct.dataclass
class Learner:
    """What one seed has learned, its losses since the last log point, and what decides what it reviews."""

    agent: AgentState
    metrics: Tally
    review: ReviewState | None = None


class Steps(NamedTuple):
    """The jitted programs of a run; every argument but `step` has a leading seed axis, `step` is shared.

    Scenes and arrivals come with one leading axis of lanes, the environments of the first seed first. `forget` is None
    where the replay is not dynamic.
    """

    init: Callable[[Key[Array, " seeds"], Scene], tuple[Learner, Memory]]
    act: Callable[[Learner, Memory, Key[Array, " seeds"], Step], Choice]
    learn: Callable[[Learner, Memory, Key[Array, " seeds"], Step], Learner]
    remember: Callable[[Memory, Choice, Arrival], Memory]
    enter: Callable[[Memory, Scene], Memory]
    forget: Callable[[Learner, Memory], Check] | None
    initial: Callable[[Key[Array, " seeds"]], dict[str, Params]]
    look: Callable[[Learner, Memory, Key[Array, " seeds"], dict[str, Params], Step], dict[str, Array]]
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
    horizon: Callable[[Step], Any] | None = None,
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

    def begin_learning(key: Key[Array, ""]) -> Learner:
        state, review_state = agent.init(key_at(key, NEVER, ACT)), sampler.init()
        *_, metrics = jax.eval_shape(lambda: update(state, review_state, replay.init(), key, Step(0, 0)))
        return Learner(state, Tally.of(metrics), review_state)

    def begin_memory(scene: Scene) -> Memory:
        unset: Any = None
        distance = Tally.of(0.0) if dynamic else None
        return enter(Memory(replay.init(), unset, unset, unset, Tally.of(0.0), distance), scene)

    def enter(memory: Memory, scene: Scene) -> Memory:
        """Whatever was under way is over, without an end: these are first scenes."""
        frame, none = observe(scene), jnp.zeros(envs)
        ring = add_first(memory.ring, frame if keep_frames else scene, jnp.ones(envs, bool))
        return replace(memory, ring=ring, obs=begin_stacks(frame), age=none.astype(jnp.int32), episode_return=none)

    def init(keys: Key[Array, " seeds"], scene: Scene) -> tuple[Learner, Memory]:
        return over_seeds(begin_learning, "map")(keys), over_seeds(begin_memory, "vmap")(by_seed(scene))

    def by_seed(lanes: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.reshape(leaf, (-1, envs, *leaf.shape[1:])), lanes)

    def add_first(ring: Ring, scene: Scene, keep: Array) -> Ring:
        action, none = jnp.zeros((envs, spec.action_dim)), jnp.zeros(envs)
        mean = action if dynamic else None
        return replay.add(ring, Entry(scene, action, none, none > 0, none.astype(jnp.int32), mean), keep)

    def remember(memory: Memory, choice: Choice, arrival: Arrival) -> Memory:
        (scene, *rest), first, age = arrival.step, arrival.reset, memory.age + 1
        reward, terminated, truncated = (jnp.asarray(value) for value in rest)
        over = terminated | truncated

        def where_over(new: Any, old: Any) -> Any:
            return jax.tree.map(lambda n, o: jnp.where(over.reshape(-1, *[1] * (n.ndim - 1)), n, o), new, old)

        if keep_frames:
            scene, first = observe(scene), observe(first)
            frame = where_over(first, scene)
        else:  # the last scene of an episode is stored and never acted upon: it need not be drawn
            frame = observe(where_over(first, scene))
        entry = Entry(scene, choice.action, reward, terminated, age, choice.mean)
        ring = add_first(replay.add(memory.ring, entry, jnp.ones(envs, bool)), first, over)
        total = memory.episode_return + reward
        return replace(
            memory,
            ring=ring,
            obs=where_over(begin_stacks(frame), push(memory.obs, frame)),
            age=jnp.where(over, 0, age),
            episode_return=jnp.where(over, 0.0, total),
            returns=memory.returns.add(total, over),
        )

    def act(learner: Learner, memory: Memory, key: Key[Array, ""], step: Step) -> Choice:
        keys = jax.random.split(key_at(key, step.env, ACT), envs)
        action = jax.vmap(lambda obs, each: agent.act(learner.agent, side_by_side(obs), each, step))(memory.obs, keys)
        return Choice(action, jax.vmap(partial(greedy, learner.agent))(memory.obs) if dynamic else None)

    def update(
        state: AgentState, review_state: ReviewState | None, ring: Ring, key: Key[Array, ""], now: Step
    ) -> tuple[AgentState, ReviewState | None, Metrics]:
        sample_key, update_key = jax.random.split(key_at(key, now.update, LEARN))
        batch, decision = sampler.sample(ring, review_state, (sample_key, key_at(key, now.update, REVIEW)), now)
        review_state = sampler.observe(review_state, state, batch, now)
        state, metrics = agent.update(state, batch, update_key, now)
        return state, review_state, metrics | sampler.tell(review_state, decision)

    def learn(learner: Learner, memory: Memory, key: Key[Array, ""], step: Step) -> Learner:
        def one(i: Any, learner: Learner) -> Learner:
            now = Step(step.env, step.update + i)
            state, review_state, metrics = update(learner.agent, learner.review, memory.ring, key, now)
            return Learner(state, learner.metrics.add(metrics), review_state)

        if schedule.updates_each == 1:
            return one(0, learner)
        return jax.lax.fori_loop(0, schedule.updates_each, one, learner)

    def initial(key: Key[Array, ""]) -> dict[str, Params]:
        return {name: model.params for name, model in models(agent.init(key_at(key, NEVER, ACT))).items()}

    def look(learner: Learner, memory: Memory, key: Key[Array, ""], origin: Any, step: Step) -> Metrics:
        state = learner.agent
        sample_key, gradient_key = jax.random.split(key_at(key, step.env, LOOK))
        batch = replay.sample(memory.ring, sample_key, batch_size, **({"horizon": horizon(step)} if horizon else {}))
        gradients = agent.gradients(state, batch, gradient_key, step)
        return measure(state, agent.activations(state, batch), gradients, origin)

    def greedy(state: AgentState, stack: Stack) -> Float[Array, " actions"]:
        return agent.act(state, side_by_side(stack), jax.random.key(0), None)

    def watch(stack: Stack | None, scene: Scene) -> Stack:
        return begin_stacks(observe(scene)) if stack is None else push(stack, observe(scene))

    def check(learner: Learner, memory: Memory) -> Check:
        forgotten, distance = forget(learner.agent, memory.ring)
        tally: Any = memory.distance
        return Check(forgotten, tally.add(distance))

    forget: Any = make_forget(agent, replay, batch_size, dynamic) if dynamic else None
    remember_all, enter_all = over_seeds(remember, "vmap"), over_seeds(enter, "vmap")
    return Steps(
        init=jax.jit(init),
        act=jax.jit(over_seeds(act, how, shared=1)),
        learn=jax.jit(over_seeds(learn, how, shared=1), donate_argnums=0),
        remember=jax.jit(lambda m, choice, arrival: remember_all(m, choice, by_seed(arrival)), donate_argnums=0),
        enter=jax.jit(lambda memory, scene: enter_all(memory, by_seed(scene)), donate_argnums=0),
        forget=jax.jit(over_seeds(check, how)) if dynamic else None,
        initial=jax.jit(over_seeds(initial, "map")),
        look=jax.jit(over_seeds(look, "map", shared=1)),
        greedy=jax.jit(over_seeds(greedy, how)),
        watch=jax.jit(watch),
    )
