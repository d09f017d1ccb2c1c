"""What learning costs: updates, topology rounds, methods, and the same update in many processes."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from agents.types import Agent, Clock, Transition
from configs import dmc_pixels, gymnax_states
from configs.common import td3
from envs.types import EnvSpec
from experiments.benches.timing import Row, milliseconds
from experiments.build.agent import make_agent
from experiments.build.experiment import Experiment, setup
from experiments.build.optimisers import make_optimisers
from experiments.train.loop import Run
from experiments.train.seeds import over_seeds


def bench_update(variant: str, seeds: int = 2) -> Iterator[Row]:
    """One update of all seeds, topology rounds apart: every combination of method, convolution and mapping."""
    for method in ("none", "ne"):
        for conv in ("blocks", "im2col", "xla"):
            agent, args = drq_update(variant, method, conv, seeds)
            for how in ("map", "vmap"):
                update = jax.jit(over_seeds(agent.update, how, shared=1))
                name = f"update {variant or 'full'} {method} {conv} {how}, {seeds} seeds"
                yield name, milliseconds(update, *args), "ms"


def drq_update(variant: str, method: str, conv: str, seeds: int) -> tuple[Agent, tuple[Any, ...]]:
    """The agent of `configs/dmc_pixels.py`, and what its update takes: fresh networks, batches, keys, a clock."""
    agent, config = drq_agent(variant, method, conv), dmc_pixels.get_config(variant)
    keys = jax.random.split(jax.random.key(0), seeds)
    state = jax.jit(over_seeds(agent.init, "map"))(keys)
    return agent, (state, _batch(seeds, config.batch_size, config.env.image_size), keys, Clock(1, 1))


def drq_agent(variant: str, method: str, conv: str) -> Agent:
    """The agent of `configs/dmc_pixels.py`, with another method and another way of convolution."""
    config = dmc_pixels.get_config(variant)
    config.plasticity.method, config.agent.conv, size = method, conv, config.env.image_size
    frame: Any = jax.ShapeDtypeStruct((size, size, 3), jnp.uint8)
    spec = EnvSpec("frames", frame, lambda frame: frame, 2, 2, 500, True)
    return make_agent(config, spec, make_optimisers(config, 100_000))


def td3_agent() -> Agent:
    """TD3 as published for MuJoCo, dense: 17 features, 6 actions."""
    config = gymnax_states.get_config()
    config.agent, config.plasticity.method = td3(), "none"
    scene: Any = jax.ShapeDtypeStruct((17,), jnp.float32)
    spec = EnvSpec("states", scene, lambda scene: scene, 6, 1, 1000, False)
    return make_agent(config, spec, make_optimisers(config, 100_000))


def td3_update(seeds: int) -> tuple[Agent, tuple[Any, ...]]:
    """The agent of `td3_agent`, and what its update takes, but for the clock."""
    agent = td3_agent()
    keys = jax.random.split(jax.random.key(0), seeds)
    obs, action, scalars = (jnp.ones((seeds, 256, *shape)) for shape in ((17,), (6,), ()))
    return agent, (jax.jit(over_seeds(agent.init, "map"))(keys), Transition(obs, action, scalars, scalars, obs), keys)


def bench_once(variant: str, seeds: int = 2) -> Iterator[Row]:
    """The update that a run on this device makes, and no other: for `bench_processes`."""
    agent, args = drq_update(variant, "ne", "auto", seeds)
    update = jax.jit(over_seeds(agent.update, "map", shared=1))
    yield f"update {variant or 'full'}, {seeds} seeds", milliseconds(update, *args), "ms"


def bench_processes(variant: str, count: int = 20) -> Iterator[Row]:
    """The same update in processes of their own, one after another: do all run at one speed?

    Raises:
        RuntimeError: a process failed.
    """
    found = []
    command = [sys.executable, "-m", "experiments.bench", "--what=once", f"--variant={variant}"]
    for number in range(count):
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            done = subprocess.run([*command, f"--json={file.name}"], capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"{shlex.join(command)} failed: {(done.stderr or 'no word').splitlines()[-1]}")
            found.append(json.loads(Path(file.name).read_text())["rows"][0]["value"])
        yield f"update {variant or 'full'}, process {number + 1}", found[-1], "ms"
    median = float(np.median(found))
    yield "furthest from the median of all", 100 * max(abs(each / median - 1) for each in found), "%"


def _batch(seeds: int, batch: int, size: int) -> Transition:
    obs = jnp.ones((seeds, batch, size, size, 9), jnp.uint8)
    scalars = jnp.ones((seeds, batch))
    return Transition(obs, jnp.ones((seeds, batch, 2)), scalars, scalars, obs)


def bench_plasticity(seeds: int = 5, every: int = 1_000) -> Iterator[Row]:
    """TD3 + NE as published for MuJoCo, on Pendulum-v1: what a round and a measurement cost beside an update."""
    experiment, run, plain, round_ = _td3_update("ne", seeds, every)
    keys = experiment.keys
    initial, now = experiment.steps.initial(keys, 0), experiment.schedule.at(0)
    measured = milliseconds(experiment.steps.measure, run.learner, run.rollout, keys, initial, now)
    yield f"update, {seeds} seeds", plain, "ms"
    yield "round of actor and critic on top", round_, "ms"
    yield "measurement", measured, "ms"
    for what, cost in (("rounds", round_), ("measurements", measured)):
        yield f"{what} every {every:,} updates", 100 * cost / (every * plain), "% of updates"


def bench_methods(seeds: int = 5, every: int = 1_000) -> Iterator[Row]:
    """What methods cost in all: an update of the same TD3, with rounds every `every` updates shared out."""
    for method in ("none", "ne", "lifelong_ne", "redo", "regenerative_l2", "continual_backprop", "upgd"):
        _, _, plain, round_ = _td3_update(method, seeds, every)
        yield f"{method}, an update and its share of a round", plain + round_ / every, "ms"


def _td3_update(method: str, seeds: int, every: int) -> tuple[Experiment, Run, float, float]:
    """TD3 of width 256 on Pendulum-v1 as it begins, milliseconds of an update, and those of a round on top."""
    config = gymnax_states.get_config()
    config.update(agent=td3(), batch_size=256, seeds=tuple(range(seeds)), total_frames=100_000)
    config.plasticity.update(method=method, every=every)
    experiment = setup(config)
    run = Run(0, *experiment.steps.init(experiment.keys, experiment.pool.reset()))
    obs, scalars = (jax.random.normal(jax.random.key(0), (seeds, 256, width)) for width in (3, 1))
    batch = Transition(obs, scalars, scalars[..., 0], scalars[..., 0], obs)
    update = jax.jit(over_seeds(experiment.agent.update, "vmap", shared=1))
    critic, both, round_ = (
        milliseconds(update, run.learner.agent, batch, experiment.keys, Clock(n, n), repeats=60) for n in (1, 2, every)
    )
    return experiment, run, (critic + both) / 2, round_ - both  # every second update is the actor's too
