"""The training loop: one step of a seed, all seeds side by side, and the host loop around them.

Read from the top: `remember` stores what an environment sent, `act` answers it, `learn` makes one update. These are
pure functions of one seed; `Steps` puts the seeds side by side and jits them; `train` drives them from the host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int, Key

from agents.replay import Entry, Replay, Ring
from agents.types import Agent, AgentState, Metrics, Obs, Step
from envs.pool import HostPool
from envs.types import Arrival, EnvSpec, Scene

OverSeeds = Literal["vmap", "map"]
ACT, LEARN, LOOK = range(3)
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
        """Count `values` in, where `when` holds."""
        total = jax.tree.map(lambda t, v: t + jnp.where(when, v, 0), self.total, values)
        return Tally(total, self.count + jnp.where(when, 1, 0))


@struct.dataclass
class Memory:
    """What one seed has of its environment: the replay, the current observation, the episode so far."""

    ring: Ring
    obs: Obs
    age: Int[Array, ""]
    episode_return: Float[Array, ""]
    returns: Tally


@struct.dataclass
class Learner:
    """What one seed has learned, and its losses since the last log point."""

    agent: AgentState
    metrics: Tally


class Schedule(NamedTuple):
    """When things happen, in agent steps. Everything is a function of the step alone, so that a run resumes exactly."""

    total: int
    first_update: int
    update_every: int

    def due(self, step: int) -> bool:
        """Is there an update in this step?"""
        return step >= self.first_update and (step - self.first_update) % self.update_every == 0

    def updates(self, step: int) -> int:
        """Updates made before this step."""
        return max(0, -(-(step - self.first_update) // self.update_every))


class Steps(NamedTuple):
    """The jitted programs of a run; every argument but `step` has a leading seed axis, `step` is shared."""

    init: Callable[[Key[Array, " seeds"], Scene], tuple[Learner, Memory]]
    act: Callable[[Learner, Memory, Key[Array, " seeds"], Step], Float[Array, "seeds actions"]]
    learn: Callable[[Learner, Memory, Key[Array, " seeds"], Step], Learner]
    remember: Callable[[Memory, Float[Array, "seeds actions"], Arrival], Memory]
    look: Callable[[Learner, Memory, Key[Array, " seeds"], Step], dict[str, Array]]
    greedy: Callable[[AgentState, Obs], Float[Array, "seeds actions"]]
    watch: Callable[[Obs | None, Scene], Obs]


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


def stack_frames(spec: EnvSpec, frames: int, obs: Obs | None, scene: Scene) -> Obs:
    """Push the observation of `scene` onto the stack `obs`; None starts a stack with the scene repeated."""
    frame = spec.observe(scene)
    if obs is None:
        return jnp.concatenate([frame] * frames, axis=-1)
    return jnp.concatenate([obs[..., frame.shape[-1] :], frame], axis=-1)


def make_steps(
    agent: Agent,
    replay: Replay,
    spec: EnvSpec,
    *,
    batch_size: int,
    frames: int,
    how: OverSeeds,
    measure: Callable[[AgentState, dict[str, Array]], Metrics],
) -> Steps:
    """Build the programs of a run. `measure(agent_state, activations)` gives what is logged beside the losses."""

    def key_at(key: Key[Array, ""], step: Step, stream: int) -> Key[Array, ""]:
        return jax.random.fold_in(jax.random.fold_in(key, step.env), stream)

    def begin_learning(key: Key[Array, ""]) -> Learner:
        state = agent.init(key_at(key, Step(NEVER, 0), ACT))
        batch = jax.eval_shape(lambda: replay.sample(replay.init(), key, batch_size))
        _, metrics = jax.eval_shape(agent.update, state, batch, key, Step(0, 0))
        return Learner(state, Tally.of(metrics))

    def begin_memory(scene: Scene) -> Memory:
        ring = add_scene(replay.init(), scene)
        return Memory(ring, stack_frames(spec, frames, None, scene), jnp.int32(0), jnp.zeros(()), Tally.of(0.0))

    def init(keys: Key[Array, " seeds"], scene: Scene) -> tuple[Learner, Memory]:
        return over_seeds(begin_learning, "map")(keys), over_seeds(begin_memory, "vmap")(scene)

    def add_scene(ring: Ring, scene: Scene, keep: Array | bool = True) -> Ring:
        action = jnp.zeros(spec.action_dim)
        return replay.add(ring, Entry(scene, action, jnp.zeros(()), jnp.array(False), jnp.int32(0)), keep)

    def remember(memory: Memory, action: Float[Array, " actions"], arrival: Arrival) -> Memory:
        scene, age = arrival.step.scene, memory.age + 1
        reward, terminated, truncated = (jnp.asarray(value) for value in arrival.step[1:])
        over = terminated | truncated
        ring = replay.add(memory.ring, Entry(scene, action, reward, terminated, age), True)
        ring = add_scene(ring, arrival.reset, over)
        fresh = stack_frames(spec, frames, None, arrival.reset)
        total = memory.episode_return + reward
        return Memory(
            ring=ring,
            obs=jnp.where(over, fresh, stack_frames(spec, frames, memory.obs, scene)),
            age=jnp.where(over, 0, age),
            episode_return=jnp.where(over, 0.0, total),
            returns=memory.returns.add(total, over),
        )

    def act(learner: Learner, memory: Memory, key: Key[Array, ""], step: Step) -> Float[Array, " actions"]:
        return agent.act(learner.agent, memory.obs, key_at(key, step, ACT), step)

    def learn(learner: Learner, memory: Memory, key: Key[Array, ""], step: Step) -> Learner:
        sample_key, update_key = jax.random.split(key_at(key, step, LEARN))
        batch = replay.sample(memory.ring, sample_key, batch_size)
        state, metrics = agent.update(learner.agent, batch, update_key, step)
        return Learner(state, learner.metrics.add(metrics))

    def look(learner: Learner, memory: Memory, key: Key[Array, ""], step: Step) -> Metrics:
        batch = replay.sample(memory.ring, key_at(key, step, LOOK), batch_size)
        return measure(learner.agent, agent.activations(learner.agent, batch))

    def greedy(state: AgentState, obs: Obs) -> Float[Array, " actions"]:
        return agent.act(state, obs, jax.random.key(0), None)

    def watch(obs: Obs | None, scene: Scene) -> Obs:
        return jax.vmap(lambda o, s: stack_frames(spec, frames, o, s), in_axes=(None if obs is None else 0, 0))(
            obs, scene
        )

    return Steps(
        init=jax.jit(init),
        act=jax.jit(over_seeds(act, how, shared=1)),
        learn=jax.jit(over_seeds(learn, how, shared=1), donate_argnums=0),
        remember=jax.jit(over_seeds(remember, "vmap"), donate_argnums=0),
        look=jax.jit(over_seeds(look, "map", shared=1)),
        greedy=jax.jit(over_seeds(greedy, how)),
        watch=jax.jit(watch),
    )


class Run(NamedTuple):
    """A run between two steps: all that a checkpoint has to hold, beside the environments' own snapshot."""

    step: int
    learner: Learner
    memory: Memory


def train(
    steps: Steps,
    schedule: Schedule,
    pool: HostPool,
    keys: Key[Array, " seeds"],
    run: Run,
    pause: Callable[[Run], Run],
    until: int | None = None,
) -> Run:
    """Train on host environments up to agent step `until` (the whole schedule by default).

    The update is dispatched before the environments step, so that the device learns while the host simulates.
    `pause(run)` is called before every step and after the last; it logs, evaluates and saves when something is due.
    """
    _, learner, memory = run
    end = schedule.total if until is None else until
    for step in range(run.step, end):
        _, learner, memory = pause(Run(step, learner, memory))
        now = Step(step, schedule.updates(step))
        action = steps.act(learner, memory, keys, now)
        if schedule.due(step):
            learner = steps.learn(learner, memory, keys, now)
        arrival = pool.step(np.asarray(action))
        memory = steps.remember(memory, action, arrival)
    return pause(Run(end, learner, memory))
