"""What the runs of a sweep vary, and what they are called; the lanes of a program are called the same."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

Overrides = dict[str, str]
"""The keys that a run sets, dotted, with their values as they would stand on the command line."""

OF_THE_FOLDER = ("env.name", "slice")
"""Keys of which a run's folder has a part of its own: its end, and what is below it."""


def sweep_folder(results_dir: str, exp_id: str) -> Path:
    """Where all runs of a sweep lie, with its table and logs."""
    return Path(results_dir) / f"{exp_id}_sweep"


def name_runs(runs: Sequence[Overrides], usual: str) -> list[str]:
    """A name for each run, which says what varies; it is the run's `exp_id`, beside which the folder has `env.name`.

    Args:
        usual: of a run about which there is nothing to say but its environment.

    Raises:
        ValueError: two runs would have the same name and environment.
    """
    keys = [key for key in runs[0] if key not in OF_THE_FOLDER]
    short = {key: key.rpartition(".")[2] for key in keys}
    short = {key: key if list(short.values()).count(name) > 1 else name for key, name in short.items()}
    names, seen = [], {}
    for run in runs:
        name = ",".join(f"{short[key]}={_as_file(run[key])}" for key in keys) or usual
        folder = (name, *(_as_file(run.get(key, "")) for key in OF_THE_FOLDER))
        if folder in seen:
            raise ValueError(
                f"two runs would have one name, {name}: {_told(seen[folder])}, and {_told(run)}; name each value once"
            )
        seen[folder] = run
        names.append(name)
    return names


def _as_file(value: str) -> str:
    """A value as part of a file's name."""
    return re.sub(r"[^\w.+=-]+", "-", value.strip("()[]{}'\", "))


def _told(run: Overrides) -> str:
    return " ".join(f"{key}={value}" for key, value in run.items())
