"""How fast the parts are, as ratios measured in one run: `python -m experiments.bench --what=update`.

envs: agent steps per second of host environments, by backend and rendering quality.
update: one DrQ update of all seeds: vmap against map, kinds of convolution, with and without NE.
replay: one batch from the ring, against the bytes that it has to move.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from agents.drq import DrQConfig, make_drq
from agents.replay import make_replay, nbytes
from agents.types import Step, Transition
from configs.dmc_pixels import get_config
from envs import host_env
from envs.pool import HostPool
from experiments.loop import over_seeds
from experiments.optimisers import make_optimisers

Row = tuple[str, float, str]
"""What was measured, the number, its unit."""


def bench_envs(lanes: int = 2, seconds: float = 2.0) -> Iterator[Row]:
    """Host environments at 84x84, action repeat 2, random actions; the best of three runs."""
    for quality in ("fast", "canonical"):
        for task in ("cartpole_swingup", "cheetah_run", "walker_walk"):
            make = host_env("dmc", task, pixels=True, render_quality=quality)
            for backend in ("serial", "thread", "process"):
                with HostPool(make, [(0, lane) for lane in range(lanes)], backend) as pool:
                    pool.reset()
                    speed = max(_steps_per_second(pool, lanes, seconds) for _ in range(3))
                yield f"{task} {quality} {backend}, {lanes} lanes", speed, "steps/s"


def _steps_per_second(pool: HostPool, lanes: int, seconds: float) -> float:
    actions = np.random.default_rng(0).uniform(-1, 1, (256, lanes, pool.spec.action_dim)).astype(np.float32)
    steps, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        pool.step(actions[steps % len(actions)])
        steps += 1
    return steps * lanes / (time.perf_counter() - begin)


def bench_update(variant: str, seeds: int = 2) -> Iterator[Row]:
    """One update of all seeds, topology rounds apart: every combination of method, convolution and mapping."""
    size = get_config(variant).env.image_size
    for method in ("none", "ne"):
        for conv in ("im2col", "xla"):
            config = get_config(variant)
            config.plasticity.method = method
            known = {key: value for key, value in config.agent.items() if key in DrQConfig._fields}
            settings = DrQConfig(**known, im2col=conv == "im2col")
            agent = make_drq(settings, (size, size, 9), 2, make_optimisers(config, 100_000))
            keys = jax.random.split(jax.random.key(0), seeds)
            state = jax.jit(over_seeds(agent.init, "map"))(keys)
            batch = _batch(seeds, config.batch_size, size)
            for how in ("map", "vmap"):
                update = jax.jit(over_seeds(agent.update, how, shared=1))
                step = Step(1, 1)
                yield (
                    f"update {variant or 'full'} {method} {conv} {how}, {seeds} seeds",
                    _ms(update, state, batch, keys, step),
                    "ms",
                )


def _batch(seeds: int, batch: int, size: int) -> Transition:
    obs = jnp.ones((seeds, batch, size, size, 9), jnp.uint8)
    scalars = jnp.ones((seeds, batch))
    return Transition(obs, jnp.ones((seeds, batch, 2)), scalars, scalars, obs)


def bench_replay(capacity: int = 20_000, batch: int = 256) -> Iterator[Row]:
    """A batch of 84x84 frame stacks, and the bandwidth that its bytes mean."""
    scene = jax.ShapeDtypeStruct((84, 84, 3), jnp.uint8)
    replay = make_replay(scene, lambda s: s, 2, capacity=capacity, stack=3, nstep=3, discount=0.99)
    numbers, full = jnp.arange(capacity), jnp.int32(capacity - 10)
    ring = replace(replay.init(), age=numbers % 501, start=numbers, slots=jnp.int32(capacity), transitions=full)
    sample = jax.jit(replay.sample, static_argnums=2)
    key = jax.random.key(0)
    milliseconds = _ms(sample, ring, key, batch)
    moved = 2 * nbytes(jax.eval_shape(lambda: replay.sample(ring, key, batch)))  # read once, written once
    yield f"replay, batch {batch}", milliseconds, "ms"
    yield f"replay, batch {batch}", moved / milliseconds / 1e6, "GB/s"


def _ms(fn: Callable[..., Any], *args: Any, repeats: int = 15) -> float:
    """Median milliseconds of a call, compiled before."""
    jax.block_until_ready(fn(*args))
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(fn(*args))
        times.append(1e3 * (time.perf_counter() - begin))
    return float(np.median(times))


def main(_: list[str]) -> None:
    """Print a table; the last column is the ratio to the first row of the same bench and unit."""
    variant = _VARIANT.value
    benches = {"envs": bench_envs, "update": lambda: bench_update(variant), "replay": bench_replay}
    print(f"device: {jax.local_devices()[0].device_kind}, jax {jax.__version__}")
    for what in _WHAT.value:
        first: dict[str, float] = {}
        for name, value, unit in benches[what]():
            ratio = value / first.setdefault(unit, value)
            print(f"{name:<48} {value:10.1f} {unit:<8} {ratio:6.2f} x", flush=True)


if __name__ == "__main__":
    _WHAT = flags.DEFINE_multi_enum("what", ["envs", "update", "replay"], ["envs", "update", "replay"], "Which parts.")
    _VARIANT = flags.DEFINE_string("variant", "", "Variant of configs/dmc_pixels.py that `update` measures.")
    app.run(main)
