"""How fast the parts are, as ratios measured in one run: `python -m experiments.bench --what=update`.

`--json=FILE` keeps the rows, `--budget=9m` ends it by then. Without `--what` all is measured that is about the machine
at hand, on a GPU or a TPU what it should be asked first (`accelerator`); on a CPU all but this, `once`, `processes`,
`devices` and `host`.

accelerator: what a GPU or a TPU should be asked: whole chunks and their memory, updates by precision and their floor.
envs: agent steps per second of host environments, by backend, renderer and rendering quality.
host: the same from states for 2, 16 and 64 environments: one call for all (env.workers=batch) beside the others.
render: frames per second of MuJoCo scenes, the ray caster against OpenGL, by batch.
update: one DrQ update of all seeds: vmap against map, kinds of convolution, with and without NE.
once: that update as a run makes it here. processes: `once` in 20 processes, whose speeds should be one.
plasticity: rounds of growth and what is measured of the networks beside updates, for TD3 of width 256.
methods: the update of TD3 of width 256 with each of some plasticity methods, and their rounds.
replay: one batch from the replay, against the bytes that it has to move.
store: a replay of scenes against one of frames: bytes per transition, time per batch, by image size.
frames: Gymnax environments on the device: step, draw, stack.
devices: updates of 2 seeds of DrQ, and of 8 of TD3, on one device and over two parts of a CPU.
peer: updates beside their floor and beside eager PyTorch (extra `bench`), with the processor time of both.
train_states, train_pixels: the whole training chunk on the device, by number of seeds and of environments per seed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from agents.replay import ReplayState, make_replay, nbytes
from configs import gymnax_pixels, gymnax_states
from envs.pools.host import HostPool
from envs.registry import device_env, host_env
from experiments.benches.accelerator import bench_accelerator
from experiments.benches.budget import Budget
from experiments.benches.devices import bench_devices
from experiments.benches.host import bench_envs, bench_host
from experiments.benches.learning import bench_methods, bench_once, bench_plasticity, bench_processes, bench_update
from experiments.benches.on_device import bench_frames, bench_train
from experiments.benches.peer import HEADER, Comparison, bench_peer, line
from experiments.benches.timing import Row, milliseconds
from experiments.build.allocator import keep_freed_memory
from experiments.build.checks import seconds_of
from experiments.build.compile_cache import keep_compiled
from experiments.record.metrics_files import write_json


def bench_render(size: int = 84, seconds: float = 3.0) -> Iterator[Row]:
    """Frames alone, no physics. OpenGL draws in two threads or processes, as the pool of environments lets it."""
    on_cpu = jax.default_backend() == "cpu"
    for task in ("cartpole_swingup", "cheetah_run", "walker_walk", "humanoid_walk"):
        env: Any = host_env("dmc", task, pixels=True, image_size=size)()
        env.reset(0)
        scenes = np.stack([env.step(np.zeros(env.spec.action_dim, np.float32)).scene for _ in range(32)])
        draw = jax.jit(jax.vmap(env.spec.observe))
        for batch in (1, 32, 256) if on_cpu else (32, 256, 1024, 4096, 16384):
            many = jnp.asarray(np.resize(scenes, (batch, scenes.shape[1])))
            speed = 1e3 * batch / milliseconds(draw, many)
            yield f"{task} jax, batch {batch}", speed, "frames/s"
            flops = (draw.lower(many).compile().cost_analysis() or {}).get("flops", 0.0)
            if not on_cpu:  # XLA counts a loop once: on a CPU that would be one frame
                yield f"{task} jax, batch {batch}", flops / batch * speed / 1e9, "GFLOP/s"
        with suppress(RuntimeError):  # without OpenGL there is nothing to compare with
            for backend in ("thread", "process"):
                make = host_env("dmc", task, pixels=True, image_size=size, renderer="gl")
                with HostPool(make, [(0, 0), (0, 1)], backend) as pool:
                    pool.reset()
                    yield f"{task} gl, two {backend} workers", _pictures_per_second(pool, size, seconds), "frames/s"


def _pictures_per_second(pool: HostPool, size: int, seconds: float) -> float:
    pool.pictures(size)
    count, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        pool.pictures(size)
        count += pool.lanes
    return count / (time.perf_counter() - begin)


def bench_replay(capacity: int = 20_000, batch: int = 256) -> Iterator[Row]:
    """A batch of 84x84 frame stacks, and the bandwidth that its bytes mean."""
    scene = jax.ShapeDtypeStruct((84, 84, 3), jnp.uint8)
    replay = make_replay(scene, lambda s: s, 2, capacity=capacity, stack=3, nstep=3, discount=0.99)
    replay_state = _filled(replay.init())
    sample = jax.jit(replay.sample, static_argnums=2)
    key = jax.random.key(0)
    taken = milliseconds(sample, replay_state, key, batch)
    moved = 2 * nbytes(jax.eval_shape(lambda: replay.sample(replay_state, key, batch)))  # read once, written once
    yield f"replay, batch {batch}", taken, "ms"
    yield f"replay, batch {batch}", moved / taken / 1e6, "GB/s"


def _filled(replay_state: ReplayState) -> ReplayState:
    """A replay in which every slot starts a transition, or nearly so."""
    lanes, size = replay_state.episode_step.shape
    numbers = jnp.broadcast_to(jnp.arange(size), (lanes, size))
    full = jnp.full(lanes, size)
    return replace(replay_state, episode_step=numbers % 501, start=numbers, slots=full, transitions=full - 10)


def bench_store(capacity: int = 20_000, batch: int = 256) -> Iterator[Row]:
    """Replays of scenes and of frames, stacks of three, three-step returns."""
    for kind, task, size in (
        ("gymnax", "Pendulum-v1", 84),
        ("gymnax", "Reacher-misc", 84),
        ("dmc", "cheetah_run", 84),
        ("dmc", "cheetah_run", 40),
        ("dmc", "walker_walk", 84),
    ):
        if kind == "gymnax":
            spec = device_env(kind, task, pixels=True, image_size=size).spec
        else:
            spec = host_env(kind, task, pixels=True, image_size=size)().spec
        frame: Any = jax.eval_shape(spec.observe, spec.scene)
        for store, scene, observe in (("frame", frame, lambda frame: frame), ("scene", spec.scene, spec.observe)):
            replay = make_replay(scene, observe, spec.action_dim, capacity=capacity, stack=3, nstep=3, discount=0.99)
            replay_state, sample = _filled(replay.init()), jax.jit(replay.sample, static_argnums=2)
            yield f"{task} {size} {store}", replay.nbytes / capacity, "bytes"
            yield (
                f"{task} {size} {store}, batch {batch}",
                milliseconds(sample, replay_state, jax.random.key(0), batch),
                "ms",
            )


BENCHES: dict[str, Callable[[str], Iterator[Row | Comparison]]] = {
    "accelerator": bench_accelerator,
    "envs": lambda variant: bench_envs(),
    "host": lambda variant: bench_host(),
    "render": lambda variant: bench_render(),
    "peer": bench_peer,
    "update": bench_update,
    "once": bench_once,
    "processes": bench_processes,
    "devices": bench_devices,
    "plasticity": lambda variant: bench_plasticity(),
    "methods": lambda variant: bench_methods(),
    "replay": lambda variant: bench_replay(),
    "store": lambda variant: bench_store(),
    "frames": lambda variant: bench_frames(),
    "train_states": lambda variant: bench_train(gymnax_states.get_config),
    "train_pixels": lambda variant: bench_train(lambda: gymnax_pixels.get_config(variant)),
}


ON_CPU = tuple(each for each in BENCHES if each not in ("accelerator", "once", "processes", "devices", "host"))
ON_ACCELERATOR = (
    "accelerator",
    "update",
    "render",
    "frames",
    "train_pixels",
    "train_states",
    "replay",
    "store",
    "methods",
)
"""What is measured where no `--what` is given, in this order."""


def main(_: list[str]) -> None:
    """Print a table; the last column is the ratio to the first row of the same bench and unit, but for `peer`."""
    keep_freed_memory()
    keep_compiled()
    budget = Budget(seconds_of(_BUDGET.value) if _BUDGET.value else None)
    if "devices" in (_WHAT.value or ()):
        jax.config.update("jax_num_cpu_devices", 2)  # which is settled as soon as jax is asked for them
    device = jax.local_devices()[0].device_kind
    print(f"device: {device}, jax {jax.__version__}")
    about = dict(device=device, jax=jax.__version__, date=f"{date.today()}", command=sys.argv[1:])
    parts = list(_WHAT.value or (ON_CPU if jax.default_backend() == "cpu" else ON_ACCELERATOR))
    budget.end_with(lambda: print(f"the budget of {_BUDGET.value} is over; unfinished: {', '.join(parts)}", flush=True))
    measure(parts, _VARIANT.value, budget, Path(_JSON.value) if _JSON.value else None, about)
    if parts:
        print(f"the budget of {_BUDGET.value} would not do for more; unfinished: {', '.join(parts)}")
    budget.close()


def measure(parts: list[str], variant: str, budget: Budget, path: Path | None, about: dict[str, Any]) -> None:
    """Print the rows of all parts in turn, of each as many as the budget allows; those that are whole leave `parts`.

    Args:
        path: a file for `about` and the rows, written anew after each: whatever ends it, what was measured is there.
    """
    rows: list[dict[str, Any]] = []
    for part in list(parts):
        first: dict[str, float] = {}
        rest, budget.longest = BENCHES[part](variant), 0.0
        while budget.allows():
            row = budget.timed(partial(next, rest, None))
            if row is None:
                parts.remove(part)
                break
            print(_told(row, first), flush=True)
            rows.append({"bench": part} | _as_json(row))
            if path is not None:
                write_json(path, about | {"rows": rows})


def _told(row: Row | Comparison, first: dict[str, float]) -> str:
    """A line of the table; `first` holds the first value of each unit in this bench."""
    if isinstance(row, Comparison):
        begins = not first
        first["ms"] = row.ours.clock
        return f"{HEADER}\n{line(row)}" if begins else line(row)
    name, value, unit = row
    return f"{name:<48} {value:10.2f} {unit:<12} {value / first.setdefault(unit, value):6.2f} x"


def _as_json(row: Row | Comparison) -> dict[str, Any]:
    """All of a row by name; times are in milliseconds."""
    if isinstance(row, Comparison):
        ours, peer = row.ours._asdict(), row.peer._asdict() if row.peer else None
        return dict(name=row.name, unit="ms", value=row.ours.clock, ours=ours, floor=row.floor, peer=peer)
    name, value, unit = row
    return dict(name=name, value=value, unit=unit)


def _check_flags(values: dict[str, Any]) -> bool:
    """ValidationError, before anything is measured, for a file that cannot be written or a budget that is none."""
    try:
        if values["budget"]:
            seconds_of(values["budget"])
    except ValueError as error:
        raise flags.ValidationError(str(error).replace("stop_after", "--budget")) from error
    if values["json"] and not Path(values["json"]).absolute().parent.is_dir():
        raise flags.ValidationError(f"--json={values['json']} lies in a folder that does not exist; make it first")
    return True


if __name__ == "__main__":
    _WHAT = flags.DEFINE_multi_enum("what", None, list(BENCHES), "Which parts.")
    _VARIANT = flags.DEFINE_string("variant", "", "Variant of the pixel configs that is measured.")
    _JSON = flags.DEFINE_string("json", None, "A file for all rows, written anew after each.")
    _BUDGET = flags.DEFINE_string("budget", None, "Time after which it has ended, such as 9m.")
    flags.register_multi_flags_validator(["json", "budget"], _check_flags)
    app.run(main)
