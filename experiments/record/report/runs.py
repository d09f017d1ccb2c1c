"""A run's folder as a report reads it. The folder may be anyone's: nothing in it is trusted, and no path leaves it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from experiments.build.checks import flatten

LARGEST = 1e100
"""Numbers from here on count as none: statistics of them would overflow."""
Line = tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]
"""Frames and values of one seed; NaN where nothing was measured."""


@dataclass(frozen=True)
class SeedData:
    """What one seed has measured.

    Args:
        columns: frames and values of each column of `metrics.jsonl`, frames ascending and each once.
        unreadable: lines that are no row.
    """

    name: str
    columns: dict[str, Line]
    unreadable: int = 0
    cut: bool = False


@dataclass(frozen=True)
class RunData:
    """One run: its seeds, config and versions, and where it lies.

    Args:
        label: tells it from the others of the report, and so does `style`, its number there.
    """

    folder: Path
    label: str
    style: int
    seeds: list[SeedData]
    config: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def method(self) -> str:
        """`plasticity.method`, or a question mark."""
        return str(self.config.get("plasticity.method", "?"))

    @property
    def task(self) -> str:
        """The environment's name, or a question mark."""
        return str(self.config.get("env.name", "?"))

    @property
    def total(self) -> float:
        """Frames that each seed is to have; NaN where the config does not say."""
        total = self.config.get("total_frames")
        return float(total) if isinstance(total, int | float) and 0 < total < 1e15 else math.nan

    @property
    def reached(self) -> float:
        """The last frame that any seed has a row of; 0 before the first."""
        ends = [frames[-1] for seed in self.seeds for frames, _ in seed.columns.values() if len(frames)]
        return float(max(ends, default=0.0))

    def columns(self) -> list[str]:
        """The names of all columns, in the order in which they first come."""
        return list(dict.fromkeys(name for seed in self.seeds for name in seed.columns))

    def lines(self, column: str) -> list[Line]:
        """A column of each seed; empty arrays for one that lacks it."""
        nothing = (np.zeros(0), np.zeros(0))
        return [seed.columns.get(column, nothing) for seed in self.seeds]


def read_runs(folders: Sequence[Path]) -> list[RunData]:
    """All runs of a report, with labels that differ.

    Raises:
        FileNotFoundError: a folder is no run's.
        ValueError: a folder comes twice.
    """
    places = [folder.resolve() for folder in folders]
    for folder, place in zip(folders, places, strict=True):
        if places.count(place) > 1:
            raise ValueError(f"--run={folder} comes twice; once is enough")
    runs = [_read_run(folder, place, i) for i, (folder, place) in enumerate(zip(folders, places, strict=True))]
    return [replace(run, label=label) for run, label in zip(runs, _labels(runs, places), strict=True)]


def by_task(runs: Sequence[RunData]) -> dict[str, list[RunData]]:
    """Runs whose returns can be compared, by their task."""
    found: dict[str, list[RunData]] = {}
    for run in runs:
        found.setdefault(run.task, []).append(run)
    return found


def _labels(runs: Sequence[RunData], places: Sequence[Path]) -> list[str]:
    """Short names that differ: the folders' own, without the task where it is that of all runs."""
    names = [place.name for place in places]
    if len(runs) > 1 and len(by_task(runs)) == 1:
        without = [name.removesuffix(f"_{runs[0].task}") for name in names]
        names = without if all(without) else names
    names = [f"{place.parent.name}/{name}" if names.count(name) > 1 else name for name, place in zip(names, places)]
    return [f"{name} ({i + 1})" if names.count(name) > 1 else name for i, name in enumerate(names)]


def _read_run(folder: Path, place: Path, style: int) -> RunData:
    config = _read_object(folder, "config.json")
    files = [path for path in folder.glob("*/metrics.jsonl") if inside(folder, path)]
    if config is None and not files:
        raise FileNotFoundError(
            f"--run={folder} holds neither config.json nor metrics.jsonl; give a folder that experiments.run has made"
        )
    files.sort(key=lambda path: (not path.parent.name.isdigit(), len(path.parent.name), path.parent.name))
    seeds = [_read_seed(path) for path in files]
    versions = _read_object(folder, "versions.json")
    missing = [name for name, found in (("config.json", config), ("versions.json", versions)) if found is None]
    notes = [f"its {' and '.join(missing)} cannot be read"] if missing else []
    run = RunData(folder, place.name, style, seeds, flatten(config or {}), versions or {})
    return replace(run, notes=tuple([*notes, *_notes(run)]))


def inside(folder: Path, path: Path) -> bool:
    """Whether `path` is a file within the run's folder, wherever its links lead."""
    try:
        return path.is_file() and path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a loop of links
        return False


def _notes(run: RunData) -> list[str]:
    """What a reader has to know of the data of a run, in words."""
    said = []
    if not run.seeds:
        said.append("nothing was measured yet")
    elif run.reached < run.total:
        said.append(f"not finished: {run.reached:,.0f} of {run.total:,.0f} frames, {run.reached / run.total:.0%}")
    if 0 < len(run.seeds) < 3:
        said.append(f"{len(run.seeds)} seed{'s' * (len(run.seeds) > 1)}: an interval needs three")
    if run.seeds and "eval/return" not in run.columns():
        said.append("no evaluation")
    for seed in run.seeds:
        if seed.unreadable:
            said.append(
                f"seed {seed.name}: {seed.unreadable} lines of metrics.jsonl could not be read and are left out"
            )
        if seed.cut:
            said.append(f"seed {seed.name}: the last line is cut short, by a kill or because it is being written")
        frames, values = seed.columns.get("eval/return", (np.zeros(0), np.zeros(0)))
        if np.isnan(values).any():
            said.append(f"seed {seed.name}: no number for the return from frame {frames[np.isnan(values)][0]:,.0f}")
    return said


def _read_seed(path: Path) -> SeedData:
    rows: dict[float, dict[str, float]] = {}
    content = path.read_bytes().decode(errors="replace")
    lines = content.split("\n")
    unreadable = 0
    for line in lines[:-1]:
        row = _row(line)
        if row is None:
            unreadable += bool(line.strip())
        else:
            rows.setdefault(row["frame"], {}).update(row)
    names = dict.fromkeys(name for row in rows.values() for name in row if name not in ("step", "frame"))
    columns = {}
    for name in names:
        points = [(frame, rows[frame][name]) for frame in sorted(rows) if name in rows[frame]]
        columns[name] = (np.array([frame for frame, _ in points]), np.array([value for _, value in points]))
    return SeedData(path.parent.name, columns, unreadable, bool(lines[-1].strip()))


def _row(line: str) -> dict[str, float] | None:
    """The numbers of a line, null as NaN; None if it is no row."""
    try:
        row = json.loads(line)
        found = {
            name: math.nan if value is None else float(value)
            for name, value in row.items()
            if value is None or (isinstance(value, int | float) and not isinstance(value, bool))
        }
    except (ValueError, AttributeError, OverflowError, RecursionError):
        return None
    found = {name: value if abs(value) < LARGEST else math.nan for name, value in found.items()}
    return found if found.get("frame", -1) >= 0 else None


def _read_object(folder: Path, name: str) -> dict[str, Any] | None:
    """A JSON object of the folder, None if there is none."""
    try:
        found = json.loads((folder / name).read_bytes()) if inside(folder, folder / name) else None
    except (ValueError, OSError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
