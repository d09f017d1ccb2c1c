"""What a comparison leaves: DIR/STREAM.csv, a row per method, seed and task, and DIR/plasticity.md with its tables."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.streams.measures import Verdict, gap_closed, gate, interval, late_means, lost, said
from experiments.streams.rows import Finished
from experiments.streams.types import FIRST_MEASURES, MEASURES, Stream, TaskRow


class Compared(NamedTuple):
    """A stream and the arms on it that were trained to the end."""

    stream: Stream
    arms: dict[str, Finished]

    @property
    def rows(self) -> list[TaskRow]:
        """Of all arms."""
        return [row for arm in self.arms.values() for row in arm.rows]


def write_csv(compared: Compared, path: Path) -> None:
    """A row per method, seed and task; what was not measured, or is not finite, is empty."""
    rows = compared.rows
    further = sorted({name for row in rows for name in row.measures} - set(FIRST_MEASURES), key=_order)
    measures = [*FIRST_MEASURES, *further]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["stream", "method", "seed", "task", "auc", "end", *measures])
        for row in rows:
            values = [row.auc, row.end, *(row.measures.get(name, np.nan) for name in measures)]
            written = [f"{value:.6g}" if np.isfinite(value) else "" for value in values]
            writer.writerow([row.stream, row.method, row.seed, row.task, *written])


def _order(name: str) -> tuple[int, str]:
    """Measures in the order of `MEASURES`, each followed by its values layer by layer."""
    known = list(MEASURES)
    first = name.partition("/")[0]
    return (known.index(first) if first in known else len(known), name)


def page(compared: Sequence[Compared], command: str, failures: Mapping[str, str]) -> str:
    """The tables of all streams in Markdown, with what they were made with."""
    parts = ["# Plasticity against a fresh network", _legend(), *(_section(each) for each in compared)]
    if failures:
        parts.append("\n".join(["## Not trained", "", *(f"- {name}: {why}" for name, why in failures.items())]))
    parts.append(f"Made with `{command}`.")
    return "\n\n".join(parts) + "\n"


def _legend() -> str:
    return (
        "A: mean performance over the late tasks. End: the same for the last fifth of each task. "
        "Lost: 1 - (A - random) / (fresh - random). Gap closed: (A - dense) / (fresh - dense). All are interquartile "
        "means over seeds, in brackets 95 % bootstrap intervals over seeds drawn together in all arms. Beside them, "
        "the interquartile mean of what was measured of the networks at the end of the late tasks."
    )


def _section(compared: Compared) -> str:
    """A stream: the gate's sentence, its table, and what it was made with."""
    stream, arms = compared
    verdict = gate(late_means(compared.rows, stream.late))
    lines = _table(compared, verdict)
    notes = [f"- A: {stream.performance}, mean of tasks {stream.late} to {stream.tasks}."]
    notes += [f"- {name}: {MEASURES[name]}." for name in _measures(compared)]
    for name, arm in arms.items():
        own = [f"{k.removeprefix('plasticity.')}={value}" for k, value in arm.arm.overrides.items()]
        if own and own != [f"method={name}"]:
            notes.append(f"- `{name}`: {', '.join(own)}.")
    return "\n".join([f"## {stream.name}", "", verdict.sentence, "", *lines, "", *notes, *_made(arms)])


def _measures(compared: Compared) -> list[str]:
    """The measures of whole networks that some arm has."""
    return [name for name in MEASURES if any(name in row.measures for row in compared.rows)]


def _table(compared: Compared, verdict: Verdict) -> list[str]:
    """Rows in the order of performance. Where the stream ranks nothing, the shares are left out."""
    stream, rows = compared.stream, compared.rows
    auc, end = (late_means(rows, stream.late, field) for field in ("auc", "end"))
    measured = {name: late_means(rows, stream.late, name) for name in _measures(compared)}
    head = ["arm", "A", *(["lost", "gap closed"] if verdict.passed else []), "end", *measured]
    lines = [head, ["---"] * len(head)]
    for name in sorted(auc, key=lambda name: -np.nan_to_num(interval(auc[name]).value, nan=-np.inf)):
        shares = [said(share(auc, name), percent=True) for share in (lost, gap_closed)] if verdict.passed else []
        mechanisms = [_short(interval(values[name]).value) for values in measured.values()]
        lines.append([f"`{name}`", said(interval(auc[name])), *shares, said(interval(end[name])), *mechanisms])
    return [f"| {' | '.join(line)} |" for line in lines]


def _short(value: float) -> str:
    return "" if np.isnan(value) else f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _shortened(word: str) -> str:
    """A commit's hash to ten digits, all else as it is."""
    return re.sub(r"\b([0-9a-f]{10})[0-9a-f]{30}\b", r"\1", word)


def _made(arms: Mapping[str, Finished]) -> list[str]:
    """Seeds, versions, device, commits, dates and time of training."""
    finished = list(arms.values())
    seeds = ", ".join(map(str, finished[0].seeds))

    def each(key: str) -> str:
        return " and ".join(dict.fromkeys(_shortened(arm.made[key]) for arm in finished))

    versions = ", ".join(f"{key} {each(key)}" for key in finished[0].made if key not in ("device", "commit", "date"))
    minutes = sum(arm.seconds for arm in finished) / 60
    return [
        f"- Seeds {seeds}; {each('device')}; commit {each('commit')}; {each('date')}.",
        f"- {versions}; {minutes:.0f} minutes of training, all arms together.",
    ]
