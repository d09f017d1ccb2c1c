"""Finished arms on disk: DIR/rows/STREAM/ARM.json, with all that they were computed with."""

from __future__ import annotations

import functools
import json
import os
import platform
import re
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from experiments.record.metrics_files import write_json
from experiments.streams.types import Arm, Stream, TaskRow


class Finished(NamedTuple):
    """An arm that was trained to the end."""

    arm: Arm
    seeds: tuple[int, ...]
    rows: list[TaskRow]
    seconds: float
    """That training it took, in the process that came to the end."""
    made: dict[str, str]
    """Versions, device, commit and date."""


def rows_path(out: Path, stream: str, arm: str) -> Path:
    """Where a finished arm lies."""
    return out / "rows" / stream / f"{file_name(arm)}.json"


def run_folder(out: Path, stream: str, arm: str) -> Path:
    """What an arm keeps while it is trained, and its log."""
    return out / "runs" / stream / file_name(arm)


def file_name(arm: str) -> str:
    """An arm's name as that of a file."""
    return re.sub(r"[^\w.+=-]", "_", arm)


def save(out: Path, stream: Stream, arm: Arm, seeds: Sequence[int], rows: list[TaskRow], seconds: float) -> None:
    """Write a finished arm, whole or not at all.

    Raises:
        ValueError: the rows are not one for each seed and task.
    """
    wanted = [(seed, task) for seed in sorted(seeds) for task in range(1, stream.tasks + 1)]
    if sorted((row.seed, row.task) for row in rows) != wanted:
        raise ValueError(
            f"stream {stream.name} must give a row for each of {len(seeds)} seeds and {stream.tasks} tasks"
        )
    if {(row.stream, row.method) for row in rows} != {(stream.name, arm.name)}:
        raise ValueError(f"stream {stream.name} must give rows of {stream.name} and {arm.name} alone")
    content = {
        "arm": arm._asdict(),
        "seeds": list(seeds),
        "protocol": stream.protocol(arm),
        "seconds": seconds,
        "made": _made(),
        "rows": [row._asdict() for row in rows],
    }
    write_json(rows_path(out, stream.name, arm.name), content)


def load(out: Path, stream: Stream, seeds: Sequence[int], wanted: Sequence[Arm]) -> dict[str, Finished]:
    """The finished arms of a stream by name: those wanted first, in that order, then others that lie there.

    Raises:
        ValueError: one was computed with something else than it would be now.
    """
    order = {arm.name: arm for arm in wanted}
    found: dict[str, Finished] = {}
    for path in sorted((out / "rows" / stream.name).glob("*.json")):
        finished, protocol = _read(path)
        arm = order.get(finished.arm.name, finished.arm)
        _refuse_differing(path, {"seeds": list(finished.seeds)}, {"seeds": list(seeds)})
        _refuse_differing(path, protocol, _plain(stream.protocol(arm)))
        found[arm.name] = finished
    return {name: found[name] for name in [*order, *(set(found) - set(order))] if name in found}


def _read(path: Path) -> tuple[Finished, dict[str, Any]]:
    try:
        content = json.loads(path.read_text())
        rows = [TaskRow(**row) for row in content["rows"]]
        arm, seeds = Arm(**content["arm"]), tuple(content["seeds"])
        return Finished(arm, seeds, rows, content["seconds"], content["made"]), content["protocol"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); delete it, and that arm is computed again") from error


def _refuse_differing(path: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    keys = sorted(key for key in then.keys() | now.keys() if then.get(key) != now.get(key))
    if keys:
        told = "; ".join(f"{key}: {then.get(key)} there, {now.get(key)} now" for key in keys[:4])
        raise ValueError(
            f"{path} was computed with other settings ({told}); delete it and its folder in runs, or give another --out"
        )


def _plain(protocol: dict[str, Any]) -> dict[str, Any]:
    """As it would be read back."""
    return json.loads(json.dumps(protocol))


def _device(platform: str, kind: str) -> str:
    """A CPU calls itself cpu twice, and says nothing else."""
    return f"{os.cpu_count()} CPU cores" if kind == platform else f"{platform}: {kind}"


@functools.cache
def _made() -> dict[str, str]:
    """What the rows depend on beside their protocol, and when they were made."""
    import jax

    from experiments.record.folder import commit

    device = jax.local_devices()[0]
    found = {name: version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")}
    found |= {"python": platform.python_version(), "device": _device(device.platform, device.device_kind)}
    return found | {"commit": commit(), "date": time.strftime("%Y-%m-%d")}
