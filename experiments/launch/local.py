"""Runs side by side on this machine: cores or GPUs are dealt out, and memory is not promised twice."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

from experiments.launch import leash
from experiments.launch.engine import STOPPING, Ended
from experiments.launch.plan import Planned

BASE_MEMORY = 10**9
"""Bytes that are counted for a run beside its replays: libraries, networks, compiled programs."""


class Slot(NamedTuple):
    """What one run gets of the machine."""

    cores: tuple[int, ...]
    """Empty where they cannot be dealt out."""
    variables: tuple[tuple[str, str], ...] = ()
    """Of the environment: which GPU, and which share of its memory."""


def make_slots(count: int | None, cores: Sequence[int], gpus: Sequence[str]) -> list[Slot]:
    """The machine in `count` parts; None: a part for each GPU or, where there is none, each core.

    More parts than GPUs share them, memory included; more parts than cores share these.
    """
    count = count or len(gpus) or max(1, len(cores))
    slots, per_gpu = [], -(-count // len(gpus)) if gpus else 0
    for i in range(count):
        begin, end = i * len(cores) // count, (i + 1) * len(cores) // count
        own = tuple(cores[begin:end]) or tuple(cores[begin : begin + 1])
        variables = [("CUDA_VISIBLE_DEVICES", gpus[i % len(gpus)])] if gpus else []
        if per_gpu > 1:
            variables.append(("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{0.9 / per_gpu:.3f}"))
        slots.append(Slot(own, tuple(variables)))
    return slots


def cores_here() -> list[int]:
    """The cores that this process may use; none where the system cannot say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def gpus_here() -> list[str]:
    """The NVIDIA GPUs that runs would see, as `CUDA_VISIBLE_DEVICES` names them."""
    if os.environ.get("JAX_PLATFORMS", "cuda").split(",")[0] not in ("", "cuda", "gpu"):
        return []
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    if said is not None:
        return [each.strip() for each in said.split(",") if each.strip()]
    if not shutil.which("nvidia-smi"):
        return []
    asked = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=60)
    return done.stdout.split() if done.returncode == 0 else []


def memory_here() -> int:
    """Bytes that are free in this machine, or left to this container."""
    free, root = psutil.virtual_memory().available, Path("/sys/fs/cgroup")
    limit = (root / "memory.max").read_text().strip() if (root / "memory.max").exists() else "max"
    if limit == "max":
        return free
    counted = dict(line.split() for line in (root / "memory.stat").read_text().splitlines())
    return min(free, int(limit) - int(counted["anon"]))  # files that are cached make room


class LocalLauncher:
    """Processes of this machine, which end with the sweep: see `experiments.launch.leash`.

    Args:
        slots: one for each run at a time.
        memory: bytes that all runs together may take.
    """

    keeps = False

    def __init__(self, slots: Sequence[Slot], memory: int) -> None:
        self._free, self._memory = list(slots), memory
        self._on_gpu = any(slot.variables for slot in slots)
        self._running: dict[str, tuple[subprocess.Popen[bytes], Planned, Slot]] = {}

    def check(self, runs: Sequence[Planned]) -> None:
        """ValueError for a run that would not fit even alone."""
        for run in runs:
            if self._need(run) > self._memory:
                raise ValueError(
                    f"{run.name} needs about {self._need(run) / 1e9:.1f} GB, and --memory is {self._memory / 1e9:.1f} "
                    "GB; raise it, or lower --config.replay.capacity"
                )

    def start(self, waiting: Sequence[Planned]) -> list[Planned]:
        """Start the first of these while there are slots and memory."""
        begun = []
        for run in waiting:
            taken = sum(self._need(other) for _, other, _ in self._running.values())
            if not self._free or taken + self._need(run) > self._memory:
                break
            slot = self._free.pop(0)
            self._running[run.name] = (_start(run, slot), run, slot)
            begun.append(run)
        return begun

    def ended(self, seconds: float) -> list[Ended]:
        """Those whose process has ended; waits for the first of them, or for so many seconds."""
        until, found = time.monotonic() + seconds, []
        while not found:
            found = [
                Ended(name, each[0].returncode) for name, each in self._running.items() if each[0].poll() is not None
            ]
            if found or time.monotonic() >= until:
                break
            time.sleep(min(0.1, seconds))
        for each in found:
            self._free.insert(0, self._running.pop(each.name)[2])
        return found

    def stop(self) -> str:
        """Ask all to save and stop."""
        self._signal(signal.SIGTERM)
        return STOPPING

    def kill(self) -> None:
        """End all at once."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        for process, _, _ in self._running.values():
            process.send_signal(number)

    def _need(self, run: Planned) -> int:
        return BASE_MEMORY + (0 if self._on_gpu else run.memory)


def _start(run: Planned, slot: Slot) -> subprocess.Popen[bytes]:
    run.log.parent.mkdir(parents=True, exist_ok=True)
    command = leash.command(run.log, ",".join(map(str, slot.cores)), os.getpid(), run.command)
    variables = {key: value for key, value in slot.variables if key not in os.environ or key == "CUDA_VISIBLE_DEVICES"}
    # A session of its own, so that Ctrl-C in the terminal reaches it once, through the sweep.
    return subprocess.Popen(command, env={**os.environ, **variables}, stdin=subprocess.DEVNULL, start_new_session=True)
