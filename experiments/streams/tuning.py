"""The same small budget of settings for every method: its defaults, and two lists of others.

`candidates.json` beside this file holds those others, {method: [{key: value}, ...]}, the same for every stream. Those
of rivals were written down before any of them was run; those of `lifelong_ne` come from the work on it.
`python -m experiments.plasticity --tune` trains all of them on the seeds that it is given, and the best of each method,
by its performance over the late tasks, becomes DIR/settings.json. What is committed as `settings.json` beside this file
is what all later comparisons use.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.streams.arms import arms_of
from experiments.streams.measures import interval, late_means
from experiments.streams.tables import Compared
from experiments.streams.types import Arm, Stream

CANDIDATES = Path(__file__).parent / "candidates.json"


def read_candidates() -> dict[str, list[dict[str, Any]]]:
    """What is tried of each method beside its defaults."""
    return json.loads(CANDIDATES.read_text())


def candidate_arms(stream: Stream, methods: Sequence[str]) -> list[Arm]:
    """The references, and each method with its defaults and with each of its candidates.

    Raises:
        ValueError: a method has settings of its own on the command line, or no candidates.
    """
    candidates, labels = read_candidates(), []
    for method in methods or candidates:
        if method not in candidates:
            raise ValueError(f"--tune takes methods by name, one of {', '.join(candidates)}; got {method!r}")
        labels += [method, *(_label(method, settings) for settings in candidates[method])]
    return arms_of(stream, labels, tuned={})


def _label(method: str, settings: dict[str, Any]) -> str:
    """As the command line would say it."""
    return ",".join([method, *(f"{key}={value}" for key, value in settings.items())])


def best_settings(compared: Compared) -> dict[str, dict[str, Any]]:
    """{method: its best settings} by the interquartile mean over seeds; methods that are best as they are, are left
    out, and so are arms with a seed that has no finite performance."""
    performance, candidates = late_means(compared.rows, compared.stream.late), read_candidates()
    best: dict[str, tuple[float, dict[str, Any]]] = {}
    for name, arm in compared.arms.items():
        method, value = name.partition(",")[0], interval(performance[name]).value
        if method not in candidates or np.isnan(value):  # references, and what else lies there
            continue
        if method not in best or value > best[method][0]:
            own = {key.removeprefix("plasticity."): each for key, each in arm.arm.overrides.items()}
            best[method] = (value, {key: each for key, each in own.items() if key != "method"})
    return {method: settings for method, (_, settings) in best.items() if settings}
