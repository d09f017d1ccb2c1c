"""Methods side by side: `python -m experiments.compare --config=configs/continual.py` trains each and makes a table.

`--method` names them, once for each, with settings of `config.plasticity` behind commas: `--method=ne,revive=bias`. The
default are all. Every method is a run of its own with the config's seeds, so the same command again goes on where it
stopped. Table and figure of the methods named go to `{results_dir}/{exp_id}_{env.name}_methods`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import app, flags
from jaxtyping import Float
from matplotlib.figure import Figure
from ml_collections import ConfigDict, config_flags

from experiments.build.checks import validate
from experiments.build.errors import CURABLE, is_told
from experiments.build.experiment import make_schedule, setup
from experiments.build.methods import METHODS
from experiments.build.presets import apply_preset
from experiments.build.tasks import make_tasks
from experiments.record.folder import Folder, check_config, check_folder
from experiments.record.metrics_files import read_metrics
from experiments.record.statistics import FINAL_SHARE, bootstrap_ci, iqm
from experiments.run import QUIET, command, parse, run

_ALL = ["none", *(name for name in METHODS if name != "normalise_and_project")]
"""That one wants `agent.layer_norm`, which would hold for all."""
_METHODS = flags.DEFINE_multi_string("method", _ALL, "One of them, `NAME` or `NAME,KEY=VALUE`.")
Values = Float[np.ndarray, " seeds"]


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
            "mean over the evaluations in the last fifth of the run", lambda rows, key=key: _mean(rows, key, late)
        )
    for name, key in returns.items():
        found[f"mean return{name}"] = Column(
            "mean over all evaluations but the first", lambda rows, key=key: _mean(rows, key)
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
            "milliseconds per update of all seeds together, with the steps of the environments, median over log points",
            lambda rows: _milliseconds(rows, len(config.seeds)),
            False,
        ),
    }


def _series(rows: list[dict], key: str, after: float = 0) -> list[float]:
    found = [row[key] for row in rows if key in row and row["frame"] > after]
    return [np.nan if value is None else value for value in found]


def _mean(rows: list[dict], key: str, after: float = 0) -> float:
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


def configs_of(config: ConfigDict, methods: Sequence[str], given: Mapping[str, Any]) -> dict[str, ConfigDict]:
    """The config of each method's run, by its label.

    Args:
        given: the keys that the command line sets for all of them, dotted, with their values.

    Raises:
        ValueError: a method comes twice, or the sentence says which setting cannot be.
    """
    for network in ("actor", "critic"):
        if config.plasticity[network].method is not None:
            raise ValueError(f"plasticity.{network}.method holds for every line of the table; leave it unset")
    found: dict[str, ConfigDict] = {}
    for label in methods:
        if label in found:
            raise ValueError(f"--method={label} comes twice; once is enough")
        each = config.copy_and_resolve_references()
        method, *settings = label.split(",")
        own = {"method": method} | dict(_setting(config, label, each) for each in settings)
        each.plasticity.update(own)
        if "preset" in own:
            apply_preset(each, {**given, **{f"plasticity.{key}": value for key, value in own.items()}})
        each.exp_id = f"{config.exp_id}_{label.replace(',', '_')}"
        found[label] = each
    return found


def _setting(config: ConfigDict, label: str, setting: str) -> tuple[str, Any]:
    key, _, text = setting.partition("=")
    old = config.plasticity.get(key)
    if key == "method" or not isinstance(old, int | float | str) or not text:
        raise ValueError(f"--method={label}: {key}={text} must be KEY=VALUE, with a key of config.plasticity")
    try:
        return key, type(old)(text)
    except ValueError as error:
        raise ValueError(f"--method={label}: {key} must be a number like {old}, not {text!r}") from error


def interval(values: Values) -> tuple[float, float, float]:
    """Interquartile mean over seeds and its 95 % bootstrap interval, which needs three seeds, all with a value."""
    middle = float(iqm(values))
    if len(values) < 3 or not np.isfinite(values).all():
        return middle, np.nan, np.nan
    return middle, *bootstrap_ci(values)


def table(results: dict[str, dict[str, Values]], columns: dict[str, Column], notes: Sequence[str]) -> str:
    """Markdown: each method's interquartile mean over the seeds, in brackets its 95 % interval; `notes` below."""
    names = [name for name in columns if any(np.isfinite(values[name]).any() for values in results.values())]
    lines = [["method", *names], ["---"] * (len(names) + 1)]
    lines += [
        [f"`{label}`", *(_cell(v[name], columns[name].interval) for name in names)] for label, v in results.items()
    ]
    meanings = [f"{name}: {columns[name].meaning}" for name in names]
    return "\n".join(
        [*(f"| {' | '.join(line)} |" for line in lines), "", *(f"- {n}." for n in (*notes, *meanings)), ""]
    )


def _cell(values: Values, with_interval: bool) -> str:
    missing = int((~np.isfinite(values)).sum())
    if missing:
        return f"no number in {missing} of {len(values)} seeds"
    middle, low, high = interval(values)
    size = np.nanmax(np.abs([middle, low, high]))
    digits = int(np.clip(3 - np.floor(np.log10(size)), 0, 3)) if size > 0 else 0
    alone = f"{middle:,.{digits}f}"
    return f"{alone} [{low:,.{digits}f}, {high:,.{digits}f}]" if with_interval and low == low else alone


def draw(results: dict[str, dict[str, Values]], path: Path) -> None:
    """Returns and dormant ratio of each method: every seed, the interquartile mean and its interval."""
    names = [name for name in next(iter(results.values())) if name.startswith(("final", "mean")) or name == "dormant"]
    figure = Figure(figsize=(1.5 + 3.9 * len(names), 1.2 + 0.32 * len(results)), layout="constrained")
    heights = range(len(results))[::-1]
    for name, axes in zip(names, figure.subplots(1, len(names), sharey=True, squeeze=False)[0], strict=True):
        for height, values in zip(heights, results.values(), strict=True):
            middle, low, high = interval(values[name])
            axes.plot([low, high], [height, height], color="C0", linewidth=2, alpha=0.5)
            axes.plot(middle, height, "o", color="C0")
            axes.plot(values[name], [height] * len(values[name]), "|", color="black", markersize=6)
        axes.set(xlabel=name, yticks=list(heights), yticklabels=list(results))
        axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def compare(config: ConfigDict, methods: Sequence[str], given: Mapping[str, Any], quiet: bool = False) -> int:
    """Check all, train what is not trained yet, write table and figure; 0, or the exit status of a run that failed.

    A run that fails does not keep the others from training, nor from the table, of which it is left out.
    """
    validate(config)
    configs, columns = configs_of(config, methods, given), columns_of(config)
    for label, each in configs.items():
        try:
            check = check_config if _is_trained(each) else check_folder  # which may have been by several processes
            check(Folder(each), each.copy_and_resolve_references())
            setup(each.copy_and_resolve_references()).close()
        except CURABLE as error:
            if not is_told(error):
                raise
            raise ValueError(f"--method={label}: {error}") from error
    failed = 0
    for label, each in configs.items():
        if _is_trained(each):
            continue
        print(f"\n{label}")
        status = run(each, quiet)
        jax.clear_caches()
        if status == 130:
            return status
        failed = failed or status
    trained = {label: each for label, each in configs.items() if _is_trained(each)}
    if len(trained) < len(configs):
        missing = ", ".join(label for label in configs if label not in trained)
        print(f"not trained to the end, so not in the table: {missing}", file=sys.stderr)
    if not trained:
        return failed
    rows = {label: _rows(each) for label, each in trained.items()}
    results = {
        label: {name: np.array([column.read(each) for each in seeds]) for name, column in columns.items()}
        for label, seeds in rows.items()
    }
    root = Path(config.results_dir) / f"{config.exp_id}_{config.env.name}_methods"
    draw(results, root / "methods.png")
    text = table(results, columns, _notes(config, list(trained.values())))
    (root / "table.md").write_text(text)
    print(f"\n{text}\ntable and figure in {root}")
    return failed


def _is_trained(config: ConfigDict) -> bool:
    return Folder(config).is_trained(make_schedule(config).total)


def _rows(config: ConfigDict) -> list[list[dict]]:
    return [read_metrics(Folder(config).seed(seed) / "metrics.jsonl") for seed in config.seeds]


def _notes(config: ConfigDict, configs: Sequence[ConfigDict]) -> list[str]:
    """What the runs were made with, as they say themselves."""
    made = [versions for each in configs for versions in Folder(each).all_versions()]
    made = [first | changed for first in made for changed in [{}, *first.get("resumed", [])]]
    found = {key: dict.fromkeys(str(each.get(key, "unknown")) for each in made) for key in ("device", "jax", "commit")}
    where = ", ".join(f"{key} {' or '.join(values)}" for key, values in found.items())
    seeds = len(config.seeds)
    return [
        f"{config.env.name}, {config.total_frames:,} frames, seeds {', '.join(map(str, config.seeds))}; {where}",
        f"interquartile mean over {seeds} seeds [95 % percentile bootstrap interval; with five seeds it is too narrow, "
        "and covers about 90 % for normal values]",
    ]


def main(argv: list[str]) -> int:
    """Compare the methods of the command line; the exit status."""
    return command(argv, _of_command_line)


def _of_command_line(config: ConfigDict) -> int:
    from experiments.build.lanes import refuse_lanes

    refuse_lanes(config, "experiments.compare")
    given = config_flags.get_override_values(flags.FLAGS["config"])
    for key in {"plasticity.method", "plasticity.preset"} & set(given):
        raise ValueError(f"{key} is set for each method: --method=NAME, or --method=ne,preset=released")
    return compare(config, _METHODS.value, given, QUIET.value)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=parse)
