"""A picture of what updates take beside their floor and beside the peer.

`python -m experiments.bench --what=peer --json=speeds.json`, then
`python -m experiments.benches.figure --json=speeds.json --out=docs/update_times.png`
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib
from absl import app, flags
from matplotlib.figure import Figure

BARS = {"floor": "#8a8a8a", "here": "#0b5fa5", "PyTorch": "#d98c3f"}
"""What stands side by side, and its colour."""


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def times(row: dict[str, Any]) -> dict[str, float]:
    """Milliseconds of each bar of a row of `--json`; without PyTorch there is none of it."""
    peer = {"PyTorch": row["peer"]["clock"]} if row["peer"] else {}
    return {"floor": row["floor"], "here": row["ours"]["clock"]} | peer


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """A panel for each item, with a scale of its own."""
    matplotlib.use("Agg")
    figure = Figure(figsize=(2.4 * len(rows), 2.2), layout="constrained")
    for axes, row in zip(figure.subplots(1, len(rows), squeeze=False).flat, rows):
        found = times(row)
        bars = axes.bar(list(found), list(found.values()), color=[BARS[name] for name in found])
        axes.bar_label(bars, fmt=_three_digits, fontsize=8)
        axes.set_title(row["name"].replace(", ", "\n", 1), fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(y=0.15)
    figure.supylabel("ms per update", fontsize=8)
    figure.savefig(path, dpi=130)


def main(_: list[str]) -> int:
    """Draw the rows of `--what=peer`."""
    path = Path(_JSON.value)
    rows = [row for row in json.loads(path.read_text())["rows"] if row["bench"] == "peer"] if path.exists() else []
    if not rows:
        word = f"{path} holds no rows; python -m experiments.bench --what=peer --json={path} makes them"
        print(f"error: {word}", file=sys.stderr)
        return 2
    draw(rows, Path(_OUT.value))
    print(_OUT.value)
    return 0


if __name__ == "__main__":
    _JSON = flags.DEFINE_string("json", None, "What bench wrote.", required=True)
    _OUT = flags.DEFINE_string("out", "docs/update_times.png", "The picture.")
    app.run(main)
