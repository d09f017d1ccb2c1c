"""How far the runs of a sweep are, read from what they write, and a table of it that is drawn anew all the time."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.live import Live
from rich.table import Table

from experiments.launch.plan import Planned

TAIL = 2**18
"""Bytes at the end of a file of metrics that are read: some hundred rows."""


class State(Enum):
    """Where a run of a sweep stands."""

    RUNNING = "running"
    FAILED = "failed"
    WAITING = "waiting"
    STOPPED = "stopped"
    DONE = "done"


class Progress(NamedTuple):
    """How far a run is."""

    frame: int = 0
    value: float | None = None
    """The newest mean return over seeds: of greedy evaluation if there is any, else of training."""


def progress_of(run: Planned) -> Progress:
    """What the metrics of a run say of it so far."""
    rows = [newest_rows(run.folder / str(seed) / "metrics.jsonl") for seed in run.seeds]
    frame = min((each[-1]["frame"] if each else 0) for each in rows)
    for key in ("eval/return", "train/return"):
        values = [_newest(each, key) for each in rows]
        known = [value for value in values if value is not None]
        if len(known) == len(rows):
            return Progress(frame, sum(known) / len(known))
    return Progress(frame)


def newest_rows(path: Path) -> list[dict]:
    """The last rows of a `metrics.jsonl`; none if there is no file. What a kill cut short is left out."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        begin = max(0, file.seek(0, 2) - TAIL)
        file.seek(begin)
        lines = file.read().splitlines(keepends=True)[1 if begin else 0 :]
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def _newest(rows: list[dict], key: str) -> float | None:
    return next((row[key] for row in reversed(rows) if row.get(key) is not None), None)


class Board:
    """Shows all runs: a live table in a terminal, else a line whenever the state of a run changes.

    Args:
        every: seconds from one look at the metrics to the next.
    """

    def __init__(self, runs: Sequence[Planned], console: Console | None = None, every: float = 5.0) -> None:
        self._runs, self._every = {run.name: run for run in runs}, every
        self._console = console or Console(file=sys.stdout, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._states: dict[str, State] = {}
        self._why: dict[str, str] = {}
        self._progress = {run.name: progress_of(run) for run in runs}
        self._begun: dict[str, tuple[float, int]] = {}
        self._looked = time.monotonic()
        if self._live:
            self._live.start()

    def __call__(self, states: Mapping[str, State], why: Mapping[str, str]) -> None:
        """Show the runs' states, and why those that failed did."""
        now = time.monotonic()
        changed = [name for name, state in states.items() if self._states.get(name) != state]
        look = now - self._looked >= self._every
        for name in states if look else changed:
            if name in changed or states[name] is State.RUNNING:
                self._progress[name] = progress_of(self._runs[name])
            if name in changed and states[name] is State.RUNNING:
                self._begun[name] = (now, self._progress[name].frame)
        self._looked = now if look else self._looked
        first = not self._states
        self._states, self._why = dict(states), dict(why)
        if first and not self._live:
            self._console.print(self._summary())
            changed = [name for name in changed if states[name] is State.RUNNING]
        if self._live and (look or changed):
            self._live.update(self.table(self._console.height - 4), refresh=True)
        elif not self._live:
            for name in changed:
                self._console.print(self._line(name), markup=False, soft_wrap=True)

    def close(self) -> None:
        """The table stays as it was last."""
        if self._live:
            self._live.update(self.table(len(self._states)), refresh=True)
            self._live.stop()

    def table(self, most: int) -> Table:
        """At most so many runs, those that run first, and a line about the others."""
        table = Table(title=self._summary(), title_justify="left", box=None, pad_edge=False)
        for heading in ("run", "state", "frames", "return", "left"):
            table.add_column(heading, justify="left" if heading in ("run", "state") else "right", overflow="fold")
        order = {state: i for i, state in enumerate(State)}
        names = sorted(self._states, key=lambda name: order[self._states[name]])
        for name in names[: max(1, most)]:
            table.add_row(*self._cells(name))
        if len(names) > max(1, most):
            table.add_row(f"and {len(names) - max(1, most)} more", "", "", "", "")
        return table

    def _cells(self, name: str) -> tuple[str, str, str, str, str]:
        run, state, progress = self._runs[name], self._states[name], self._progress[name]
        value = "" if progress.value is None else f"{progress.value:,.4g}"
        left = self._left(name) if state is State.RUNNING else None
        frames = f"{progress.frame:,} / {run.frames:,}"
        return name, state.value, frames, value, "" if left is None else in_words(left)

    def _line(self, name: str) -> str:
        _, state, frames, value, _ = self._cells(name)
        count = Counter(self._states.values())[State.DONE]
        text = f"{time.strftime('%H:%M:%S')} {name}: {state}, {frames} frames" + (f", return {value}" if value else "")
        if name in self._why and self._states[name] in (State.FAILED, State.WAITING):
            text += f" ({self._why[name]})"
        return f"{text} [{count} of {len(self._states)} done]"

    def _summary(self) -> str:
        counts = Counter(self._states.values())
        text = ", ".join(f"{counts[state]} {state.value}" for state in State if counts[state])
        left = self._all_left()
        return f"{len(self._states)} runs: {text}" + ("" if left is None else f"; about {in_words(left)} left")

    def _rate(self, name: str) -> float | None:
        """Frames per second since this sweep has started the run."""
        begun, frame = self._begun.get(name, (0.0, 0))
        made, seconds = self._progress[name].frame - frame, self._looked - begun
        return made / seconds if made > 0 and seconds > 0 else None

    def _left(self, name: str) -> float | None:
        rate = self._rate(name)
        return (self._runs[name].frames - self._progress[name].frame) / rate if rate else None

    def _all_left(self) -> float | None:
        """Seconds until all are done, if those that wait are as fast as those that run."""
        running = [name for name, state in self._states.items() if state is State.RUNNING]
        rates = [rate for name in running if (rate := self._rate(name))]
        if not rates:
            return None
        open_states = (State.RUNNING, State.WAITING)
        frames = sum(
            self._runs[name].frames - self._progress[name].frame
            for name, state in self._states.items()
            if state in open_states
        )
        return frames / (sum(rates) / len(rates) * len(running))


def in_words(seconds: float) -> str:
    """A length of time, such as 2h05m or 40s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s"
