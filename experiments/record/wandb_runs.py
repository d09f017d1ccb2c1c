"""Weights & Biases: a run for each seed, those of an experiment in one group. The package is optional."""

from __future__ import annotations

import os
import uuid
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.record.folder import Folder, resolved

OFF = "--config.log.wandb=False"
AT_HOME = ("offline", "dryrun", "disabled")
"""What `WANDB_MODE` says where nothing leaves the machine."""


def check_wandb(config: ConfigDict) -> None:
    """ValueError, with the cure, where Weights & Biases is wanted and cannot be had."""
    if not config.log.wandb:
        return
    if find_spec("wandb") is None:
        raise ValueError(f"log.wandb=True needs the package wandb; pip install 'wandb>=0.31,<0.32', or set {OFF}")
    if os.environ.get("WANDB_MODE") in AT_HOME:
        return
    import wandb  # takes seconds

    if not wandb.login(prompt=False):
        raise ValueError(
            f"log.wandb=True finds no login; run wandb login, set WANDB_MODE=offline in the environment, or set {OFF}"
        )


class WandbRun:
    """One seed's run. A run that goes on after a stop goes on in the same one, whose id lies in the seed's folder.

    Raises:
        RuntimeError: Weights & Biases cannot be reached, or does not want the run.
    """

    def __init__(self, config: ConfigDict, folder: Folder, seed: int) -> None:
        import wandb

        place, name = folder.seed(seed), folder.root.name
        self._video = wandb.Video
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "ne_jax"),
                dir=place,
                id=_id(place / "wandb" / "id.txt"),
                name=f"{name}/{seed}",
                group=name,
                config=resolved(config) | {"seed": seed},
                resume="allow",
                reinit="create_new",
                settings=wandb.Settings(console="off", silent=True),
            )
        except wandb.Error as error:
            raise RuntimeError(
                f"log.wandb=True: no run could be opened ({str(error).splitlines()[0]}); set WANDB_MODE=offline in the "
                f"environment, or {OFF}"
            ) from error
        self._run.define_metric("*", step_metric="frame")

    def write(self, step: int, row: dict[str, Any]) -> None:
        """A row of `metrics.jsonl`. One that a run measures again after a stop is the same, and left out there."""
        self._run.log(row, step=step)

    def film(self, step: int, frame: int, path: Path) -> None:
        """An mp4 file."""
        self._run.log({"frame": frame, "eval/video": self._video(str(path), format="mp4")}, step=step)

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()


def _id(file: Path) -> str:
    """The id that a file holds; a new one the first time."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(uuid.uuid4().hex[:12])
    return file.read_text().strip()
