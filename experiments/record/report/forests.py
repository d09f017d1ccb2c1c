"""Statistics with their intervals side by side, a row each: a forest plot as inline SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from experiments.record.report.charts import MARKERS, STYLES, margin, ticks
from experiments.record.report.markup import Markup, interval, short, tag

WIDTH, ROW, RIGHT, TOP = 860.0, 30.0, 150.0, 6.0
LONGEST = 48
"""Characters of a row's name."""


class Row(NamedTuple):
    """A row: its name, a statistic and its interval, NaN where there is none, and what the seeds have."""

    label: str
    style: int | None
    middle: float
    low: float
    high: float
    seeds: Sequence[float] = ()


def forest(
    title: str, rows: Sequence[Row], *, within: tuple[float, float] | None = None, level: float | None = None
) -> Markup:
    """A chart of rows, top to bottom.

    Args:
        within: the ends of the axis; by default those of what is shown.
        level: a value with an upright line, such as an even chance.
    """
    shown = [row for row in rows if np.isfinite(row.middle)]
    if not shown:
        return tag("p", f"{title}: no number was measured.", class_="nothing")
    values = np.array([each for row in shown for each in (row.middle, row.low, row.high, *row.seeds)])
    values = values[np.isfinite(values)]
    low, high = within or (float(values.min()), float(values.max()))
    room = margin(low, high)
    low, high = low - room, high + room
    height, floor = TOP + ROW * len(shown) + 26, TOP + ROW * len(shown)

    left = 24 + 6.9 * min(LONGEST, max(len(row.label) for row in shown))

    def across(value: float) -> float:
        return left + (WIDTH - left - RIGHT) * (value - low) / (high - low)

    parts = []
    for value in ticks(low, high, 6):
        x = across(value)
        parts.append(tag("path", d=f"M{x:.1f},{TOP}V{floor}", class_="grid"))
        parts.append(tag("text", short(value), x=f"{x:.1f}", y=f"{floor + 16}", text_anchor="middle"))
    if level is not None:
        parts.append(tag("path", d=f"M{across(level):.1f},{TOP}V{floor}", class_="level"))
    for i, row in enumerate(shown):
        parts.append(_row(row, TOP + ROW * (i + 0.5), across, left))
    said = "; ".join(f"{row.label} {interval(row.middle, row.low, row.high)}" for row in shown)
    svg = tag(
        "svg", tag("title", f"{title}: {said}."), tag("g", *parts, aria_hidden="true"), class_="chart forest",
        viewBox=f"0 0 {WIDTH:g} {height:g}", role="img", aria_label=f"{title}: {said}.",
    )  # fmt: skip
    return tag("div", svg, class_="plot")


def _row(row: Row, y: float, across: Callable[[float], float], left: float) -> Markup:
    name = row.label if len(row.label) <= LONGEST else row.label[: LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"
    parts = [tag("text", name, x=f"{left - 14:.1f}", y=f"{y + 4}", text_anchor="end", class_="name")]
    if np.isfinite(row.low):
        parts.append(tag("path", d=f"M{across(row.low):.1f},{y}H{across(row.high):.1f}", class_="range"))
    for value in row.seeds:
        if np.isfinite(value):
            parts.append(tag("path", d=f"M{across(value):.1f},{y - 8}v16", class_="tick"))
    marker = MARKERS[(row.style or 0) % STYLES]
    place = f"translate({across(row.middle):.1f},{y}) scale(1.35)"
    parts.append(tag("path", d=marker, transform=place, class_="middle"))
    words = interval(row.middle, row.low, row.high)
    parts.append(tag("text", words, x=f"{WIDTH - RIGHT + 12}", y=f"{y + 4}"))
    return tag("g", *parts, class_=f"s{row.style % STYLES}" if row.style is not None else "plain")
