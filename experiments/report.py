"""Draw the curves of a run: `python -m experiments.report --results=results/drq_ne_walker_walk`."""

from __future__ import annotations

import sys
from pathlib import Path

from absl import app, flags

from experiments.record.curves import draw_curves


def main(_: list[str]) -> int:
    """Draw and print where the picture lies; the exit status is 0, or 2 where there is no run."""
    try:
        print(draw_curves(Path(_RESULTS.value)))
    except FileNotFoundError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    _RESULTS = flags.DEFINE_string("results", None, "The folder of a run.", required=True)
    app.run(main)
