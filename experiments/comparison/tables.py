"""The table and the figure of a comparison: interquartile means over seeds, and their bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from experiments.comparison.columns import Column
from experiments.record.statistics import bootstrap_ci, iqm

Values = Float[np.ndarray, " seeds"]


def interval(values: Values) -> tuple[float, float, float]:
    """Interquartile mean over seeds and its 95 % bootstrap interval, which needs three seeds, all with a value."""
    middle = float(iqm(values))
    if len(values) < 3 or not np.isfinite(values).all():
        return middle, np.nan, np.nan
    return middle, *bootstrap_ci(values)


def table(results: dict[str, dict[str, Values]], columns: dict[str, Column], notes: Sequence[str]) -> str:
    """Markdown: each method's interquartile mean over the seeds, in brackets its 95 % interval; `notes` below."""
    names = [name for name in columns if any(np.isfinite(values[name]).any() for values in results.values())]
    lines = [["method", *names], ["---"] * (len(names) + 1)]
    lines += [
        [f"`{label}`", *(_cell(v[name], columns[name].interval) for name in names)] for label, v in results.items()
    ]
    meanings = [f"{name}: {columns[name].meaning}" for name in names]
    return "\n".join(
        [*(f"| {' | '.join(line)} |" for line in lines), "", *(f"- {n}." for n in (*notes, *meanings)), ""]
    )


def _cell(values: Values, with_interval: bool) -> str:
    missing = int((~np.isfinite(values)).sum())
    if missing:
        return f"no number in {missing} of {len(values)} seeds"
    middle, low, high = interval(values)
    size = np.nanmax(np.abs([middle, low, high]))
    digits = int(np.clip(3 - np.floor(np.log10(size)), 0, 3)) if size > 0 else 0
    alone = f"{middle:,.{digits}f}"
    return f"{alone} [{low:,.{digits}f}, {high:,.{digits}f}]" if with_interval and low == low else alone


def draw(results: dict[str, dict[str, Values]], path: Path) -> None:
    """Returns and dormant ratio of each method: every seed, the interquartile mean and its interval."""
    from matplotlib.figure import Figure  # takes a second, which a mistyped command need not wait

    names = [name for name in next(iter(results.values())) if name.startswith(("final", "mean")) or name == "dormant"]
    figure = Figure(figsize=(1.5 + 3.9 * len(names), 1.2 + 0.32 * len(results)), layout="constrained")
    heights = range(len(results))[::-1]
    for name, axes in zip(names, figure.subplots(1, len(names), sharey=True, squeeze=False)[0], strict=True):
        for height, values in zip(heights, results.values(), strict=True):
            middle, low, high = interval(values[name])
            axes.plot([low, high], [height, height], color="C0", linewidth=2, alpha=0.5)
            axes.plot(middle, height, "o", color="C0")
            axes.plot(values[name], [height] * len(values[name]), "|", color="black", markersize=6)
        axes.set(xlabel=name, yticks=list(heights), yticklabels=list(results))
        axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
