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
from experiments.build.processes import say
from experiments.record.folder import Folder
from experiments.record.saving import disk_warning


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
    width = max(map(len, rows))
    for name, text in rows.items():
        print(f"{name:>{width}}  {text}")
    for path, size, first, last in layers:
        print(f"{'':>{width}}  {path}: {size:,} weights, density {first / size:.3f} -> {last / size:.3f}")
