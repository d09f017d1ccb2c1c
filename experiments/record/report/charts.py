"""Line charts as inline SVG. Colours, in light and dark, are those of page.css by the class of a run: s0, s1, ..."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from experiments.record.report.markup import Markup, number, script_data, short, tag
from experiments.record.report.series import Curve

STYLES = 7
"""Colours, dashes and markers that differ; they begin anew with an eighth run."""
MARKERS = (
    "M-3.4,0a3.4,3.4 0 1,0 6.8,0a3.4,3.4 0 1,0 -6.8,0z",  # circle
    "M-3,-3h6v6h-6z",  # square
    "M0,-4L3.8,3H-3.8z",  # triangle
    "M0,-4.4L4.4,0L0,4.4L-4.4,0z",  # diamond
    "M0,4L3.8,-3H-3.8z",  # triangle, upside down
    "M-1.2,-4h2.4v2.8h2.8v2.4h-2.8v2.8h-2.4v-2.8h-2.8v-2.4h2.8z",  # plus
    "M-4,-1.3h8v2.6h-8z",  # bar
)
MARKS = 6
"""Markers on a curve, about."""

Points = Float[np.ndarray, " points"]


@dataclass(frozen=True)
class Box:
    """Where the data of a chart lie in its SVG, and between which values."""

    width: float
    height: float
    left: float
    right: float
    x: tuple[float, float]
    y: tuple[float, float]
    log: bool = False
    top: float = 12.0
    bottom: float = 22.0

    def across(self, frames: Points | float) -> Points:
        """Where frames lie."""
        span = self.width - self.left - self.right
        return self.left + span * (np.asarray(frames) - self.x[0]) / (self.x[1] - self.x[0])

    def up(self, values: Points | float) -> Points:
        """Where values lie."""
        values = np.log10(np.asarray(values)) if self.log else np.asarray(values)
        low, high = np.log10(self.y) if self.log else self.y
        return self.top + (self.height - self.top - self.bottom) * (1 - (values - low) / (high - low))


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers within [low, high]."""
    step = 10.0 ** np.floor(np.log10((high - low) / most))
    step = next(step * each for each in (1, 2, 5, 10, 20) if (high - low) / (step * each) <= most)
    return [
        float(f"{i * step:.12g}") for i in range(int(np.ceil(low / step - 1e-9)), int(np.floor(high / step + 1e-9)) + 1)
    ]


def margin(low: float, high: float) -> float:
    """What an axis shows beyond its values at either end; enough to see where all are the same, but for rounding."""
    size = max(abs(low), abs(high))
    return 0.06 * (high - low) if high - low > 1e-9 * size else 0.05 * size or 0.5


def line_chart(
    title: str,
    curves: Sequence[Curve],
    *,
    size: tuple[float, float] = (330, 180),
    within: tuple[float, float] | None = None,
    marks: Sequence[float] = (),
    level: tuple[str, float] | None = None,
    named: bool = False,
) -> Markup:
    """A chart of curves over frames, with their values for the page's script, as a focusable group.

    Args:
        within: bounds that values have by nature, which the axis shows as far as they are near.
        marks: frames with an upright line, where tasks change.
        level: a name and a value with a level line, such as the return of the random policy.
        named: whether the curves' names stand at their right ends.
    """
    drawn = [each for each in curves if each]
    if not drawn:
        return tag("p", f"{title}: no number was measured.", class_="nothing")
    box = _box(drawn, size, within, level, named)
    parts = [_axes(box, named), *(_upright(box, frame) for frame in marks if box.x[0] <= frame <= box.x[1])]
    if level:
        parts.append(_level(box, *level))
    parts += [_band(box, each) for each in drawn]
    parts += [_faint(box, each) for each in drawn]
    parts += [_line(box, each, i, len(drawn)) for i, each in enumerate(drawn)]
    if named:
        parts.append(_names(box, drawn))
    said = _in_words(title, drawn)
    svg = tag(
        "svg", tag("title", said), *parts, viewBox=f"0 0 {size[0]:g} {size[1]:g}", role="img", aria_label=said,
        class_="chart",
    )  # fmt: skip
    return tag(
        "div", svg, _for_script(box, drawn), tag("div", class_="tip", role="status"), class_="plot", tabindex=0,
        role="group", aria_label=f"{title}. Left and right arrow keys read the values.",
    )  # fmt: skip


def _box(
    curves: Sequence[Curve],
    size: tuple[float, float],
    within: tuple[float, float] | None,
    level: tuple[str, float] | None,
    named: bool,
) -> Box:
    frames = np.concatenate([each.frames[np.isfinite(each.middle)] for each in curves])
    values = [part for each in curves for part in (each.middle, each.low, each.high, *(v for _, v in each.seeds))]
    found = np.concatenate([*values, [level[1]] if level else []])
    found = found[np.isfinite(found)]
    low, high = float(found.min()), float(found.max())
    log = within is None and low > 0 and high / low > 300
    if log:
        y = (low / 1.2, high * 1.2)
    else:
        room = margin(low, high)
        y = (low - room, high + room)
        if within:
            y = (max(within[0], y[0]), min(within[1], y[1]))
            y = y if y[0] < y[1] else within
            y = (within[0] if y[0] - within[0] < 0.25 * (within[1] - within[0]) else y[0], y[1])
            y = (y[0], within[1] if within[1] - y[1] < 0.25 * (within[1] - within[0]) else y[1])
            room = 0.025 * (y[1] - y[0])
            y = (y[0] - room, y[1] + room)
    right = 150 if named else 12
    first, last = float(frames.min()), float(frames.max())
    labels = [short(each) for each in _y_ticks(Box(*size, 0, 0, (0, 1), y, log))]
    left = 14 + 6.4 * max(map(len, labels), default=1)
    x = (first, last if last > first else first + 1)
    return Box(*size, left, right, x, y, log, bottom=34.0 if named else 22.0)


def _y_ticks(box: Box) -> list[float]:
    if not box.log:
        return ticks(*box.y, 4 if box.height < 250 else 6)
    low, high = np.log10(box.y)
    powers = range(int(np.ceil(low)), int(np.floor(high)) + 1)
    return [10.0**power for power in powers][:: max(1, -(-len(powers) // 4))]


def _axes(box: Box, named: bool) -> Markup:
    parts, right, floor = [], box.width - box.right, box.height - box.bottom
    for value in _y_ticks(box):
        y = float(box.up(value))
        parts.append(tag("path", d=f"M{box.left:.1f},{y:.1f}H{right:.1f}", class_="grid"))
        parts.append(tag("text", short(value), x=f"{box.left - 6:.1f}", y=f"{y + 3.6:.1f}", text_anchor="end"))
    for value in ticks(*box.x, 5 if box.width < 500 else 8):
        x = float(box.across(value))
        parts.append(tag("path", d=f"M{x:.1f},{floor:.1f}v4", class_="axis"))
        parts.append(tag("text", short(value), x=f"{x:.1f}", y=f"{floor + 15:.1f}", text_anchor="middle"))
    parts.append(tag("path", d=f"M{box.left:.1f},{floor:.1f}H{right:.1f}", class_="axis"))
    middle = (box.left + right) / 2
    if named:
        parts.append(tag("text", "frames per seed", x=f"{middle:.1f}", y=f"{box.height - 2:.1f}", text_anchor="middle"))
    return tag("g", *parts, class_="axes", aria_hidden="true")


def _upright(box: Box, frame: float) -> Markup:
    return tag("path", d=f"M{float(box.across(frame)):.1f},{box.top}V{box.height - box.bottom}", class_="switch")


def _level(box: Box, name: str, value: float) -> Markup:
    y, right = float(box.up(value)), box.width - box.right
    line = tag("path", d=f"M{box.left:.1f},{y:.1f}H{right:.1f}", class_="level")
    return tag("g", line, tag("text", name, x=f"{right - 4:.1f}", y=f"{y - 5:.1f}", text_anchor="end"))


def _path(xs: Points, ys: Points) -> str:
    """Straight lines through the points that are finite; a gap elsewhere, a dot where one stands alone."""
    pieces, open_ = [], False
    finite = np.isfinite(xs) & np.isfinite(ys)
    for i, (x, y) in enumerate(zip(xs, ys, strict=True)):
        if finite[i]:
            pieces.append(f"{'L' if open_ else 'M'}{x:.1f},{y:.1f}")
            if not open_ and not (i + 1 < len(xs) and finite[i + 1]):
                pieces.append("h0.1")
        open_ = bool(finite[i])
    return "".join(pieces)


def _positive(box: Box, values: Points) -> Points:
    return np.where(values > 0, values, np.nan) if box.log else values


def _band(box: Box, curve: Curve) -> Markup:
    pieces, xs = [], box.across(curve.frames)
    low, high = box.up(_positive(box, curve.low)), box.up(_positive(box, curve.high))
    for start, end in _stretches(np.isfinite(low) & np.isfinite(high)):
        there = [f"{x:.1f},{y:.1f}" for x, y in zip(xs[start:end], high[start:end], strict=True)]
        back = [f"{x:.1f},{y:.1f}" for x, y in zip(xs[start:end], low[start:end], strict=True)][::-1]
        pieces.append("M" + "L".join(there + back) + "z")
    return tag("path", d="".join(pieces), class_=f"band {_class(curve)}") if pieces else Markup("")


def _stretches(flags: Bool[np.ndarray, " points"]) -> list[tuple[int, int]]:
    """Where flags are set without a gap, as ranges."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _faint(box: Box, curve: Curve) -> Markup:
    lines = [_path(box.across(frames), box.up(_positive(box, values))) for frames, values in curve.seeds]
    return tag("path", d="".join(lines), class_=f"seed {_class(curve)}") if any(lines) else Markup("")


def _line(box: Box, curve: Curve, index: int, of: int) -> Markup:
    xs, ys = box.across(curve.frames), box.up(_positive(box, curve.middle))
    there = np.flatnonzero(np.isfinite(ys))
    every = max(1, len(there) // MARKS)
    chosen = there[int(every * index / of) :: every]
    markers = [
        tag("path", d=MARKERS[curve.style % STYLES], transform=f"translate({xs[i]:.1f},{ys[i]:.1f})") for i in chosen
    ]
    line = tag("path", d=_path(xs, ys), class_="line")
    return tag("g", line, tag("g", *markers, class_="markers"), class_=_class(curve))


def _names(box: Box, curves: Sequence[Curve]) -> Markup:
    """The curves' names beside their right ends, moved apart where they would lie on each other."""
    ends = [box.up(each.middle[np.isfinite(each.middle)][-1]) for each in curves]
    order = sorted(range(len(curves)), key=lambda i: float(ends[i]))
    heights = [float(ends[i]) for i in order]
    lowest = box.height - box.bottom
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + 15)
    over = max(0.0, heights[-1] - lowest)
    heights = [each - over for each in heights]
    for i in reversed(range(len(heights) - 1)):
        heights[i] = min(heights[i], heights[i + 1] - 15)
    x = box.width - box.right + 8
    parts = []
    for height, i in zip(heights, order, strict=True):
        name = curves[i].label
        name = name if len(name) <= 21 else name[:20] + "\N{HORIZONTAL ELLIPSIS}"
        marker = tag("path", d=MARKERS[curves[i].style % STYLES], transform=f"translate({x:.1f},{height:.1f})")
        words = tag("text", name, x=f"{x + 9:.1f}", y=f"{height + 4:.1f}", class_="name")
        parts.append(tag("g", marker, words, class_=_class(curves[i])))
    return tag("g", *parts, class_="names", aria_hidden="true")


def _class(curve: Curve) -> str:
    return f"s{curve.style % STYLES}"


def key_sample(style: int) -> Markup:
    """A piece of a run's line with its marker, for legends."""
    parts = tag("path", d="M1,7H35", class_="line"), tag("path", d=MARKERS[style % STYLES], transform="translate(18,7)")
    return tag("svg", *parts, viewBox="0 0 36 14", class_=f"key s{style % STYLES}", aria_hidden="true")


def _in_words(title: str, curves: Sequence[Curve]) -> str:
    ends = []
    for each in curves:
        finite = each.middle[np.isfinite(each.middle)]
        ends.append(f"{each.label} from {number(finite[0])} to {number(finite[-1])}")
    return f"{title} over frames: {'; '.join(ends)}."


def _for_script(box: Box, curves: Sequence[Curve]) -> Markup:
    """What the page's script needs to show values under the pointer."""
    series = [
        {
            "name": each.label,
            "style": each.style % STYLES,
            "x": [round(frame) for frame in each.frames.tolist()],
            "y": _rounded(each.middle),
            "low": _rounded(each.low),
            "high": _rounded(each.high),
            "n": each.counts.tolist(),
        }
        for each in curves
    ]
    frame = {"left": box.left, "right": box.width - box.right, "top": box.top, "bottom": box.height - box.bottom}
    return script_data({"box": frame, "x": box.x, "series": series}, class_="values")


def _rounded(values: Points) -> list[float | None]:
    return [float(f"{each:.4g}") if np.isfinite(each) else None for each in values.tolist()]
