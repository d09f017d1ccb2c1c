"""The curves of a report as one picture, for papers and slides: interquartile means and intervals, a panel each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.record.report.runs import RunData, by_task
from experiments.record.report.sections import return_columns, switches
from experiments.record.report.series import Curve, curve

PANELS = (
    ("plasticity/fau", "active units"),
    ("plasticity/dormant_ratio", "dormant units"),
    ("plasticity/density", "density"),
)
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#c06c9b", "#b98200", "#3a97cf", "#000000")
"""After Okabe and Ito 2008, as in page.css."""
DASHES = ("-", (0, (4, 1.4)), (0, (1.6, 1.2)), (0, (5, 1.4, 1.2, 1.4)), ":", (0, (7, 2)), (0, (3, 1.4, 1, 1.4, 1, 1.4)))
MARKERS = ("o", "s", "^", "D", "v", "P", "_")


def draw_picture(runs: Sequence[RunData], path: Path) -> None:
    """Draw returns, of each task, and plasticity of all runs.

    Raises:
        ValueError: nothing was measured yet.
    """
    panels = [
        (group, column, f"return, {task}" if column == "eval/return" else f"return {what}, {task}")
        for task, group in by_task(runs).items()
        for column, what in return_columns(group).items()
    ]
    panels += [(list(runs), column, title) for column, title in PANELS]
    drawn = [(group, [curve(run, column) for run in group], title) for group, column, title in panels]
    drawn = [each for each in drawn if any(each[1])]
    if not drawn:
        raise ValueError(f"--png={path}: nothing was measured yet")
    matplotlib.use("Agg")
    columns = min(4, len(drawn))
    rows = -(-len(drawn) // columns)
    figure = Figure(figsize=(3.6 * columns, 3.0 * rows + 0.4), layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False).flat
    for axes, (group, curves, title) in zip(places, drawn, strict=False):
        for each in curves:
            _draw(axes, each)
        for frame in switches(group):
            axes.axvline(frame, color="grey", linestyle=":", linewidth=1)
        axes.set_title(_plain(title), fontsize=10)
        axes.set_xlabel("environment frames per seed", fontsize=9)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in list(figure.axes)[len(drawn) :]:
        axes.set_visible(False)
    by_label = {
        text: line for axes in figure.axes for line, text in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(by_label.values(), by_label.keys(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160, format="png")


def _draw(axes: Axes, one: Curve) -> None:
    look, every = one.style % len(COLOURS), max(1, len(one.frames) // 6)
    colour = COLOURS[look]
    for frames, values in one.seeds:
        axes.plot(frames, values, color=colour, linewidth=0.5, alpha=0.35)
    axes.fill_between(one.frames, one.low, one.high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(
        one.frames, one.middle, color=colour, linestyle=DASHES[look], marker=MARKERS[look], markevery=every,
        markersize=4, linewidth=1.6, label=_plain(one.label),
    )  # fmt: skip


def _plain(words: str) -> str:
    """Words that matplotlib does not take for formulas, nor leave out of a legend."""
    return words.replace("$", r"\$") if not words.startswith("_") else " " + words.replace("$", r"\$")
