"""Streams that train nothing: their rows are a formula, so that whatever is made of them can be worked out by hand."""

import os
import time
from functools import partial

import numpy as np

from experiments.streams.types import Stream, TaskRow

TASKS, LATE = 5, 3
FINAL = {"fresh": 1.0, "random": 0.0, "dense": 0.2}


def row(stream, method, seed, task, auc, **measures):
    return TaskRow(stream, method, seed, task, auc, auc + 0.01, measures)


def performance(name, seed, task):
    """Falls from 1 in the first task to what is known of the arm, evenly; seeds differ by 0.01."""
    final = FINAL.get(name, 0.8)
    start = final if name == "random" else 1.0
    return start + (final - start) * (task - 1) / (TASKS - 1) + 0.01 * seed


def rows_of(stream, name, seeds):
    return [
        row(stream, name, seed, task, performance(name, seed, task), dormant=0.1, capacity=0.5)
        for seed in seeds
        for task in range(1, TASKS + 1)
    ]


def run(name, trouble, arm, seeds, folder, progress):
    """Leaves a line in `calls` each time; `trouble` says what some arms do in place of ending."""
    print(f"training {arm.name}")
    with (folder / "calls").open("a") as file:
        file.write(f"{os.getpid()}\n")
    progress(0.5)
    what = trouble.get(arm.name)
    if what == "fails":
        raise RuntimeError("the loss is not finite")
    if what == "dies":
        os._exit(3)
    if what == "waits once" and not (folder / "saved").exists():
        try:
            time.sleep(60)
        finally:
            (folder / "saved").touch()
    if what == "no rows":
        return []
    return rows_of(name, arm.name, seeds)


def protocol(version, arm):
    return {"version": version} | arm.overrides


def fake(name="fake", version=1, **trouble):
    return Stream(
        name, TASKS, LATE, "made up, no unit", partial(run, name, trouble), partial(protocol, version), seconds=1.0
    )


def noisy(final, seeds=10, scatter=0.05, seed=0):
    """Values of ten seeds for each arm, around what is given."""
    rng = np.random.default_rng(seed)
    return {name: middle + scatter * rng.normal(size=seeds) for name, middle in final.items()}
