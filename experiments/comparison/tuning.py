"""Tuning before a comparison: successive halving on development seeds, its runs, and the protocol that it leaves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from experiments.build.run_names import Overrides
from experiments.build.tasks import make_tasks
from experiments.comparison.candidates import draw_candidates, grids_of, read_dev_seeds
from experiments.comparison.columns import mean_of
from experiments.comparison.halving import ETA, Rung, best, cost, rungs_of, within
from experiments.launch import program
from experiments.launch.engine import Result
from experiments.launch.overrides import with_own
from experiments.launch.plan import Asked, Planned
from experiments.record.metrics_files import read_json, read_metrics, write_json
from experiments.record.statistics import FINAL_SHARE, iqm

SCORES = {
    False: "interquartile mean over seeds of the mean return of the evaluations in the last fifth of the frames so far",
    True: "interquartile mean over seeds of the mean return of all evaluations so far but the first: tasks take turns",
}

Train = Callable[[Sequence[Planned]], Result]


class Tuning(NamedTuple):
    """What is tried of each method, and how far."""

    candidates: dict[str, dict[str, Overrides]]
    """By method and name."""
    sizes: dict[str, int]
    """Of all the settings that they are, or were drawn from."""
    rungs: list[Rung]
    dev_seeds: tuple[int, ...]
    seeds: tuple[int, ...]
    """Those of the table."""
    in_turns: bool
    """Whether tasks take turns."""
    step_frames: int
    """Frames of a step of the loop."""


def make_tuning(
    config: ConfigDict,
    methods: Mapping[str, Overrides],
    tune: Sequence[str],
    dev_seeds: Sequence[str],
    budget: float | None,
) -> Tuning:
    """Check what was asked for.

    Args:
        budget: what tuning a method may cost, in whole runs with all development seeds; None: whatever all settings do.

    Raises:
        ValueError: the sentence says what cannot be, and the cure.
    """
    if not config.eval.every:
        raise ValueError("--tune chooses by greedy evaluations, and eval.every=0 has none; set --config.eval.every")
    grids, step = grids_of(methods, tune), config.env.action_repeat * config.env.num_envs
    every, total = max(1, round(config.eval.every / step)), config.total_frames // step
    most = min(len(grid) for grid in grids.values())
    count = within(budget * total, most, total, every) if budget is not None else most
    rungs = [Rung(each.candidates, each.frames * step) for each in rungs_of(count, total, every)]
    if rungs[0].frames <= config.seed_frames:
        raise ValueError(
            f"{count} candidates are first compared at frame {rungs[0].frames}, before any has learned with "
            f"seed_frames={config.seed_frames}; lower that, raise total_frames, or try fewer settings"
        )
    seeds = read_dev_seeds(dev_seeds, config)
    in_turns = make_tasks(config) is not None
    sizes = {label: len(grid) for label, grid in grids.items()}
    return Tuning(draw_candidates(grids, count), sizes, rungs, seeds, tuple(config.seeds), in_turns, step)


def asked_for(tuning: Tuning, methods: Mapping[str, Overrides], shared: Sequence[str], root: Path) -> list[Asked]:
    """The runs of all candidates, as whole ones."""
    found = []
    for label, candidates in tuning.candidates.items():
        for name, overrides in candidates.items():
            own = {"results_dir": str(root / "tuning" / as_file(label)), "exp_id": name, "video.every": "0"}
            own |= {"seeds": f"({','.join(map(str, tuning.dev_seeds))},)"} | methods[label] | overrides
            told = " ".join([f"--method={label}", *with_own([], overrides)])
            found.append(Asked(f"{label} {name}", told, overrides, with_own(shared, own)))
    return found


def as_file(label: str) -> str:
    """A method's label as part of a folder's name."""
    return label.replace(",", "_")


def up_to(run: Planned, frames: int, step_frames: int) -> Planned:
    """A run that ends at a frame, cut off its whole course."""
    checkpoint = run.checkpoint.with_name(str(frames // step_frames))
    command = (*run.command, f"--config.stop_at_frame={frames}")
    return run._replace(name=f"{run.name} to {frames:,}", command=command, frames=frames, checkpoint=checkpoint)


def score(run: Planned, frames: int, in_turns: bool) -> tuple[float, list[float]]:
    """How good a candidate is at a frame, whatever came after it: over its seeds, and each of them.

    Evaluations that failed with their environment are left out; those of a seed that diverged are not.
    """
    after = 0.0 if in_turns else (1 - FINAL_SHARE) * frames
    rows = [read_metrics(run.folder / str(seed) / "metrics.jsonl") for seed in run.seeds]
    rows = [[row for row in of_seed if row["frame"] <= frames and not _failed(row)] for of_seed in rows]
    each = [mean_of(of_seed, "eval/return", after) for of_seed in rows]
    return float(iqm(np.array(each))), each


def _failed(row: dict[str, Any]) -> bool:
    return row.get("eval/return", 0) is None and not row.get("train/diverged")


class Protocol:
    """What was tried, on what, how it came out, and what was chosen: `protocol.json`, written anew after each round.

    Args:
        path: of the file. One that is there is gone on with.

    Raises:
        ValueError: it says something else of how methods are tuned, or of one of these methods.
    """

    def __init__(self, path: Path, tuning: Tuning, total: int) -> None:
        self.path = path
        per_method = cost(tuning.rungs) * len(tuning.dev_seeds)
        self.common: dict[str, Any] = {
            "algorithm": f"successive halving, eta={ETA}",
            "score": SCORES[tuning.in_turns],
            "total_frames": total,
            "dev_seeds": list(tuning.dev_seeds),
            "held_out_seeds": list(tuning.seeds),
            "rungs": [rung._asdict() for rung in tuning.rungs],
            "frames_per_method": per_method,
            "runs_per_method": round(cost(tuning.rungs) / total, 4),
        }
        earlier = read_json(path) if path.exists() else {}
        for key, value in self.common.items():
            self._refuse(key, earlier.get(key, value), value)
        self.methods: dict[str, dict[str, Any]] = earlier.get("methods", {})
        """Those of earlier commands with the same rounds and seeds stay."""
        for label, each in tuning.candidates.items():
            self._refuse(f"candidates of {label}", self.methods.get(label, {}).get("candidates", each), each)
            self.methods[label] = {"settings_to_draw_from": tuning.sizes[label], "candidates": each}

    def _refuse(self, key: str, there: Any, now: Any) -> None:
        if there != now:
            raise ValueError(
                f"{self.path} is of another tuning ({key}: {there} there, {now} now); give --config.exp_id another name"
            )

    def write(self, **more: Any) -> None:
        """Write the file, with what is known beside."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, self.common | {"methods": self.methods} | more)


def halve(tuning: Tuning, runs: Mapping[str, Mapping[str, Planned]], train: Train, protocol: Protocol) -> int:
    """Train and compare, round by round; 0 once a setting is chosen for each method, else the exit status.

    Args:
        runs: whole ones, by method and candidate.

    Raises:
        ValueError: no setting of a method has a finite score.
    """
    left = {label: list(of_method) for label, of_method in runs.items()}
    for label in runs:
        protocol.methods[label]["rounds"] = []
    following = [*(rung.candidates for rung in tuning.rungs[1:]), 1]
    for rung, count in zip(tuning.rungs, following, strict=True):
        here = {
            label: {name: up_to(runs[label][name], rung.frames, tuning.step_frames) for name in names}
            for label, names in left.items()
        }
        every = [run for of_method in here.values() for run in of_method.values()]
        result = train(every)
        status = program.status(every, result)
        if status:
            return status
        for label, of_method in here.items():
            scores = {name: score(run, rung.frames, tuning.in_turns) for name, run in of_method.items()}
            left[label] = best({name: each for name, (each, _) in scores.items()}, count)
            protocol.methods[label]["rounds"].append(_round(rung, scores, left[label]))
        protocol.write()
        lost = [label for label, names in left.items() if not names]
        if lost:
            raise ValueError(
                f"no setting of --method={lost[0]} has a finite score at frame {rung.frames}; leave the method out, or "
                "give it other settings and --config.exp_id another name"
            )
    for label, (name,) in left.items():
        protocol.methods[label] |= {"chosen": name, "overrides": tuning.candidates[label][name]}
    protocol.write()
    return 0


def _round(rung: Rung, scores: Mapping[str, tuple[float, list[float]]], kept: Sequence[str]) -> dict[str, Any]:
    """What there is to keep of a round; no number is null, as in all our JSON."""
    told = {name: {"score": _finite(each), "seeds": [*map(_finite, seeds)]} for name, (each, seeds) in scores.items()}
    return {"frames": rung.frames, "scores": told, "kept": list(kept)}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
