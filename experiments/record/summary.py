"""What a run is about to do, printed before it does it."""

from __future__ import annotations

import time
from collections.abc import Sequence

import jax

from agents.replay import nbytes as leaf_bytes
from agents.updates import train_states
from envs.pools.host import HostPool
from envs.pools.sequence import HostTurns
from experiments.build.experiment import Experiment, seeds_mode
from experiments.build.layers import leaf_size
from experiments.build.memory import Memory, predict_memory
from experiments.build.processes import say
from experiments.build.replay import free_memory, tells_memory
from experiments.record.folder import Folder
from experiments.record.saving import disk_warning
from experiments.train.loop import Run

WIDTH = len("environment")
"""Of the names of the summary's lines."""


class CompileClock:
    """Seconds that XLA has compiled in this process since the clock was made, and when that was (`time.monotonic`)."""

    def __init__(self) -> None:
        self.seconds, self.begun = 0.0, time.monotonic()
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            self.seconds += duration_secs


def warn_of_checkpoints(experiment: Experiment, folder: Folder) -> None:
    """Say where the checkpoints may not fit, or take long to write."""
    # All but what of one is small: networks with their optimisers, and replays.
    learner = leaf_bytes(jax.eval_shape(experiment.agent.init, experiment.keys[0]))
    warning = disk_warning(folder.root, len(experiment.config.seeds) * (learner + experiment.replay.nbytes))
    if warning:
        say(warning)


def tell_memory(experiment: Experiment, run: Run, quiet: bool) -> None:
    """Print what the run will take of a device's memory, and a sentence where there is less.

    Where the device says what it has, the program that learns is compiled for it: earlier than otherwise, not twice.

    Args:
        run: the shapes of one; nothing of it is allocated yet.
    """
    memory, free = predict_memory(experiment, run, compiled=tells_memory()), free_memory()
    if not quiet:
        print(memory_line(memory, free))
    if memory.total > free:
        print(
            f"the run will take {memory.total / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free; lower replay.capacity "
            "or batch_size, or train fewer seeds at a time"
        )


def memory_line(memory: Memory, free: int) -> str:
    """What is predicted, as a line of the summary."""
    working = f", {memory.working / 1e6:,.1f} MB more while it learns" if memory.working is not None else ""
    what = f"{memory.state / 1e6:,.1f} MB of replays, networks and environments{working}"
    return f"{'memory':>{WIDTH}}  {what}; {free / 1e6:,.1f} MB are free"


def print_summary(experiment: Experiment, folders: Sequence[Folder], layers: list[tuple[str, int, int, int]]) -> None:
    """Device, environment, seeds, parameters, sparse layers with their densities, replay bytes."""
    config, spec, schedule, folder = experiment.config, experiment.spec, experiment.schedule, folders[0]
    device, tasks = jax.local_devices()[0], experiment.tasks
    networks = train_states(jax.eval_shape(experiment.agent.init, experiment.keys[0]))
    sizes = {name: sum(leaf_size(p.shape) for p in jax.tree.leaves(m.params)) for name, m in networks.items()}
    replay, seeds = experiment.replay.nbytes, len(config.seeds)
    of_one = ", ".join(str(row.seed) for row in experiment.rows if row.lane == 0)
    view = f"pixels {config.env.image_size}x{config.env.image_size}" if spec.pixels else "states"
    where = f"{config.env.workers} workers" if isinstance(experiment.pool, HostPool | HostTurns) else "on the device"
    if spec.pixels and "renderer" in config.env:
        view += f" by {config.env.renderer}"
    rows = {
        "results": str(folder.root if len(folders) == 1 else folder.root.parent),
        **({"lanes": "; ".join(each.root.name for each in folders)} if len(folders) > 1 else {}),
        "device": f"{device.platform} ({device.device_kind}), {jax.local_device_count()} in all",
        "environment": f"{spec.name}, {view}, action repeat {spec.action_repeat}, "
        f"{schedule.num_envs} per seed, {where}",
        "seeds": f"{of_one} side by side by {seeds_mode(config, spec)}"
        + (f", over {experiment.devices.count} devices" if experiment.devices.mesh else "")
        + (f", process {folder.slice.index} of {folder.slice.count}, counted from 0" if folder.slice else "")
        + (f", in the first of {jax.process_count()} processes" if jax.process_count() > 1 else ""),
        "budget": f"{experiment.frame(schedule.total):,} frames = {schedule.total:,} steps, "
        f"{schedule.updates(schedule.total):,} updates per seed",
        "parameters": ", ".join(f"{name} {size:,}" for name, size in sizes.items()) + " per seed",
        "plasticity": config.plasticity.method,
        **({"tasks": f"{', '.join(tasks.labels)}; the next one every {tasks.every:,} frames"} if tasks else {}),
        "replay": f"{replay:,} bytes per seed, {replay * seeds:,} in all, "
        f"{replay / config.replay.capacity:,.0f} per transition",
        "stored": experiment.store,
    }
    for name, text in rows.items():
        print(f"{name:>{WIDTH}}  {text}")
    for path, size, first, last in layers:
        print(f"{'':>{WIDTH}}  {path}: {size:,} weights, density {first / size:.3f} -> {last / size:.3f}")
