"""What a stream of tasks, a line of the comparison, and a measured task are. Importing this imports no jax."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

FRESH, RANDOM, DENSE = "fresh", "random", "dense"
REFERENCES = (FRESH, RANDOM, DENSE)
"""Arms that every comparison has: new networks and optimisers at each task, a random policy, and no method at all."""

MEASURES = {
    "dormant": "share of hidden units whose mean activation is at most a tenth of their layer's mean (ReDo's tau 0.1)",
    "fau": "fraction of active units",
    "density": "share of the sparse layers' weights that exist",
    "effective_rank": "of the last hidden layer's activations, mean over networks",
    "weight_norm": "L2 norm of all parameters",
    "dead": "share of hidden units that no input of the batch activates (tau 0)",
    "capacity": "the probe of Lyle et al. 2023: 1 fits random targets as a fresh network does, 0 as a constant does",
    "feature_norm": "mean L2 norm of the last hidden layer's activations, mean over networks",
    "gradient_norm": "L2 norm of the loss's gradient",
    "saturation": "share of |action| > 0.97 among the greedy actions on a batch",
    "q": "mean action value where the newest episodes began",
    "mc_return": "discounted return that followed, in the same scale",
}
"""What a stream may measure of the networks at the end of a task; those by layer or network have its path behind."""
FIRST_MEASURES = ("dormant", "fau", "density", "effective_rank", "weight_norm")
"""Those that every table has, in this order."""


class Arm(NamedTuple):
    """A line of the comparison."""

    name: str
    """`redo`, or `redo,redo.tau=0.2` where the command line says so; or one of `REFERENCES`."""
    overrides: dict[str, Any]
    """Config keys, dotted, such as `plasticity.method`, with their values. A reference has none: its name says it."""


class TaskRow(NamedTuple):
    """One seed on one task."""

    stream: str
    method: str
    """The arm's name."""
    seed: int
    task: int
    """Counted from 1."""
    auc: float
    """Mean performance over the task, which is the area under the learning curve over the task's length."""
    end: float
    """Mean performance in the last fifth of the task."""
    measures: dict[str, float]
    """Of the networks as the task ends, by the names of `MEASURES`."""


Progress = Callable[[float], None]
"""Called with the share of an arm that is done, in [0, 1], as often as is convenient."""


class Run(Protocol):
    """Trains an arm on all tasks of a stream, all seeds side by side: a row for each seed and task."""

    def __call__(self, arm: Arm, seeds: Sequence[int], folder: Path, progress: Progress) -> list[TaskRow]: ...


class Stream(NamedTuple):
    """Tasks that come one after the other. Its functions are picklable: at top level, or `partial`s of such.

    run(arm, seeds, folder, progress): the rows. `folder` is this arm's own, and keeps what an interrupted run needs to
        go on. KeyboardInterrupt goes through it.
    protocol(arm): all that decides the rows of an arm but the seeds, as plain JSON values; dotted keys read best.
        ValueError where the arm cannot be. Rows that were computed under another protocol are refused.
    """

    name: str
    tasks: int
    late: int
    """The first of the late tasks, counted from 1, over which arms are compared."""
    performance: str
    """What `auc` and `end` are, with the unit: the label of an axis."""
    run: Run
    protocol: Callable[[Arm], dict[str, Any]]
    seconds: float
    """An arm with ten seeds on two cores takes about so long: the first guess of the time that is left."""
    settings: str = ""
    """The stream whose tuned settings it takes; empty: its own."""
