"""What a sweep leaves beside its runs: a CSV with a line for each run and seed, and a table of what varied."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.launch.plan import Planned
from experiments.launch.progress import State
from experiments.record.metrics_files import read_metrics
from experiments.record.statistics import FINAL_SHARE, bootstrap_ci, iqm


def write_csv(runs: Sequence[Planned], states: Mapping[str, State], path: Path) -> list[dict[str, Any]]:
    """Write a line for each run and seed; the lines.

    Columns: `run`, what varies by its keys, `seed`, `state`, `frame` (the last that was logged), `final_return` (as the
    function says), and the newest value of each metric of the run. What was not measured is empty.
    """
    lines = []
    for run in runs:
        for seed in run.seeds:
            rows = read_metrics(run.folder / str(seed) / "metrics.jsonl")
            line: dict[str, Any] = {"run": run.name, **run.overrides, "seed": seed, "state": states[run.name].value}
            line |= {"frame": rows[-1]["frame"] if rows else 0, "final_return": final_return(rows, run.frames)}
            newest: dict[str, Any] = {}
            for row in rows:
                newest |= {key: value for key, value in row.items() if value is not None}
            lines.append(line | {key: value for key, value in newest.items() if key not in ("step", "frame")})
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.part")
    with temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for line in lines for key in line)))
        writer.writeheader()
        writer.writerows(lines)
    temporary.replace(path)
    return lines


def final_return(rows: Sequence[Mapping[str, Any]], frames: int) -> float | None:
    """Mean return of the evaluations in the last fifth of a run of so many frames, or of training where none evaluates.

    None until the run is there.
    """
    for key in ("eval/return", "train/return"):
        values = [row[key] for row in rows if row.get(key) is not None and row["frame"] > (1 - FINAL_SHARE) * frames]
        if values:
            return float(np.mean(values))
    return None


def table(runs: Sequence[Planned], lines: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: the final return of each set of overrides, over all its seeds, be they of one run or of several."""
    of_seeds = ("seeds", "slice")
    overrides = {run.name: {key: value for key, value in run.overrides.items() if key not in of_seeds} for run in runs}
    keys = list(next(iter(overrides.values()))) or ["run"]
    groups: dict[tuple[str, ...], list[float]] = {}
    for line in lines:
        group = groups.setdefault(tuple(overrides[line["run"]].get(key, "all") for key in keys), [])
        group += (
            [line["final_return"]] if line["final_return"] is not None and line["state"] == State.DONE.value else []
        )
    rows = [[*keys, "seeds", "final return"], ["---"] * (len(keys) + 2)]
    rows += [[*(f"`{each}`" for each in group), str(len(values)), _cell(values)] for group, values in groups.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _cell(values: Sequence[float]) -> str:
    """Interquartile mean, and its 95 % bootstrap interval from three seeds on."""
    if not values:
        return "none yet"
    middle = f"{float(iqm(np.array(values))):,.4g}"
    if len(values) < 3:
        return middle
    low, high = bootstrap_ci(np.array(values))
    return f"{middle} [{low:,.4g}, {high:,.4g}]"
