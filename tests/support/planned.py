"""Runs of a sweep that are tiny programs instead of trainings."""

import sys
from pathlib import Path

from experiments.launch.plan import Planned


def planned(root: Path, name: str, program: str = "", memory: int = 0, frames: int = 100) -> Planned:
    """A run that executes `program`, in which `end()` makes the last checkpoint, and `folder` is the run's."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    begin = f"import os, signal, sys, time; from pathlib import Path; folder = Path({str(folder)!r})\n"
    begin += "def end(): (folder / 'checkpoint').mkdir(exist_ok=True)\n"
    command = (sys.executable, "-c", begin + program)
    return Planned(
        name, {"a": name}, command, folder, (0,), frames, folder / "checkpoint", memory, root / f"{name}.txt"
    )
