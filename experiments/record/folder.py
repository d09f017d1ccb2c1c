"""The results folder: where things lie, whom it belongs to, and what it was made with."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from experiments.build.checks import flatten
from experiments.build.environment import kind_of
from experiments.record.metrics_files import read_json, write_json

NOT_COMPARED = (
    "resume",
    "overwrite",
    "results_dir",
    "checkpoint_every",
    "metrics_every",
    "stop_after",
    "on_divergence",
    "compile_cache",
    "env.workers",
    "env.worker_timeout",
)
"""Keys that say how to start and how to run, not what is computed; so does everything under `video`."""


class Folder:
    """Paths below `{results_dir}/{exp_id}_{env.name}`."""

    def __init__(self, config: ConfigDict) -> None:
        self.root = Path(config.results_dir) / f"{config.exp_id}_{config.env.name}"
        self.config = self.root / "config.json"
        self.versions = self.root / "versions.json"
        self.checkpoint = self.root / "checkpoint"
        self.curves = self.root / "curves.png"

    def seed(self, seed: int) -> Path:
        """The folder of one seed."""
        return self.root / str(seed)

    def video(self, seed: int, frame: int) -> Path:
        """A greedy rollout at `frame`."""
        return self.seed(seed) / "videos" / f"eval_{frame}.mp4"

    def grid(self) -> Path:
        """The newest rollouts of all seeds."""
        return self.root / "grid.mp4"


def check_folder(folder: Folder, config: ConfigDict) -> None:
    """Refuse to mix runs, before anything expensive starts. Takes over the earlier choice where a setting is `auto`.

    Raises:
        FileExistsError: the folder holds a run with another config, or any run while `resume=False`.
        ValueError: `overwrite` without `resume=False`, or the folder would lie outside of `results_dir`.
    """
    if ".." in folder.root.relative_to(config.results_dir).parts:
        raise ValueError(f"exp_id={config.exp_id!r} leads out of results_dir; give it a name without '..'")
    if config.overwrite and config.resume:
        raise ValueError("overwrite=True deletes an earlier run and needs --config.resume=False beside it")
    if config.overwrite or not folder.config.exists():
        return
    earlier = read_json(folder.config)
    if config.replay.store == "auto" and config.resume:
        config.replay.store = earlier["replay"]["store"]  # the choice of then
    if not config.resume:
        raise FileExistsError(
            f"{folder.root} holds a run already; give --config.exp_id another name, "
            "or delete that run with --config.overwrite=True"
        )
    differing = _differences(earlier, resolved(config))
    if differing:
        raise FileExistsError(
            f"{folder.root} holds a run with another config ({'; '.join(differing)}); give --config.exp_id another "
            "name, or start anew with --config.resume=False --config.overwrite=True"
        )


def open_folder(folder: Folder, config: ConfigDict) -> None:
    """Make the folder, or empty it where the config says so, and write `config.json` and `versions.json`.

    `versions.json` keeps what the run began with; each resume adds what was different then to its list `resumed`.
    """
    if config.overwrite and folder.config.exists():  # never a folder that is not a run's
        shutil.rmtree(folder.root)
    write_json(folder.config, resolved(config))
    now = versions(config)
    if folder.versions.exists():
        first = read_json(folder.versions)
        changed = {key: value for key, value in now.items() if first.get(key) != value}
        now = first | {"resumed": [*first.get("resumed", []), changed]}
    write_json(folder.versions, now)


def resolved(config: ConfigDict) -> dict[str, Any]:
    """The config as plain JSON values."""
    return json.loads(json.dumps(config.to_dict()))


def versions(config: ConfigDict) -> dict[str, Any]:
    """What the results depend on beside the config."""
    device = jax.local_devices()[0]
    packages = ("jax", "jaxlib", "flax", "optax", "chex", "numpy", "orbax-checkpoint")
    packages += kind_of(config).packages
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "device": f"{device.platform}: {device.device_kind}",
        "devices": jax.local_device_count(),
        "commit": commit(),
        "renderer": config.env.get("renderer", "none"),
        "render_quality": config.env.get("render_quality", "none"),
        "flags": {name: os.environ.get(name, "") for name in ("XLA_FLAGS", "JAX_PLATFORMS", "MUJOCO_GL")},
    }


def commit() -> str:
    """The commit that this code lies in, marked when the tree differs from it; `unknown` outside a repository."""

    def git(*args: str) -> str:
        done = subprocess.run(
            ["git", *args], cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10
        )
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    flat_old, flat_new = flatten(old), flatten(new)
    keys = sorted(k for k in flat_old.keys() | flat_new.keys() if k not in NOT_COMPARED and not k.startswith("video."))
    return [
        f"{key}: {flat_old.get(key)} there, {flat_new.get(key)} now"
        for key in keys
        if flat_old.get(key) != flat_new.get(key)
    ]
