"""Metrics as JSON lines, as TensorBoard events and, where it is wanted, at Weights & Biases; one set per seed."""

from __future__ import annotations

import json
import math
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import UInt8


class Board(Protocol):
    """Where a seed's rows and videos go beside its folder, such as `experiments.record.wandb_runs.WandbRun`."""

    def write(self, step: int, row: dict[str, Any]) -> None:
        """A row of `metrics.jsonl`, NaN as it is."""

    def film(self, step: int, frame: int, path: Path) -> None:
        """An mp4 file."""

    def close(self) -> None:
        """No more comes."""


class SeedWriter:
    """Writes what one seed measures. On resume, what lies beyond the checkpoint is dropped: it will be measured again.

    Args:
        folder: the seed's folder; `metrics.jsonl` and `tensorboard/` are made in it.
        frame: the frame that the run goes on from; 0 begins anew.
        board: where all of it goes too.
    """

    def __init__(self, folder: Path, frame: int, board: Board | None = None) -> None:
        from experiments.record.event_file import EventFile  # takes seconds, which readers of metrics need not wait

        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "metrics.jsonl"
        rows = [row for row in read_metrics(self._path) if row["frame"] <= frame] if frame else []
        _replace(self._path, "".join(json.dumps(row) + "\n" for row in rows))
        self._lines = self._path.open("a")
        self._events = EventFile(folder / "tensorboard", frame + 1 if frame else 0)
        self._other = board

    def write(self, step: int, frame: int, values: dict[str, float]) -> None:
        """One line: `step`, `frame` and every value, NaN as null. TensorBoard's axis is the frame."""
        row = {"step": step, "frame": frame} | {k: v if math.isfinite(v) else None for k, v in values.items()}
        self._lines.write(json.dumps(row) + "\n")
        self._lines.flush()
        self._events.write(frame, {name: value for name, value in values.items() if math.isfinite(value)})
        if self._other:
            self._other.write(step, {"step": step, "frame": frame} | values)

    def film(
        self, step: int, frame: int, frames: UInt8[np.ndarray, "steps height width 3"], fps: int, mp4: Path
    ) -> None:
        """A rollout, which lies in `mp4` already. TensorBoard gets a small animation of it, among its images."""
        self._events.film(frame, frames, fps)
        if self._other:
            self._other.film(step, frame, mp4)

    def close(self) -> None:
        """Close the files."""
        with ExitStack() as files:  # each, even where one cannot be written to its end
            for each in (self._other, self._events, self._lines):
                if each:
                    files.callback(each.close)


def read_metrics(path: Path) -> list[dict]:
    """The rows of a `metrics.jsonl`; none if there is no file. A last line that a kill cut short is left out.

    Raises:
        ValueError: a line is no row.
    """
    if not path.exists():
        return []
    try:
        lines = path.read_text().splitlines(keepends=True)
        rows = [_row(line) for line in lines if line.endswith("\n")]
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}); mend or remove the lines that are no rows") from error
    for before, after in pairwise(rows):
        if after["frame"] < before["frame"]:
            raise ValueError(
                f"{path} is damaged (frame {after['frame']} follows on {before['frame']}); mend or remove these lines"
            )
    return rows


def _row(line: str) -> dict[str, Any]:
    """A line of numbers by name, null for NaN.

    Raises:
        ValueError: it is none.
    """
    row = json.loads(line)
    if not isinstance(row, dict) or type(row.get("frame")) is not int:
        raise ValueError(f"no row with a frame: {line[:40]!r}")
    for name, value in row.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"{name} is no number: {value!r}"[:80])
    return row


def read_json(path: Path) -> dict[str, Any]:
    """What a JSON file holds, by name.

    Raises:
        ValueError: it holds no JSON, or nothing with names.
    """
    try:
        found = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged, it holds no JSON ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged, it holds no JSON object")
    return found


def write_json(path: Path, value: object) -> None:
    """Write indented JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, json.dumps(value, indent=2) + "\n")


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text)
    temporary.replace(path)
