"""How fast host environments are: `python -m envs.bench` prints steps per second of every pool backend.

The numbers are agent steps of all lanes together, at 84x84 from pixels, with nothing else running.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from envs import host_env
from envs.gl import RenderQuality
from envs.pool import Backend, HostPool

TASKS = ("cartpole_swingup", "cheetah_run", "walker_walk")
BACKENDS: tuple[Backend, ...] = ("serial", "thread", "process")


class EnvSpeed(NamedTuple):
    """One measurement: seconds to make the pool and reset it, and agent steps per second of all lanes together."""

    task: str
    quality: RenderQuality
    backend: Backend
    lanes: int
    start_seconds: float
    steps_per_second: float


def bench_envs(
    tasks: Sequence[str] = TASKS,
    backends: Sequence[Backend] = BACKENDS,
    quality: RenderQuality = "fast",
    *,
    lanes: int = 2,
    seconds: float = 2.0,
    repeats: int = 3,
) -> Iterator[EnvSpeed]:
    """Yields the speed of every task and backend: the best of `repeats` runs of `seconds` each, random actions."""
    for task in tasks:
        make = host_env("dmc", task, pixels=True, render_quality=quality)
        for backend in backends:
            begin = time.perf_counter()
            with HostPool(make, [(0, lane) for lane in range(lanes)], backend) as pool:
                pool.reset()
                start = time.perf_counter() - begin
                speed = max(_speed(pool, lanes, seconds) for _ in range(repeats))
            yield EnvSpeed(task, quality, backend, lanes, start, speed)


def _speed(pool: HostPool, lanes: int, seconds: float) -> float:
    actions = np.random.default_rng(0).uniform(-1, 1, (256, lanes, pool.spec.action_dim)).astype(np.float32)
    steps, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        pool.step(actions[steps % len(actions)])
        steps += 1
    return steps * lanes / (time.perf_counter() - begin)


def format_speed(speed: EnvSpeed) -> str:
    """One line of the table that `bench_envs` makes."""
    return (
        f"{speed.task:<20} {speed.quality:<10} {speed.backend:<8} lanes {speed.lanes}  "
        f"start {speed.start_seconds:4.1f} s  {speed.steps_per_second:6.0f} steps/s"
    )


if __name__ == "__main__":
    for measured in bench_envs():
        print(format_speed(measured), flush=True)
    for measured in bench_envs(quality="canonical"):
        print(format_speed(measured), flush=True)
