"""What the replay stores, scenes that are drawn when sampled or the frames that were seen, and whether that fits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import psutil
from ml_collections import ConfigDict

from agents.replay import nbytes
from envs.types import EnvSpec


def choose_store(config: ConfigDict, spec: EnvSpec, room: float) -> tuple[str, str]:
    """What the replay stores, scene or frame, and, where `replay.store` is auto, why, in words.

    Frames cost memory and no time when they are sampled, scenes the reverse: see docs/measured.md.
    """
    if config.replay.store != "auto":
        return config.replay.store, ""
    seeds, capacity = len(config.seeds), config.replay.capacity
    frame, scene = nbytes(jax.eval_shape(spec.observe, spec.scene)), nbytes(spec.scene)
    if frame == scene:
        return "scene", ""
    if any(config.replay.vary.values()):
        return "scene", " (auto: replay.vary changes them whenever they are drawn)"
    total = seeds * capacity * frame
    frames, here = f"{total / 1e9:.1f} GB of frames", f"the {room / 1e9:.1f} GB of memory that may be taken for them"
    if total <= room:
        return "frame", f" (auto: {frames} fit into {here}, and need no drawing when sampled)"
    return "scene", f" (auto: {frames} exceed {here}; a scene has {scene} bytes, not {frame:,})"


def make_vary(config: ConfigDict, spec: EnvSpec, store: str) -> Callable[..., Any] | None:
    """Augmentation by drawing differently; ValueError where frames are not drawn when they are sampled."""
    shares = dict(config.replay.vary)
    if not any(shares.values()):
        return None
    if spec.vary is None:
        raise ValueError(
            "replay.vary needs one task of dm_control from pixels with env.renderer=jax, whose scenes are drawn for a "
            "batch; set replay.vary.* to 0"
        )
    if store == "frame":
        raise ValueError("replay.vary changes scenes when they are drawn for a batch; set --config.replay.store=scene")
    return spec.vary(**shares)


def tells_memory() -> bool:
    """Whether the device says how much memory it has and how much is taken; a CPU does not."""
    return "bytes_limit" in (jax.local_devices()[0].memory_stats() or {})


def free_memory() -> int:
    """Bytes free on the device, or in the machine where that is the device; what files fill as cache counts as free."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    return _within_container(psutil.virtual_memory().available)


def total_memory() -> int:
    """Bytes of the device's memory, or of the machine's where that is the device."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    return _within_container(psutil.virtual_memory().total)


def _within_container(machine: int) -> int:
    container = Path("/sys/fs/cgroup/memory.max")
    limit = container.read_text().strip() if container.exists() else "max"
    return machine if limit == "max" else min(machine, int(limit))


def check_memory(nbytes: int, seeds: int, capacity: int, free: int) -> None:
    """MemoryError if `seeds` replays of `nbytes` each do not fit into nine tenths of the `free` bytes."""
    if nbytes * seeds > 0.9 * free:
        most = int(0.9 * free / seeds / (nbytes / capacity))
        raise MemoryError(
            f"replay.capacity={capacity} needs {nbytes * seeds / 1e9:.1f} GB for {seeds} seeds and {free / 1e9:.1f} GB "
            f"are free; set --config.replay.capacity={most} or train fewer seeds"
        )
