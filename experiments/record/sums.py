"""Checksums of a folder that orbax has written: its format has none for the bytes of large arrays."""

from __future__ import annotations

import zlib
from pathlib import Path

from experiments.record.metrics_files import read_json, write_json

SUMS = "sums.json"
"""In the folder itself: the sum of each other file by its path."""
PIECE = 2**22
"""Bytes that are read at a time."""


def write_sums(folder: Path) -> None:
    """Keep the CRC-32 of each file in the folder, as it is now."""
    write_json(folder / SUMS, {path.relative_to(folder).as_posix(): _sum(path) for path in _files(folder)})


def check_sums(folder: Path, below: str = "") -> None:
    """Compare all files, or those whose path begins with `below`, with what was kept.

    Earlier versions kept nothing; then there is nothing to compare with.

    Raises:
        ValueError: a file has changed or is missing, or the sums are damaged.
    """
    if not (folder / SUMS).exists():
        return
    kept = read_json(folder / SUMS)
    for name, expected in kept.items():
        path = folder / name
        if not name.startswith(below):
            continue
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{SUMS} names {name}, which is not in the folder")
        if not path.is_file():
            raise ValueError(f"its file {name} is missing")
        if _sum(path) != expected:
            raise ValueError(f"its file {name} is damaged: it is not what was written")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / SUMS)


def _sum(path: Path) -> int:
    total = 0
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            total = zlib.crc32(piece, total)
    return total


def first_line(error: Exception) -> str:
    """The first line of what a damaged file made orbax say, its type's name where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
