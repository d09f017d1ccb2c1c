"""The columns of a comparison: what is read from the rows of metrics of one seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from experiments.build.tasks import make_tasks
from experiments.record.statistics import FINAL_SHARE


class Column(NamedTuple):
    """A column of the table: what it says, and how it is read from the rows of one seed; NaN where it cannot be."""

    meaning: str
    read: Callable[[list[dict]], float]
    interval: bool = True


def columns_of(config: ConfigDict) -> dict[str, Column]:
    """The columns of a table, by name. Tasks of `env.sequence`, whose returns differ in scale, have one each."""
    tasks = make_tasks(config)
    late, total = (1 - FINAL_SHARE) * config.total_frames, config.total_frames
    returns = {"": "eval/return"}
    if config.env.get("sequence") and tasks:
        returns = {f" {label}": f"eval/return/{label}" for label in tasks.labels}
    found = {}
    for name, key in returns.items():
        found[f"final return{name}"] = Column(
            "mean over the evaluations in the last fifth of the run", lambda rows, key=key: mean_of(rows, key, late)
        )
    for name, key in returns.items():
        found[f"mean return{name}"] = Column(
            "mean over all evaluations but the first", lambda rows, key=key: mean_of(rows, key)
        )
    if tasks:
        found["forgetting"] = Column("at the end, see docs/method.md", lambda rows: _last(rows, "continual/forgetting"))
    if tasks and not tasks.drift:
        found["recovery"] = Column(
            "frames to recovery, mean over the phases of known tasks; a phase without recovery counts whole, one "
            "in which nothing was lost as 0",
            lambda rows: _recovery(rows, total),
        )
    return found | {
        "dormant": Column("dormant ratio at the end, tau 0", lambda rows: _last(rows, "plasticity/dormant_ratio")),
        "FAU": Column("fraction of active units at the end", lambda rows: _last(rows, "plasticity/fau")),
        "density": Column("mask density at the end", lambda rows: _last(rows, "plasticity/density"), False),
        "ms": Column(
            "milliseconds per update of all seeds together, with the steps of the environments, median over log points "
            "(runs side by side slow each other down)",
            lambda rows: _milliseconds(rows, len(config.seeds)),
            False,
        ),
    }


def _series(rows: list[dict], key: str, after: float = 0) -> list[float]:
    found = [row[key] for row in rows if key in row and row["frame"] > after]
    return [np.nan if value is None else value for value in found]


def mean_of(rows: list[dict], key: str, after: float = 0) -> float:
    """Mean of a metric over the rows after a frame that have it; NaN where there are none, or one is not finite."""
    values = _series(rows, key, after)
    return float(np.mean(values)) if values else np.nan


def _last(rows: list[dict], key: str) -> float:
    return (_series(rows, key, -1) or [np.nan])[-1]


def _recovery(rows: list[dict], total: int) -> float:
    """Mean frames to recovery over the phases whose task had a phase before."""
    evaluated = [row for row in rows if "continual/task" in row]
    starts = [
        i for i, row in enumerate(evaluated) if i == 0 or row["continual/task"] != evaluated[i - 1]["continual/task"]
    ]
    seen, found = set(), []
    for start, end in zip(starts, [*starts[1:], len(evaluated)], strict=True):
        task, frame = evaluated[start]["continual/task"], evaluated[start]["frame"]
        if task in seen:
            value = evaluated[end - 1]["continual/recovery_frames"]
            length = (evaluated[end]["frame"] if end < len(evaluated) else total) - frame
            found.append(length if value is None else value)
        seen.add(task)
    return float(np.mean(found)) if found else np.nan


def _milliseconds(rows: list[dict], seeds: int) -> float:
    """Of one update of all seeds, between the log points after which updates were made."""
    times, before = [], {"train/updates": 0}
    for row in [row for row in rows if "time/frames_per_second" in row]:
        updates, speed = row["train/updates"] - before["train/updates"], row["time/frames_per_second"]
        if before["train/updates"] > 0 and updates > 0 and speed:
            times.append(1e3 * seeds * (row["frame"] - before["frame"]) / speed / updates)
        before = row
    return float(np.median(times)) if times else np.nan
