"""Metrics as JSON lines and TensorBoard events, one set per seed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter


class SeedWriter:
    """Writes what one seed measures. On resume, what lies beyond the checkpoint is dropped: it will be measured again.

    Args:
        folder: the seed's folder; `metrics.jsonl` and `tensorboard/` are made in it.
        frame: the frame that the run goes on from; 0 begins anew.
    """

    def __init__(self, folder: Path, frame: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "metrics.jsonl"
        rows = [row for row in read_metrics(self._path) if row["frame"] <= frame] if frame else []
        _replace(self._path, "".join(json.dumps(row) + "\n" for row in rows))
        self._lines = self._path.open("a")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=frame + 1 if frame else 0)

    def write(self, step: int, frame: int, values: dict[str, float]) -> None:
        """One line: `step`, `frame` and every value, NaN as null. TensorBoard's axis is the frame."""
        row = {"step": step, "frame": frame} | {k: v if math.isfinite(v) else None for k, v in values.items()}
        self._lines.write(json.dumps(row) + "\n")
        self._lines.flush()
        for name, value in values.items():
            if math.isfinite(value):
                self._board.add_scalar(name, value, frame)
        self._board.flush()

    def close(self) -> None:
        """Close the files."""
        self._lines.close()
        self._board.close()


def read_metrics(path: Path) -> list[dict]:
    """The rows of a `metrics.jsonl`; none if there is no file. A last line that a kill cut short is left out.

    Raises:
        ValueError: a line is no JSON.
    """
    if not path.exists():
        return []
    try:
        lines = path.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); mend or remove the lines that are no JSON") from error


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        ValueError: it holds no JSON.
    """
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged, it holds no JSON ({error})") from error


def write_json(path: Path, value: object) -> None:
    """Write indented JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, json.dumps(value, indent=2) + "\n")


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text)
    temporary.replace(path)
