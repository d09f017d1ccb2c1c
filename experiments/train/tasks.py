"""Tasks that take turns during a run, and what evaluations on all of them say: returns, forgetting, recovery.

The definitions are those of docs/method.md. All functions are pure; the history of evaluations is what `metrics.jsonl`
holds, so that a resumed run goes on with the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

RECOVERED = 0.9
"""Share of what was lost at a switch that must be regained."""


class TaskSequence(NamedTuple):
    """Which task an agent has when. A run is cut into phases; phase `p` begins with the first step at `p * every`."""

    labels: tuple[str, ...]
    """The different tasks."""
    order: tuple[int, ...]
    """The task of each phase, by its place in `labels`; after the last one comes the first again."""
    every: int
    """Frames of a phase."""
    step_frames: int
    """Frames of a step of the loop."""
    last: int
    """The frame of the run's last step. An evaluation after it is one of the last phase."""
    drift: bool
    """Tasks pass into each other; a phase begins where its task is reached."""
    ends_first: bool = False
    """At a switch, what is logged, measured, evaluated and saved comes before it: of the task that ends."""
    all_evaluated: bool = True
    """Evaluations play on every task, not on the current one alone."""

    def phase(self, frame: int) -> int:
        """The phase of a frame, counted from the start of the run."""
        return min(frame, self.last) // self.every

    def of(self, phase: int) -> int:
        """The task of a phase."""
        return self.order[phase % len(self.order)]

    def begins(self, phase: int) -> int:
        """The frame of a phase's first step."""
        return -(-phase * self.every // self.step_frames) * self.step_frames

    def judged(self, frame: int) -> int:
        """A frame of the phase that an evaluation after so many frames is about."""
        return min(max(frame - self.step_frames, 0) if self.ends_first else frame, self.last)

    def next_switch(self, step: int) -> int:
        """The first step of the phase after that of `step`."""
        return self.begins(step * self.step_frames // self.every + 1) // self.step_frames

    def switches(self, step: int) -> bool:
        """Whether a phase begins with this step, and one ends."""
        return 0 < step * self.step_frames <= self.last and self.next_switch(step - 1) == step

    def frame_of(self, task: int) -> int:
        """A frame at which the environment is this task, whether the run gets there or not."""
        return self.order.index(task) * self.every


class Evaluated(NamedTuple):
    """One seed's returns on every task at one frame."""

    frame: int
    returns: tuple[float, ...]


def read_history(rows: Sequence[dict], tasks: TaskSequence) -> list[Evaluated]:
    """The evaluations among the rows of one seed's metrics."""
    columns = [f"eval/return/{label}" for label in tasks.labels]
    found = [row for row in rows if columns[0] in row]
    values = [[row[column] for column in columns] for row in found]
    return [
        Evaluated(row["frame"], tuple(np.nan if value is None else value for value in each))
        for row, each in zip(found, values, strict=True)
    ]


def summarise(histories: Sequence[Sequence[Evaluated]], tasks: TaskSequence) -> dict[str, Float[np.ndarray, " seeds"]]:
    """What is logged of the newest evaluation, one history per seed: the columns `eval/return/...`, `continual/...`."""
    newest = [history[-1] for history in histories]
    values = {f"eval/return/{label}": np.array([e.returns[i] for e in newest]) for i, label in enumerate(tasks.labels)}
    values["continual/task"] = np.array([tasks.of(tasks.phase(e.frame)) for e in newest], float)
    values["continual/forgetting"] = np.array([forgetting(history, tasks) for history in histories])
    if not tasks.drift:
        values["continual/recovery_frames"] = np.array([recovery_frames(history, tasks) for history in histories])
    return values


def forgetting(history: Sequence[Evaluated], tasks: TaskSequence) -> float:
    """Mean over the tasks trained on before, but for the one trained on last, of the best return less the newest one.

    A task's best is taken over the evaluations since it was first trained on. Never negative; NaN in the first phase.
    At a switch the task trained on last is the one that ends there. (Chaudhry et al. 2018, arXiv:1801.10112, with the
    newest evaluation among those that the best is taken over.)
    """
    now = history[-1]
    phase = tasks.phase(max(now.frame - tasks.step_frames, 0))
    earlier = {tasks.of(p) for p in range(min(phase, len(tasks.order)))} - {tasks.of(phase)}
    losses = [_best(history, tasks, task, now.frame) - now.returns[task] for task in earlier]
    return float(np.mean(losses)) if losses else np.nan


def recovery_frames(history: Sequence[Evaluated], tasks: TaskSequence) -> float:
    """Frames from the last switch to the first evaluation at which the current task is as good as it was, nearly.

    That is `low + 0.9 * (best - low)`: `low` is the return in the evaluation at the switch, `best` the greatest one
    since the task was first trained on, up to the switch. So 0 where nothing was lost. NaN until then, and in a phase
    whose task is a new one, which has nothing to recover.
    """
    phase = tasks.phase(history[-1].frame)
    start, task = tasks.begins(phase), tasks.of(phase)
    if task not in {tasks.of(p) for p in range(phase)}:
        return np.nan
    since = [each for each in history if each.frame >= start]
    low = since[0].returns[task]
    enough = low + RECOVERED * (_best(history, tasks, task, start) - low)
    return next((float(each.frame - start) for each in since if each.returns[task] >= enough), np.nan)


def _best(history: Sequence[Evaluated], tasks: TaskSequence, task: int, until: int) -> float:
    """The greatest return on a task after its first phase began, up to a frame."""
    begun = tasks.begins(tasks.order.index(task))
    values = [each.returns[task] for each in history if begun < each.frame <= until]
    return float(np.fmax.reduce(values, dtype=float, initial=np.nan))  # a return that is none does not count
