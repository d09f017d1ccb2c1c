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
from experiments.build.slices import Slice, slice_of
from experiments.record.metrics_files import read_json, write_json

NOT_COMPARED = (
    "resume",
    "overwrite",
    "results_dir",
    "checkpoint_every",
    "metrics_every",
    "stop_after",
    "stop_at_frame",
    "on_divergence",
    "compile_cache",
    "env.workers",
    "env.worker_timeout",
    "slice",
    "distributed",
    "over_seeds",
    "devices",
    "deterministic",
)
"""Keys that say how to start and how to run, not what is computed; so does everything under `video` and `log`."""


def compared(key: str) -> bool:
    """Does this key say what is computed?"""
    return key not in NOT_COMPARED and not key.startswith(("video.", "log."))


class Folder:
    """Paths below `{results_dir}/{exp_id}_{env.name}`.

    Where the seeds are spread over processes (`config.slice`), what belongs to one process lies in `slices/i_of_n`, and
    what belongs to a seed, and the config of the whole run, where they always do.

    Raises:
        ValueError: `config.slice` is none.
    """

    def __init__(self, config: ConfigDict) -> None:
        self.root = Path(config.results_dir) / f"{config.exp_id}_{config.env.name}"
        self.slice = slice_of(config)
        own = self._own(self.slice) if self.slice else self.root
        self.config = own / "config.json"
        self.versions = own / "versions.json"
        self.checkpoint = own / "checkpoint"
        self.grid = own / "grid.mp4"
        self.curves = self.root / "curves.png"
        self.whole_config = self.root / "config.json"

    def seed(self, seed: int) -> Path:
        """The folder of one seed."""
        return self.root / str(seed)

    def video(self, seed: int, frame: int) -> Path:
        """A greedy rollout at `frame`."""
        return self.seed(seed) / "videos" / f"eval_{frame}.mp4"

    def _own(self, part: Slice) -> Path:
        return self.root / "slices" / part.name

    def counts(self) -> set[int]:
        """Over how many processes the seeds were spread by those that have written here; one number, or none."""
        found = {int(path.name.partition("_of_")[2]) for path in self.root.glob("slices/*_of_*")}
        return found | ({1} if (self.root / "versions.json").exists() else set())

    def is_trained(self, steps: int) -> bool:
        """Whether the run, all its slices, has come to its last step."""
        return (self.root / "checkpoint" / str(steps)).exists() or any(
            all((self._own(Slice(i, n)) / "checkpoint" / str(steps)).exists() for i in range(n))
            for n in self.counts() - {1}
        )


def versions_in(root: Path) -> list[dict[str, Any]]:
    """What each process that has written into a run's folder has kept in its `versions.json`."""
    paths = [root / "versions.json", *sorted(root.glob("slices/*/versions.json"))]
    return [read_json(path) for path in paths if path.exists()]


def check_folder(folder: Folder, config: ConfigDict) -> None:
    """Refuse to mix runs, before anything expensive starts. Takes over the earlier choice where a setting is `auto`.

    Raises:
        FileExistsError: the folder holds a run with another config, or spread over another number of processes, or any
            run while `resume=False`.
        ValueError: `overwrite` without `resume=False`, or by one process of several; or the folder would lie outside of
            `results_dir`.
    """
    if config.overwrite and folder.slice:
        raise ValueError(
            f"overwrite=True with slice={config.slice} would delete what the other processes have; delete "
            f"{folder.root} by hand, or give --config.exp_id another name"
        )
    check_config(folder, config)
    there, own = folder.counts(), folder.slice.count if folder.slice else 1
    if not config.overwrite and there - {own}:
        count = max(there - {own})
        then = "by one process, without slice" if count == 1 else f"by {count} processes, slice=0/{count} and so on"
        raise FileExistsError(
            f"{folder.root} was written {then}, and now slice={config.slice!r}; go on as it was begun, or give "
            "--config.exp_id another name"
        )


def check_config(folder: Folder, config: ConfigDict) -> None:
    """As `check_folder`, whatever the number of processes was."""
    if ".." in folder.root.relative_to(config.results_dir).parts:
        raise ValueError(f"exp_id={config.exp_id!r} leads out of results_dir; give it a name without '..'")
    if config.overwrite and config.resume:
        raise ValueError("overwrite=True deletes an earlier run and needs --config.resume=False beside it")
    written = [path for path in (folder.config, folder.whole_config) if path.exists()]
    if config.overwrite or not written:
        return
    earlier = read_json(written[0])
    store = flatten(earlier).get("replay.store")
    if config.replay.store == "auto" and config.resume and isinstance(store, str):
        config.replay.store = store  # the choice of then
    if not config.resume and folder.config.exists():
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


def check_trained_with(folder: Path, config: dict[str, Any]) -> None:
    """ValueError where a run's `config.json` is not the one that its networks were trained with."""
    for path in sorted(folder.glob("*/model/config.json")):
        differing = _differences(read_json(path), config)
        if differing:
            raise ValueError(
                f"{folder / 'config.json'} is not what the networks in {path.parent} were trained with "
                f"({'; '.join(each.replace(' there', ' when trained') for each in differing)}); set it back"
            )


def open_folder(folder: Folder, config: ConfigDict) -> None:
    """Make the folder, or empty it where the config says so, and write `config.json` and `versions.json`.

    The `config.json` that others read is that of the whole run, which any slice may write.

    `versions.json` keeps what the run began with; each resume adds what was different then to its list `resumed`.
    """
    if config.overwrite and folder.config.exists():  # never a folder that is not a run's
        shutil.rmtree(folder.root)
    write_json(folder.config, resolved(config))
    if folder.slice:
        own = folder.whole_config.with_name(f"config_{folder.slice.name}.json")
        write_json(own, resolved(config) | {"slice": ""})
        own.replace(folder.whole_config)
    now = versions(config)
    if folder.versions.exists():
        first = read_json(folder.versions)
        changed = {key: value for key, value in now.items() if first.get(key) != value}
        resumed = first.get("resumed", [])
        now = first | {"resumed": [*(resumed if isinstance(resumed, list) else []), changed]}
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
    keys = sorted(filter(compared, flat_old.keys() | flat_new.keys()))
    return [
        f"{key}: {flat_old.get(key)} there, {flat_new.get(key)} now"
        for key in keys
        if flat_old.get(key) != flat_new.get(key)
    ]
