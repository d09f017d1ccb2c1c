"""What environments on the device and whole chunks of training do in a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import jax
from ml_collections import ConfigDict

from envs.gymnax.env import task_names
from envs.pools.device import auto_reset_step
from envs.registry import device_env
from experiments.benches.timing import Row, milliseconds
from experiments.build.experiment import Experiment, setup
from experiments.train.loop import Run
from experiments.train.rollout import stack_frames


def bench_frames(envs: int = 64, steps: int = 160) -> Iterator[Row]:
    """Gymnax tasks at 84x84 with random actions: a step, a picture and a push on a stack of three."""
    for task in task_names():
        yield f"{task}, {envs} side by side", frames_per_second("gymnax", task, envs, steps), "frames/s"


def frames_per_second(kind: str, task: str, envs: int, steps: int, size: int = 84) -> float:
    """Of `envs` environments side by side, from pixels, all together."""
    env = device_env(kind, task, pixels=True, image_size=size)

    def one(state: Any, obs: Any, key: Any) -> Any:
        action_key, step_key = jax.random.split(key)
        action = jax.random.uniform(action_key, (env.spec.action_dim,), minval=-1, maxval=1)
        state, outcome = auto_reset_step(env, state, action, step_key)
        return state, stack_frames(3, obs, env.spec.observe(outcome.reset))

    def many(state: Any, obs: Any, key: Any) -> Any:
        def body(step: Any, carry: Any) -> Any:
            state, obs = carry
            return jax.vmap(one)(state, obs, jax.random.split(jax.random.fold_in(key, step), envs))

        return jax.lax.fori_loop(0, steps, body, (state, obs))

    state, scene = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), envs))
    obs = jax.vmap(lambda each: stack_frames(3, None, env.spec.observe(each)))(scene)
    return 1e3 * envs * steps / milliseconds(jax.jit(many), state, obs, jax.random.key(1))


def bench_train(make: Callable[[], ConfigDict], seconds: float = 5.0) -> Iterator[Row]:
    """Frames per second of the chunk, all seeds together, while it learns."""
    for seeds, envs in ((1, 1), (4, 1), (8, 1), (16, 1), (64, 1), (1, 16)):
        experiment = setup(endless(make(), seeds, envs, capacity=20_000))
        speed = train_speed(experiment, experiment.pool.reset(), seconds)
        yield f"train {experiment.config.exp_id}, {seeds} seeds x {envs} envs", speed, "frames/s"


def endless(config: ConfigDict, seeds: int, envs: int = 1, capacity: int | None = None) -> ConfigDict:
    """The config with so many seeds and environments, of a run that no measurement sees the end of."""
    config.seeds, config.env.num_envs, config.total_frames = tuple(range(seeds)), envs, 10**8
    config.replay.capacity = capacity or config.replay.capacity
    return config


def train_speed(experiment: Experiment, scene: Any, seconds: float) -> float:
    """Frames per second of all seeds together, in the first `seconds` in which all is compiled and it learns."""
    run = Run(0, *experiment.steps.init(experiment.keys, scene))
    begin, first, rate = 0.0, experiment.schedule.first_update + 8, 0.0

    def callback(run: Run) -> Run:
        nonlocal begin, rate
        if run.step == first:
            begin = time.perf_counter()
        elif run.step > first:
            passed = time.perf_counter() - begin
            rate = len(experiment.config.seeds) * experiment.frame(run.step - first) / passed
            if passed > seconds:
                raise StopIteration
        return run

    with suppress(StopIteration):
        experiment.train(run, callback, lambda step: first if step < first else experiment.schedule.total)
    return rate
