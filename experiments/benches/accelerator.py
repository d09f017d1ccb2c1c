"""What a GPU or a TPU should be asked, what is worth most first: `python -m experiments.bench --what=accelerator`.

One call is enough: with `--json=FILE --budget=9m` the rows are there whatever ends it. `--variant=smoke` asks the same
of small programs, on any machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from agents.types import Clock
from configs import gymnax_pixels, gymnax_states, mjx_pixels
from experiments.benches.learning import drq_agent, drq_update, td3_update
from experiments.benches.on_device import endless, frames_per_second, train_speed
from experiments.benches.peer import flops_of
from experiments.benches.timing import Row, milliseconds
from experiments.build.experiment import setup
from experiments.build.memory import predict_memory
from experiments.train.loop import Run
from experiments.train.seeds import over_seeds

PRECISIONS = ("default", "high", "highest")
"""Of products of float32, as `jax.default_matmul_precision` has them; what that is in bits is the device's matter."""


class Size(NamedTuple):
    """How large what is asked is."""

    product: int
    """Side of the square matrices."""
    seeds: tuple[int, ...]
    """Of TD3."""
    envs: tuple[int, ...]
    """Side by side, whose pictures are drawn."""
    steps: int
    """Of each of them."""
    image: int
    seconds: float
    """For which a chunk is timed."""


FULL, SMALL = Size(8192, (1, 16, 64), (64, 1024), 100, 84, 5.0), Size(256, (1, 4), (4,), 4, 24, 0.3)


def bench_accelerator(variant: str) -> Iterator[Row]:
    """All questions in turn; at full size without a variant."""
    size = SMALL if variant else FULL
    yield from _chunk(gymnax_pixels.get_config(variant), size)  # first, for the device counts its peak from the start
    peaks = yield from _products(size)
    yield from _drq_updates(variant, peaks)
    yield from _td3_updates(size)
    yield from _frames("gymnax", "Pendulum-v1", size)
    yield from _chunk(gymnax_states.get_config("smoke" if variant else ""), size, seeds=size.seeds[1])
    if find_spec("mujoco.mjx") is None:
        print("mujoco-mjx is not installed, so nothing is asked about it: pip install '.[mjx]'")
        return
    yield from _frames("mjx", "cartpole_balance", size)
    yield from _chunk(mjx_pixels.get_config(variant), size)


def _products(size: Size) -> Iterator[Row]:
    """TFLOP/s of a matrix product by precision, and of one of bfloat16; returns FLOPs a millisecond by precision."""
    square, peaks = jnp.ones((size.product, size.product), jnp.float32), {}
    for precision in PRECISIONS:
        with jax.default_matmul_precision(precision):
            peaks[precision] = 2 * size.product**3 / milliseconds(jax.jit(jnp.matmul), square, square)
        yield f"product of {size.product}, float32, precision {precision}", peaks[precision] / 1e9, "TFLOP/s"
    half = square.astype(jnp.bfloat16)
    yield (
        f"product of {size.product}, bfloat16",
        2e-9 * size.product**3 / milliseconds(jax.jit(jnp.matmul), half, half),
        "TFLOP/s",
    )
    return peaks


def _drq_updates(variant: str, peaks: dict[str, float]) -> Iterator[Row]:
    """The update of one seed at each precision, its floor at the speed of that precision's products, and NE's."""
    name, floors = f"DrQ {variant or 'full'}, 1 seed", {}
    for method in ("none", "ne"):
        agent, args = drq_update(variant, method, "auto", 1)
        if not floors:
            batch = jax.tree.map(lambda leaf: leaf[0], args[1])
            flops = flops_of(drq_agent(variant, "none", "xla"), batch, 1)
            floors = {precision: flops / peak for precision, peak in peaks.items()}
        for precision in PRECISIONS if method == "none" else PRECISIONS[:1]:
            with jax.default_matmul_precision(precision):
                taken = milliseconds(jax.jit(over_seeds(agent.update, "map", shared=1)), *args)
            yield f"update {name}, {method}, precision {precision}", taken, "ms"
            yield f"update {name}, {method}, precision {precision}, over its floor", taken / floors[precision], "times"


def _td3_updates(size: Size) -> Iterator[Row]:
    """Width 256, batch 256: the mean of two updates, one of which moves the actor, by number of seeds."""
    found = {}
    for seeds in size.seeds:
        agent, (state, batch, keys) = td3_update(seeds)
        update = jax.jit(over_seeds(agent.update, "vmap", shared=1))
        found[seeds] = sum(milliseconds(update, state, batch, keys, Clock(n, n)) for n in (1, 2)) / 2
        yield f"update TD3, {seeds} seeds", found[seeds], "ms"
        if seeds > 1:
            yield f"update TD3, {seeds} seeds over one", found[seeds] / found[size.seeds[0]], "times"


def _frames(kind: str, task: str, size: Size) -> Iterator[Row]:
    for envs in size.envs:
        speed = frames_per_second(kind, task, envs, size.steps, size.image)
        yield f"{kind} {task}, pixels, {envs} side by side", speed, "frames/s"


def _chunk(config: ConfigDict, size: Size, seeds: int | None = None) -> Iterator[Row]:
    """Frames per second of a whole chunk, and its memory: predicted before any is taken, and taken at most."""
    experiment = setup(endless(config, seeds or len(config.seeds)))
    name = f"chunk {config.exp_id}, {len(experiment.config.seeds)} seeds"
    before, scene = _memory(), experiment.pool.reset()
    shapes = jax.eval_shape(lambda keys, scene: Run(0, *experiment.steps.init(keys, scene)), experiment.keys, scene)
    predicted = predict_memory(experiment, shapes, compiled=True)
    yield f"{name}: memory of its state, predicted", predicted.state / 1e6, "MB"
    yield f"{name}: memory in all, predicted", predicted.total / 1e6, "MB"
    yield name, train_speed(experiment, scene, size.seconds), "frames/s"
    after = _memory()
    if after.get("peak_bytes_in_use", 0) > before.get("peak_bytes_in_use", 0):  # else it is that of something earlier
        taken = after["peak_bytes_in_use"] - before["bytes_in_use"]
        yield f"{name}: memory in all, taken at most", taken / 1e6, "MB"
        yield f"{name}: memory taken over predicted", taken / predicted.total, "times"


def _memory() -> dict[str, int]:
    """What the device counts; a CPU counts nothing."""
    return jax.local_devices()[0].memory_stats() or {}
