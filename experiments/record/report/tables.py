"""Config differences and versions as tables, and all curves as one tidy CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.record.folder import NOT_COMPARED
from experiments.record.report.markup import Markup, details, join, table, tag
from experiments.record.report.runs import RunData

CSV_COLUMNS = ("run", "method", "seed", "frame", "name", "value")


def config_differences(runs: Sequence[RunData]) -> Markup:
    """The settings that differ between runs, and behind them all."""
    keys = list(dict.fromkeys(key for run in runs for key in run.config))
    differing = [key for key in keys if len({_shown(run, key) for run in runs}) > 1]
    told = [key for key in differing if key not in (*NOT_COMPARED, "exp_id") and not key.startswith("video.")]
    head = ["Setting", *(run.label for run in runs)]
    parts: list[object] = []
    if len(runs) > 1 and told:
        caption = "Settings that differ; names and folders are left out."
        parts.append(table(caption, head, [[key, *(_shown(run, key) for run in runs)] for key in told]))
    elif len(runs) > 1:
        parts.append(tag("p", "No setting differs that changes what is computed."))
    rows = [[key, *(_shown(run, key) for run in runs)] for key in keys]
    if rows:
        parts.append(details(f"All {len(rows)} settings", table("All settings.", head, rows)))
    return join(parts)


def versions(runs: Sequence[RunData]) -> Markup:
    """What each run was made with, and what a resume changed."""
    flat = [_flat(run.versions) for run in runs]
    keys = list(dict.fromkeys(key for each in flat for key in each))
    if not keys:
        return tag("p", "No versions.json could be read.", class_="nothing")
    rows = [[key, *(each.get(key, "not said") for each in flat)] for key in keys]
    return table("Versions, device and commit, from versions.json.", ["Item", *(run.label for run in runs)], rows)


def _flat(found: dict[str, Any]) -> dict[str, str]:
    """One line per item; of resumes only what they changed."""
    flat = {key: _as_text(value) for key, value in found.items() if key not in ("resumed", "flags")}
    if isinstance(found.get("flags"), dict):
        flat["flags"] = " ".join(f"{key}={value}" for key, value in found["flags"].items() if value) or "none"
    resumed = found.get("resumed")
    if isinstance(resumed, list):
        flat["resumed"] = f"{len(resumed)} times"
        changes = [_as_text(each) for each in resumed if each]
        flat |= {"changed by resuming": "; ".join(changes)} if changes else {}
    return flat


def _shown(run: RunData, key: str) -> str:
    return _as_text(run.config[key]) if key in run.config else "not there"


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value)


def write_csv(runs: Sequence[RunData], path: Path) -> None:
    """Every number of every run, a row each: run, method, seed, frame, name, value; an empty value was no number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(CSV_COLUMNS)
        for run in runs:
            for seed in run.seeds:
                for name, (frames, values) in seed.columns.items():
                    for frame, value in zip(frames.tolist(), values.tolist(), strict=True):
                        number = repr(value) if np.isfinite(value) else ""
                        writer.writerow([run.label, run.method, seed.name, f"{frame:.0f}", name, number])
