"""Curves of a run: `python -m experiments.report --results=results/drq_ne_walker_walk`."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from absl import app, flags
from matplotlib.figure import Figure

from experiments.writers import read_metrics

PANELS = (
    ("eval/return", "return of greedy evaluation"),
    ("plasticity/density", "density of the sparse layers"),
    ("plasticity/fau", "fraction of active units"),
)


def draw_curves(root: Path) -> Path:
    """Draw return, density and FAU over frames into `curves.png`: one thin line per seed, a thick one for their mean.

    Raises:
        FileNotFoundError: `root` holds no metrics.
    """
    rows = {path.parent.name: read_metrics(path) for path in sorted(root.glob("*/metrics.jsonl"))}
    if not rows:
        raise FileNotFoundError(f"{root} holds no metrics.jsonl with a line in it; is it the folder of a run?")
    matplotlib.use("Agg")
    figure = Figure(figsize=(13, 3.8), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        lines = [_line(seed_rows, name) for seed_rows in rows.values()]
        for seed, (frames, values) in zip(rows, lines, strict=True):
            axes.plot(frames, values, linewidth=1, alpha=0.6, label=f"seed {seed}")
        if len({tuple(frames) for frames, _ in lines}) == 1:
            axes.plot(lines[0][0], np.mean([values for _, values in lines], axis=0), color="black", label="mean")
        if name == "eval/return":
            chance = [row["eval/random_return"] for r in rows.values() for row in r if "eval/random_return" in row]
            if chance:
                axes.axhline(np.mean(chance), linestyle="--", color="grey", label="random policy")
            axes.legend(fontsize=8)
        axes.set(title=title, xlabel="environment frames per seed")
        axes.grid(alpha=0.3)
    figure.suptitle(root.name)
    figure.savefig(root / "curves.png", dpi=110)
    return root / "curves.png"


def _line(rows: list[dict], name: str) -> tuple[list[int], list[float]]:
    points = [(row["frame"], row[name]) for row in rows if row.get(name) is not None]
    return [frame for frame, _ in points], [value for _, value in points]


if __name__ == "__main__":
    _RESULTS = flags.DEFINE_string("results", None, "The folder of a run.", required=True)
    app.run(lambda _: print(draw_curves(Path(_RESULTS.value))))
