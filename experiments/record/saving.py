"""Writing results: what it takes, and one sentence where it cannot be done."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from experiments.build.errors import UserError
from experiments.record.checkpoints import Checkpoints
from experiments.record.folder import Folder
from experiments.record.lane_checkpoints import LaneCheckpoints

KEPT = 3
"""Checkpoints that lie side by side at most: two that are kept, and the one that is being written."""
LARGE = 100 * 10**9
"""Bytes of a checkpoint of which a run warns, however much the disk holds."""


@contextmanager
def saving(folders: Sequence[Folder], checkpoints: Checkpoints | LaneCheckpoints) -> Iterator[None]:
    """What is written within is results, in the folder of a run or of each lane.

    Raises:
        UserError: a folder is gone, or it cannot be written to, in one sentence.
    """
    try:
        _check_there(folders)
        yield
        _check_there(folders)
    except UserError:
        raise
    except Exception as error:  # orbax and TensorBoard each pass on types of their own for what the system says
        reason = _reason(error)
        gone = next((each for each in folders if not each.config.exists()), None)
        if reason is None and gone is None:
            raise
        folder = gone or folders[0]
        newest = checkpoints.newest if all(each.checkpoint.exists() for each in folders) else None
        kept = "no checkpoint is there" if newest is None else f"the checkpoint of step {newest} is intact"
        raise UserError(
            f"results cannot be written to {folder.root} ({reason or 'it is gone'}); {kept}: make room or give the "
            "folder back, and the same command goes on from there"
        ) from error


def _check_there(folders: Sequence[Folder]) -> None:
    """What is written into a folder that somebody has removed would seem to be there, and be lost."""
    for folder in folders:
        if not folder.config.exists():
            raise FileNotFoundError(f"{folder.config} is gone")


def _reason(error: BaseException | None) -> str | None:
    """What the system said, from an error or from those that it came of; None where it said nothing."""
    words = ("No space left on device", "Read-only file system", "Disk quota exceeded", "File too large")
    while error is not None:
        if isinstance(error, OSError):
            return os.strerror(error.errno) if error.errno else str(error)
        for each in words:
            if each in str(error):
                return each
        error = error.__cause__ or error.__context__
    return None


def disk_warning(folder: Path, checkpoint: int) -> str:
    """A sentence where a run's checkpoints, of so many bytes each, may not fit on the disk, or are `LARGE`; else "".

    They are compressed when they are written, so that they may take less.
    """
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    free, wanted, size = shutil.disk_usage(place).free, KEPT * checkpoint, f"{checkpoint / 1e9:.1f} GB"
    if wanted > free:
        return (
            f"warning: {KEPT} checkpoints of up to {size} each want {wanted / 1e9:.1f} GB in {place}, "
            f"where {free / 1e9:.1f} GB are free; lower replay.capacity, or give another --config.results_dir"
        )
    if checkpoint >= LARGE:
        return (
            f"warning: each checkpoint takes up to {size} in {place}, and training waits while it is written; "
            "raise checkpoint_every, or lower replay.capacity"
        )
    return ""
