"""Programs, each started by `python -m experiments.NAME`. What builds, trains and records lies in the folders below.

Programs may import all of ours; streams import the program `run` and the other folders, record imports build and train,
build imports train, and all three import the rest.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from experiments.record.policy import Policy


def load_policy(run: str | Path, seed: int | None = None) -> Policy:
    """What a run has learned, as something that acts: see `experiments.record.policy.load_policy`."""
    from experiments.record import policy  # takes seconds

    return policy.load_policy(run, seed)
