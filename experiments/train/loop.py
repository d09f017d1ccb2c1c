"""The training loops. Both repeat act, learn, step, remember (`experiments.train.step`) for all seeds at once.

`train_on_host` steps environments that live on the host while the device learns. `train_on_device` runs chunks of
steps as one program, environments included, and nothing leaves the device inside a chunk.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key

from envs.pools.device import DevicePool, auto_reset_step
from envs.pools.host import HostPool
from envs.pools.sequence import DeviceTurns, HostTurns
from envs.types import DeviceEnv, EnvState
from experiments.train.devices import ONE_DEVICE, SeedDevices
from experiments.train.schedule import Schedule
from experiments.train.seeds import WORLD, key_at
from experiments.train.state import Check, LearnerState, RolloutState
from experiments.train.step import Steps
from experiments.train.stopwatch import Stopwatch

CHUNK_SECONDS = 1.0
"""Chunks end at least about this often, so that the progress bar moves and Ctrl-C is heard."""

Callback = Callable[["Run"], "Run"]
Advance = Callable[..., tuple[LearnerState, RolloutState, EnvState]]


class Run(NamedTuple):
    """A run between two steps: all that a checkpoint has to hold, beside the environments' own snapshot."""

    step: int
    learner: LearnerState
    rollout: RolloutState


def train_on_host(
    steps: Steps,
    schedule: Schedule,
    pool: HostPool | HostTurns,
    keys: Key[Array, " seeds"],
    run: Run,
    callback: Callback,
    until: int | None = None,
    stopwatch: Stopwatch | None = None,
) -> Run:
    """Train on host environments up to step `until` (the whole schedule by default).

    The update is dispatched before the environments step, so that the device learns while the host simulates.
    `callback(run)` is called before every step and after the last; it logs, evaluates and saves when something is due.
    `stopwatch` is told of every step, and looks at some.
    """
    watch = stopwatch or Stopwatch()
    _, learner, rollout = run
    end = schedule.total if until is None else until
    for step in range(run.step, end):
        _, learner, rollout = callback(Run(step, learner, rollout))
        now = schedule.at(step)
        watch.begin(step, learner, rollout)
        choice = steps.act(learner, rollout, keys, now)
        if schedule.due(step):
            learner = steps.learn(learner, rollout, keys, now)
        if steps.forget and schedule.forgets(step):
            rollout = rollout.after(steps.forget(learner, rollout))
        actions = np.asarray(choice.action)
        watch.acted()
        outcome = pool.step(actions.reshape(-1, actions.shape[-1])[: pool.lanes])
        watch.stepped(learner)
        rollout = steps.remember(rollout, choice, outcome, now)
        watch.end()
    return callback(Run(end, learner, rollout))


def make_advance(steps: Steps, schedule: Schedule, env: DeviceEnv, devices: SeedDevices = ONE_DEVICE) -> Advance:
    """The program of a chunk: `advance(learner, rollout, envs, keys, first, end)`, all loop state donated.

    The length of a chunk is traced, so that one compilation serves all.

    Args:
        steps: of one device; the whole chunk, its loop included, is what each of `devices` runs.
    """
    return devices.program(partial(advance, steps, schedule, env), shared=2, donate=(0, 1, 2))


def advance(
    steps: Steps,
    schedule: Schedule,
    env: DeviceEnv,
    learner: LearnerState,
    rollout: RolloutState,
    envs: EnvState,
    keys: Key[Array, " seeds"],
    first: Int[Array, ""],
    end: Int[Array, ""],
) -> tuple[LearnerState, RolloutState, EnvState]:
    """The steps from `first` up to `end`, of all seeds."""

    def one(
        step: Int[Array, ""], carry: tuple[LearnerState, RolloutState, EnvState]
    ) -> tuple[LearnerState, RolloutState, EnvState]:
        return one_on_device(steps, schedule, env, *carry, keys, step)

    return jax.lax.fori_loop(first, end, one, (learner, rollout, envs))


def one_on_device(
    steps: Steps,
    schedule: Schedule,
    env: DeviceEnv,
    learner: LearnerState,
    rollout: RolloutState,
    envs: EnvState,
    keys: Key[Array, " seeds"],
    step: Int[Array, ""],
) -> tuple[LearnerState, RolloutState, EnvState]:
    """Act, learn, step, remember: what `train_on_host` does in one turn of its loop, inside a program."""
    now = schedule.at(step)
    choice = steps.act(learner, rollout, keys, now)
    # The step is the same for all seeds, so this is a branch; doing nothing is the false one, which is free.
    learner = jax.lax.cond(
        schedule.due(step), lambda one: steps.learn(one, rollout, keys, now), lambda one: one, learner
    )
    rollout = _after_check(steps, schedule.forgets(step), learner, rollout)
    actions = choice.action.reshape(-1, choice.action.shape[-1])
    frame = step * env.spec.action_repeat * schedule.num_envs
    step_envs = jax.vmap(partial(auto_reset_step, env, frame=frame))
    seeds = seed_of_lanes(keys, schedule.num_envs) if env.of else None
    envs, outcome = step_envs(envs, actions, lane_keys(keys, step, schedule.num_envs), seed=seeds)
    return learner, steps.remember(_written_after(rollout, learner), choice, outcome, now), envs


def lane_keys(keys: Key[Array, " seeds"], step: Int[Array, ""], num_envs: int) -> Key[Array, " lanes"]:
    """The random numbers of each environment in a step."""
    return jax.vmap(lambda key: jax.random.split(key_at(key, step, WORLD), num_envs))(keys).reshape(-1)


def seed_of_lanes(keys: Key[Array, " seeds"], num_envs: int) -> Key[Array, " lanes"]:
    """The key of each environment's seed."""
    return keys[np.repeat(np.arange(len(keys)), num_envs)]


def _after_check(
    steps: Steps, due: Bool[Array, ""] | bool, learner: LearnerState, rollout: RolloutState
) -> RolloutState:
    """`rollout` after a check of a dynamic replay, if one is `due`; the replay itself does not pass the branch."""
    if steps.forget is None:
        return rollout
    forget, unchanged = steps.forget, Check(rollout.replay_state.forgotten, rollout.distance)
    return rollout.after(jax.lax.cond(due, lambda _: forget(learner, rollout), lambda one: one, unchanged))


def _written_after(rollout: RolloutState, learner: LearnerState) -> RolloutState:
    """`rollout` unchanged, but not to be written to before `learner` and a check of it are done with reading it.

    Without this dependence XLA sees no order between the two, and copies the whole replay in every step.
    """
    nothing = jnp.minimum(learner.metrics.count, 0)[:, None]  # of a count, which XLA does not know to be positive
    if rollout.replay_state.forgotten is not None:
        nothing += jnp.minimum(rollout.replay_state.forgotten, 0)
    return replace(rollout, replay_state=replace(rollout.replay_state, slots=rollout.replay_state.slots + nothing))


def train_on_device(
    advance: Advance,
    schedule: Schedule,
    pool: DevicePool | DeviceTurns,
    keys: Key[Array, " seeds"],
    run: Run,
    callback: Callback,
    next_due: Callable[[int], int],
    until: int | None = None,
) -> Run:
    """Train on device environments up to step `until` (the whole schedule by default), chunk by chunk.

    `callback(run)` is called before every chunk and after the last; `next_due(step)` is the next step at which it has
    something to do, where a chunk has to end. How a run is cut into chunks changes nothing in it.
    """
    end, longest = schedule.total if until is None else until, 1
    while True:
        run = callback(run)
        if run.step >= end:
            return run
        if run.step == schedule.next_start(run.step - 1):  # steps cost more from here on
            longest = 1
        bounds = [run.step + longest, next_due(run.step), end, schedule.next_start(run.step)]
        stop = min(bound for bound in bounds if bound > run.step)
        started = time.perf_counter()
        learner, rollout, pool.state = advance(
            run.learner, run.rollout, pool.state, keys, np.int32(run.step), np.int32(stop)
        )
        jax.block_until_ready(rollout.episode_step)
        seconds = time.perf_counter() - started
        made = stop - run.step
        longest = max(1, min(2 * made, int(made * CHUNK_SECONDS / seconds)))
        run = Run(stop, learner, rollout)
