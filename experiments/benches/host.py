"""How fast environments on the host are, by how they step side by side."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
from absl import logging

from envs.pools.batch import BatchPool
from envs.pools.host import HostPool
from envs.registry import find_kind, host_env
from envs.types import HostKind
from experiments.benches.timing import Row

MOST_PROCESSES = 16  # an interpreter for each lane


def bench_envs(lanes: int = 2, seconds: float = 2.0) -> Iterator[Row]:
    """Host environments at 84x84, action repeat 2, random actions; the best of three runs."""
    for renderer, quality in (("jax", "fast"), ("gl", "fast"), ("gl", "canonical")):
        for task in ("cartpole_swingup", "cheetah_run", "walker_walk"):
            make = host_env("dmc", task, pixels=True, renderer=renderer, render_quality=quality)
            for backend in ("serial", "thread", "process"):
                with HostPool(make, [(0, lane) for lane in range(lanes)], backend) as pool:
                    pool.reset()
                    speed = max(_steps_per_second(pool, seconds) for _ in range(3))
                yield f"{task} {renderer} {quality} {backend}, {lanes} lanes", speed, "steps/s"


def bench_host(seconds: float = 0.1, rounds: int = 12) -> Iterator[Row]:
    """dm_control from states, action repeat 2, random actions: `env.workers=batch` against the other three.

    All are stepped in turn, several times. The least time of a step counts, and the least processor time here.
    """
    logging.set_verbosity(logging.ERROR)  # every environment warns of its model's old XML
    for task in ("cheetah_run", "cartpole_swingup", "walker_walk", "reacher_easy", "finger_spin"):
        for lanes in (2, 16, 64):
            best = _best(task, lanes, seconds, rounds)
            for backend, (clock, worked) in best.items():
                yield f"{task}, {lanes} lanes, {backend}", 1e6 * clock, "us a step"
                if backend != "process":
                    yield f"{task}, {lanes} lanes, {backend}", 1e6 * worked, "us of CPU"
            batch = best.pop("batch")
            fastest = min(best, key=lambda backend: best[backend][0])
            yield f"{task}, {lanes} lanes: batch against {fastest}", best[fastest][0] / batch[0], "times as fast"
            yield f"{task}, {lanes} lanes: batch against serial", best["serial"][1] / batch[1], "times less CPU"


def _best(task: str, lanes: int, seconds: float, rounds: int) -> dict[str, tuple[float, float]]:
    """The least seconds of a step of all, and of its processor time, of each way to step so many environments."""
    make, kind, streams = host_env("dmc", task), find_kind("dmc"), [(0, lane) for lane in range(lanes)]
    assert isinstance(kind, HostKind) and kind.together is not None
    pools: dict[str, HostPool] = {"serial": HostPool(make, streams, "serial")}
    try:
        pools["thread"] = HostPool(make, streams, "thread")
        if lanes <= MOST_PROCESSES:
            pools["process"] = HostPool(make, streams, "process")
        pools["batch"] = BatchPool(make, kind.together(task), streams)
        for pool in pools.values():
            pool.reset()
        runs = [{name: _least(pool, seconds) for name, pool in pools.items()} for _ in range(rounds)]
    finally:
        for pool in pools.values():
            pool.close()
    return {name: (min(run[name][0] for run in runs), min(run[name][1] for run in runs)) for name in pools}


def _actions(pool: HostPool) -> np.ndarray:
    shape = (256, pool.lanes, pool.spec.action_dim)
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def _steps_per_second(pool: HostPool, seconds: float) -> float:
    actions, steps, begin = _actions(pool), 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        pool.step(actions[steps % len(actions)])
        steps += 1
    return steps * pool.lanes / (time.perf_counter() - begin)


def _least(pool: HostPool, seconds: float) -> tuple[float, float]:
    """The shortest step, and the mean processor time of all of them: a thread's share comes later than its step."""
    actions, steps, least = _actions(pool), 0, np.inf
    begin, worked = time.perf_counter(), time.process_time()
    while (now := time.perf_counter()) - begin < seconds:
        pool.step(actions[steps % len(actions)])
        steps, least = steps + 1, min(least, time.perf_counter() - now)
    return least, (time.process_time() - worked) / steps
