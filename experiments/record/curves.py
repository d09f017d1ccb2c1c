"""The picture of a run's curves that it draws as it ends."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from experiments.record.metrics_files import read_metrics

PANELS = (
    ("eval/return", "return of greedy evaluation"),
    ("plasticity/density", "density of the sparse layers"),
    ("plasticity/fau", "fraction of active units"),
)


def draw_curves(root: Path) -> Path:
    """Draw return, density and FAU over frames into `curves.png`: one thin line per seed, a thick one for their mean.

    Where tasks take turns there are such lines for the return on each, and an upright one at each switch.

    Raises:
        FileNotFoundError: `root` holds no metrics.
    """
    rows = {path.parent.name: read_metrics(path) for path in sorted(root.glob("*/metrics.jsonl"))}
    if not rows:
        raise FileNotFoundError(f"{root} holds no metrics.jsonl with a line in it; is it the folder of a run?")
    matplotlib.use("Agg")
    figure = Figure(figsize=(13, 3.8), layout="constrained")
    first = next(iter(rows.values()))
    columns = dict.fromkeys(name for row in first for name in row if name.startswith("eval/return/"))
    for axes, (name, title) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        if name == "eval/return":
            _draw_returns(axes, rows, list(columns))
        else:
            _draw_seeds(axes, rows, name)
        for frame in switches(first):
            axes.axvline(frame, color="grey", linestyle=":", linewidth=1)
        axes.set(title=title, xlabel="environment frames per seed")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.grid(alpha=0.3)
    figure.suptitle(root.name)
    drawn = root / f".curves_{uuid.uuid4().hex}.png"  # another slice of the run may draw at the same time
    figure.savefig(drawn, dpi=110)
    return drawn.replace(root / "curves.png")


def _draw_returns(axes: Any, rows: dict[str, list[dict]], columns: list[str]) -> None:
    """The return, beside that of the random policy, or the returns on all tasks, whose columns are given."""
    if not columns:
        _draw_seeds(axes, rows, "eval/return")
    elif not any("continual/recovery_frames" in row for row in next(iter(rows.values()))):  # they drift
        _draw_seeds(axes, rows, "eval/return", "black", "the task at that time")
    for i, column in enumerate(columns):
        _draw_seeds(axes, rows, column, f"C{i}", column.removeprefix("eval/return/"))
    chance = [row["eval/random_return"] for r in rows.values() for row in r if "eval/random_return" in row]
    if chance and not columns:
        axes.axhline(np.mean(chance), linestyle="--", color="grey", label="random policy")
    axes.legend(fontsize=8)


def _draw_seeds(axes: Any, rows: dict[str, list[dict]], name: str, colour: str = "", label: str = "mean") -> None:
    """A line per seed, each in a colour of its own unless one is given, and their mean."""
    lines = [_line(seed_rows, name) for seed_rows in rows.values()]
    for seed, (frames, values) in zip(rows, lines, strict=True):
        own = dict(color=colour, alpha=0.25) if colour else dict(alpha=0.6, label=f"seed {seed}")
        axes.plot(frames, values, linewidth=1, **own)
    if len({tuple(frames) for frames, _ in lines}) == 1:
        axes.plot(lines[0][0], np.mean([values for _, values in lines], axis=0), color=colour or "black", label=label)


def switches(rows: list[dict]) -> list[int]:
    """Frames at which the task was another one than in the evaluation before."""
    frames, tasks = _line(rows, "continual/task")
    return [frame for frame, task, before in zip(frames[1:], tasks[1:], tasks) if task != before]


def _line(rows: list[dict], name: str) -> tuple[list[int], list[float]]:
    points = [(row["frame"], row[name]) for row in rows if row.get(name) is not None]
    return [frame for frame, _ in points], [value for _, value in points]
