"""DIR/STREAM.png: performance over tasks, a panel for each method with the references behind it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.streams.measures import Verdict, gap_closed, gate, interval, late_means
from experiments.streams.tables import Compared
from experiments.streams.types import DENSE, FRESH, RANDOM, REFERENCES, TaskRow

COLUMNS = 6
WIDTH = 24  # characters of a panel's title
METHOD, GREY = "#0b5fa5", "#8a8a8a"


def draw(compared: Compared, path: Path) -> None:
    """The interquartile mean over seeds at each task, with its interval: fresh as a band, dense and random as lines."""
    matplotlib.use("Agg")
    stream, rows = compared.stream, compared.rows
    curves = {name: _curve([row for row in rows if row.method == name]) for name in compared.arms}
    late = late_means(rows, stream.late)
    verdict = gate(late)
    methods = [name for name in curves if name not in REFERENCES] or [DENSE]
    count = math.ceil(len(methods) / COLUMNS)
    columns = min(COLUMNS, len(methods))
    size = (max(4.8, 1.2 + 2.15 * columns), 0.9 + 1.85 * count)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(count, columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(methods) :]:
        axes.set_visible(False)
    for place, (axes, name) in enumerate(zip(grid.flat, methods)):
        _references(axes, curves)
        if name not in REFERENCES:
            _line(axes, curves[name], METHOD, "method")
        axes.set_title(_title(name, late, verdict), fontsize=9)
        axes.axvspan(stream.late - 0.5, stream.tasks + 0.5, color="black", alpha=0.04, linewidth=0)
        axes.set_xlim(0.5, stream.tasks + 0.5)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.tick_params(labelsize=8, labelbottom=place + columns >= len(methods))
        axes.grid(alpha=0.25)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), fontsize=8, frameon=False)
    closed = "; per cent: of the gap from dense to fresh, closed on late tasks" if verdict.passed else ""
    wrapped = textwrap.wrap(f"task, late ones shaded{closed}", 36 * columns)
    figure.supxlabel("\n".join(wrapped), fontsize=9)
    figure.supylabel(stream.performance, fontsize=9)
    figure.savefig(path, dpi=130)


def _curve(rows: Sequence[TaskRow]) -> Float[np.ndarray, "tasks 4"]:
    """For each task its number, the interquartile mean over seeds, and the ends of the interval."""
    tasks = sorted({row.task for row in rows})
    return np.array([[task, *interval(np.array([row.auc for row in rows if row.task == task]))] for task in tasks])


def _references(axes: Axes, curves: dict[str, Float[np.ndarray, "tasks 4"]]) -> None:
    if FRESH in curves:
        tasks, middle, low, high = curves[FRESH].T
        axes.fill_between(tasks, low, high, color="#58a55c", alpha=0.35, linewidth=0, label=FRESH)
        axes.plot(tasks, middle, color="#58a55c", linewidth=0.8)
    if DENSE in curves:
        _line(axes, curves[DENSE], GREY, DENSE)
    if RANDOM in curves:
        axes.plot(*curves[RANDOM].T[:2], color="black", linestyle=":", linewidth=1, label=RANDOM)


def _line(axes: Axes, curve: Float[np.ndarray, "tasks 4"], colour: str, label: str = "") -> None:
    tasks, middle, low, high = curve.T
    axes.fill_between(tasks, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(tasks, middle, color=colour, linewidth=1.4, label=label or None)


def _title(name: str, late: dict[str, np.ndarray], verdict: Verdict) -> str:
    """The method's name, and the share of the gap that it closes, where that means anything."""
    label = "\n".join(textwrap.wrap(name.replace(",", ", "), WIDTH))
    if not verdict.passed or name in REFERENCES:
        return label
    closed = gap_closed(late, name).value
    return f"{label}  {closed:.0%}" if np.isfinite(closed) else label
