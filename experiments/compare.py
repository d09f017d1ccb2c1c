"""Methods side by side: `python -m experiments.compare --config=configs/continual.py` trains each and makes a table.

`--method` names them, once for each, with settings of `config.plasticity` behind commas: `--method=ne,revive=bias`.
The default are all. Every method is a run of its own with the config's seeds, so the same command again goes on where
it stopped. Table and figure go to `{results_dir}/{exp_id}_{env.name}_methods`.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import jax
import matplotlib
import numpy as np
from absl import app, flags
from jaxtyping import Float
from matplotlib.figure import Figure
from ml_collections import ConfigDict, config_flags

from experiments.methods import METHODS
from experiments.presets import apply_preset
from experiments.results import Folder, versions
from experiments.run import CONFIG, CURABLE, parse, run
from experiments.setup import setup
from experiments.stats import bootstrap_ci, iqm
from experiments.writers import read_metrics

_METHODS = flags.DEFINE_multi_string("method", ["none", *METHODS], "One of them, `NAME` or `NAME,KEY=VALUE`.")

LAST = 0.2
"""The share of a run, at its end, whose evaluations make the final return."""
COLUMNS = {
    "final return": "mean return of the evaluations in the last fifth of the run",
    "mean return": "the same over all evaluations but the first",
    "forgetting": "at the end, see docs/method.md",
    "recovery": "frames, mean over the phases in which a task had been seen before and was regained",
    "dormant": "dormant ratio at the end, tau 0",
    "FAU": "fraction of active units at the end",
    "density": "mask density at the end",
    "ms": "milliseconds per update of all seeds, the steps of the environments included, median",
}


class Entry(NamedTuple):
    """One line of the table: its label, and one value per seed for each column that was measured."""

    label: str
    values: dict[str, Float[np.ndarray, " seeds"]]


def configs_of(config: ConfigDict, methods: Sequence[str]) -> dict[str, ConfigDict]:
    """The config of each method's run, by its label.

    Raises:
        ValueError: a method is named twice, or a setting is none of `config.plasticity`.
    """
    found: dict[str, ConfigDict] = {}
    for label in methods:
        if label in found:
            raise ValueError(f"--method={label} comes twice; once is enough")
        each = config.copy_and_resolve_references()
        each.plasticity.method, *settings = label.split(",")
        for setting in settings:
            key, equals, value = setting.partition("=")
            if not equals or key not in each.plasticity:
                raise ValueError(f"--method={label}: {setting!r} must be KEY=VALUE, with a key of config.plasticity")
            each.plasticity[key] = _value(value)
        each.exp_id = f"{config.exp_id}_{label.replace(',', '_')}"
        found[label] = each
    return found


def _value(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def measure(label: str, config: ConfigDict) -> Entry:
    """What a finished run says, from its `metrics.jsonl`."""
    rows = [read_metrics(Folder(config).seed(seed) / "metrics.jsonl") for seed in config.seeds]
    seeds = [_measure_seed(each, config.total_frames, len(config.seeds)) for each in rows]
    return Entry(label, {column: np.array([each[column] for each in seeds]) for column in COLUMNS})


def _measure_seed(rows: list[dict], total: int, seeds: int) -> dict[str, float]:
    def series(name: str, after: float = 0) -> list[float]:
        return [row[name] for row in rows if row.get(name) is not None and row["frame"] > after]

    def last(name: str) -> float:
        return (series(name) or [np.nan])[-1]

    def mean(values: list[float]) -> float:
        return float(np.mean(values)) if values else np.nan

    return {
        "final return": mean(series("eval/return", (1 - LAST) * total)),
        "mean return": mean(series("eval/return")),
        "forgetting": last("continual/forgetting"),
        "recovery": mean(_recoveries(rows)),
        "dormant": last("plasticity/dormant_ratio"),
        "FAU": last("plasticity/fau"),
        "density": last("plasticity/density"),
        "ms": _milliseconds(rows, seeds),
    }


def _recoveries(rows: list[dict]) -> list[float]:
    """Frames to recovery of each phase that had one: the newest value before the task changes."""
    found, task, value = [], None, None
    for row in [row for row in rows if "continual/task" in row] + [{"continual/task": None}]:
        if row["continual/task"] != task:
            found += [value] if value is not None else []
            task, value = row["continual/task"], None
        value = row.get("continual/recovery_frames", value)
    return found


def _milliseconds(rows: list[dict], seeds: int) -> float:
    """Of one update of all seeds, between the log points after which updates were made."""
    times = []
    logged = [row for row in rows if row.get("time/frames_per_second")]
    for before, after in pairwise(logged):
        updates = after["train/updates"] - before["train/updates"]
        if before["train/updates"] > 0 and updates > 0:
            seconds = seeds * (after["frame"] - before["frame"]) / after["time/frames_per_second"]
            times.append(1e3 * seconds / updates)
    return float(np.median(times)) if times else np.nan


def interval(values: Float[np.ndarray, " seeds"]) -> tuple[float, float, float]:
    """Interquartile mean over seeds and its 95 % bootstrap interval; NaN where a seed has no value."""
    if not np.isfinite(values).all():
        return np.nan, np.nan, np.nan
    return float(iqm(values)), *bootstrap_ci(values)


def table(entries: Sequence[Entry], config: ConfigDict) -> str:
    """Markdown: the interquartile mean of each column over the seeds, and in brackets its 95 % interval."""
    columns = [name for name in COLUMNS if any(np.isfinite(entry.values[name]).any() for entry in entries)]
    lines = [["method", *columns], ["---"] * (len(columns) + 1)]
    for entry in entries:
        lines.append([f"`{entry.label}`", *(_cell(name, entry.values[name]) for name in columns)])
    where = versions(config)
    notes = [
        f"{config.env.name}, {config.total_frames:,} frames, seeds {', '.join(map(str, config.seeds))}; "
        f"{where['device']}, jax {where['jax']}, commit {where['commit']}.",
        "Interquartile mean over seeds [95 % bootstrap interval]; density and ms without one.",
        *(f"{name}: {COLUMNS[name]}." for name in columns),
    ]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", *notes]) + "\n"


def _cell(name: str, values: Float[np.ndarray, " seeds"]) -> str:
    digits = {"dormant": 3, "FAU": 3, "density": 3, "ms": 2}.get(name, 0)
    middle, low, high = interval(values)
    if middle != middle:
        return ""
    alone = f"{middle:,.{digits}f}"
    return alone if name in ("density", "ms") else f"{alone} [{low:,.{digits}f}, {high:,.{digits}f}]"


def draw(entries: Sequence[Entry], path: Path) -> None:
    """Final return, mean return and dormant ratio of each method with their intervals."""
    matplotlib.use("Agg")
    names = ("final return", "mean return", "dormant")
    figure = Figure(figsize=(13, 1.2 + 0.32 * len(entries)), layout="constrained")
    heights = range(len(entries))[::-1]
    for i, (axes, name) in enumerate(zip(figure.subplots(1, len(names), sharey=True), names, strict=True)):
        for height, entry in zip(heights, entries, strict=True):
            middle, low, high = interval(entry.values[name])
            axes.plot([low, high], [height, height], color="C0", linewidth=2, alpha=0.5)
            axes.plot(middle, height, "o", color="C0")
            axes.plot(entry.values[name], [height] * len(entry.values[name]), "|", color="black", markersize=6)
        axes.set(xlabel=f"{name}: IQM, 95 % interval, each seed")
        axes.grid(alpha=0.3)
        if i == 0:
            axes.set_yticks(list(heights), [entry.label for entry in entries])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def compare(config: ConfigDict, methods: Sequence[str]) -> int:
    """Check all, train what is not trained yet, write table and figure; 0, or the exit status of a run that failed."""
    try:
        configs = configs_of(config, methods)
        for each in configs.values():
            setup(each.copy_and_resolve_references()).close()  # all settings, before the first of them trains
    except CURABLE as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for label, each in configs.items():
        print(f"\n{label}")
        status = run(each)
        jax.clear_caches()
        if status:
            return status
    entries = [measure(label, each) for label, each in configs.items()]
    root = Path(config.results_dir) / f"{config.exp_id}_{config.env.name}_methods"
    draw(entries, root / "methods.png")
    text = table(entries, config)
    (root / "table.md").write_text(text)
    print(f"\n{text}\ntable and figure in {root}")
    return 0


def main(argv: list[str]) -> int:
    """Compare the methods of the command line."""
    if len(argv) > 1:
        print(f"error: what is {argv[1]!r}? Settings begin with --config, methods with --method.", file=sys.stderr)
        return 2
    try:
        apply_preset(CONFIG.value, config_flags.get_override_values(flags.FLAGS["config"]))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return compare(CONFIG.value, _METHODS.value)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=parse)
