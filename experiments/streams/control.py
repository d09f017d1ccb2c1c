"""Streams of control tasks: an arm is a run of `experiments.run` with a config of tasks behind other labels.

The run lies in the arm's folder and goes on by itself where it was interrupted. Its `metrics.jsonl` has all that is
read: the training return at each log point, and what was measured of the networks where a task ends.
"""

from __future__ import annotations

import importlib
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.record.metrics_files import read_metrics
from experiments.streams.types import FRESH, RANDOM, REFERENCES, Arm, Progress, Stream, TaskRow

END = 0.2
"""The share of a task, at its end, whose log points make `end`."""
RETURN = "train/return"
OF_THE_RUN = ("seeds", "exp_id")
"""Keys that do not decide the rows, beside those that a resumed run may change."""


class Tasks(NamedTuple):
    """Where the tasks of a stream come from."""

    config: str
    """A file of `configs/` with its variant behind a colon, such as `relabelled:pixels`."""
    changes: tuple[tuple[str, Any], ...] = ()
    """Further keys, dotted, with their values."""


def control_stream(
    name: str, tasks: Tasks, *, count: int, late: int, performance: str, seconds: float, settings: str = ""
) -> Stream:
    """A stream of `count` tasks, those of the config; see `Stream` for the others."""
    return Stream(
        name, count, late, performance, partial(run, name, tasks), partial(protocol, tasks), seconds, settings
    )


def run(name: str, tasks: Tasks, arm: Arm, seeds: Sequence[int], folder: Path, progress: Progress) -> list[TaskRow]:
    """Train an arm, or go on with it, and read its rows.

    Raises:
        KeyboardInterrupt: it was asked to stop, and is saved.
        RuntimeError: the run ended for another reason, which it has printed.
    """
    from experiments import run as program  # which takes seconds
    from experiments.record.folder import Folder

    config = config_of(tasks, arm)
    config.seeds, config.results_dir = tuple(seeds), str(folder)
    where, total, every = Folder(config), config.total_frames, config.env.relabel.every
    with _watched(where.seed(seeds[0]) / "metrics.jsonl", total, progress):
        status = program.run(config)
    if status == 130:
        raise KeyboardInterrupt
    if status:
        raise RuntimeError(f"the run ended with status {status}")
    metrics = {seed: read_metrics(where.seed(seed) / "metrics.jsonl") for seed in seeds}
    return [
        row
        for seed, found in metrics.items()
        for row in task_rows(found, every, total, TaskRow(name, arm.name, seed, 0, 0, 0, {}))
    ]


def protocol(tasks: Tasks, arm: Arm) -> dict[str, Any]:
    """All keys of the arm's config that decide what is computed.

    Raises:
        ValueError: the arm cannot be.
    """
    from experiments.build.checks import flatten, validate
    from experiments.build.methods import METHODS, method_names
    from experiments.build.tasks import make_tasks
    from experiments.record.folder import compared, resolved

    config = config_of(tasks, arm)
    validate(config)
    make_tasks(config)
    own = method_names(config.plasticity)
    # Settings of methods that do not take part: with them, whoever adds a method would have to train all others anew.
    groups = [f"plasticity.{method}." for method in METHODS if method not in own] if own else ["plasticity."]
    flat = flatten(resolved(config))
    return {k: v for k, v in flat.items() if compared(k) and k not in OF_THE_RUN and not k.startswith(tuple(groups))}


def config_of(tasks: Tasks, arm: Arm) -> Any:
    """The config of an arm's run, but for seeds and folder."""
    from experiments.build.presets import apply_preset

    file, _, variant = tasks.config.partition(":")
    config = importlib.import_module(f"configs.{file}").get_config(variant)
    config.plasticity.method = "none"
    changes: dict[str, Any] = {"capacity_probe": True, **dict(tasks.changes)}
    if arm.name == FRESH:
        changes["fresh_on_switch"] = True
    if arm.name == RANDOM:
        changes |= {"updates_per_step": 0.0, "agent.random_steps": config.total_frames}
    if arm.name not in REFERENCES:
        changes |= arm.overrides
    config.update_from_flattened_dict(changes)
    apply_preset(config, changes)
    return config


@contextmanager
def _watched(path: Path, total: int, progress: Progress) -> Iterator[None]:
    """Tell every two seconds how far a run's metrics are."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(2):
            rows = read_metrics(path)
            if rows:
                progress(rows[-1]["frame"] / total)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def task_rows(metrics: Sequence[dict[str, Any]], every: int, total: int, like: TaskRow) -> Iterator[TaskRow]:
    """A row for each task of `every` frames, from what one seed has logged in `total` frames.

    What is logged at a switch belongs to the task that ends there. Log points without an episode's end have no return.
    """
    for task in range(1, -(-total // every) + 1):
        begin, end = (task - 1) * every, min(task * every, total)
        own = [row for row in metrics if begin < row["frame"] <= end]
        late = [row for row in own if row["frame"] > end - END * (end - begin)]
        measured = [row for row in own if any(key.startswith("plasticity/") for key in row)]
        yield like._replace(
            task=task, auc=_mean(own), end=_mean(late), measures=measures_of(measured[-1]) if measured else {}
        )


def _mean(rows: Sequence[dict[str, Any]]) -> float:
    values = [row[RETURN] for row in rows if row.get(RETURN) is not None]
    return float(np.mean(values)) if values else math.nan


NAMES = {
    "dormant": "dormant_ratio_0.1",
    "dead": "dormant_ratio",
    "fau": "fau",
    "density": "density",
    "saturation": "saturation",
    "q": "q_start",
    "mc_return": "return_start",
}
"""Measures that the log has for all networks together, by their names there."""
BY_LAYER = ("dormant", "dead")
"""Those of them that are kept layer by layer, too."""
MEANS = ("effective_rank", "feature_norm", "capacity")
"""Measures of each network, and their mean over the networks."""
NORMS = ("weight_norm", "gradient_norm")
"""Norms of each network, and that of all networks as one vector."""


def measures_of(row: Mapping[str, Any]) -> dict[str, float]:
    """What `MEASURES` names, from a row of `metrics.jsonl`; what is not a number is left out."""
    logged = {key.removeprefix("plasticity/"): each for key, each in row.items() if key.startswith("plasticity/")}
    logged = {key: value for key, value in logged.items() if value is not None}
    found: dict[str, float] = {}
    for name, key in NAMES.items():
        if key in logged:
            found[name] = logged[key]
        if name in BY_LAYER:
            found |= {f"{name}/{path}": value for path, value in _by_path(logged, key).items()}
    for name in (*MEANS, *NORMS):
        parts = _by_path(logged, name)
        if parts:
            values = list(parts.values())
            found[name] = float(np.mean(values) if name in MEANS else np.linalg.norm(values))
            found |= {f"{name}/{path}": value for path, value in parts.items()}
    return found


def _by_path(logged: Mapping[str, float], name: str) -> dict[str, float]:
    return {key.removeprefix(f"{name}/"): value for key, value in logged.items() if key.startswith(f"{name}/")}
