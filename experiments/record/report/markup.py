"""HTML that cannot be broken by what stands in a run's files: every string is escaped unless it is markup already."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
"""What no HTML document may hold, escaped or not."""


class Markup(str):
    """A string that is HTML."""


def text(value: object) -> Markup:
    """`value` as HTML that shows it."""
    return (
        value
        if isinstance(value, Markup)
        else Markup(html.escape(CONTROL.sub("\N{REPLACEMENT CHARACTER}", f"{value}")))
    )


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """An element. `class_` and `data_x` become `class` and `data-x`; attributes that are None or False are left out."""
    pairs = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()}
    shown = "".join(
        f" {key}" if value is True else f' {key}="{text(value)}"'
        for key, value in pairs.items()
        if value is not None and value is not False
    )
    if name in ("img", "source", "input", "meta", "col"):
        return Markup(f"<{name}{shown}>")
    return Markup(f"<{name}{shown}>{join(children)}</{name}>")


def join(parts: Iterable[object], between: str = "") -> Markup:
    """Parts one after the other, each escaped unless it is markup."""
    return Markup(between.join(text(part) for part in parts))


def script_data(value: Any, **attributes: object) -> Markup:
    """JSON for scripts of the page; `<`, `>` and `&` are written so that it cannot end its element."""
    written = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        written = written.replace(character, f"\\u{ord(character):04x}")
    return tag("script", Markup(written), type="application/json", **attributes)


def table(caption: object, head: Sequence[object], rows: Iterable[Sequence[object]], **attributes: object) -> Markup:
    """A table whose first column names the rows, in a box that scrolls sideways where it is too wide."""
    top = tag("tr", *(tag("th", each, scope="col") for each in head))
    body = [tag("tr", tag("th", row[0], scope="row"), *(tag("td", each) for each in row[1:])) for row in rows]
    whole = tag("table", tag("caption", caption), tag("thead", top), tag("tbody", *body), **attributes)
    return tag("div", whole, class_="scroll", tabindex=0, role="region", aria_label=plain(caption))


def details(summary: object, *children: object, **attributes: object) -> Markup:
    """What is shown once it is asked for."""
    return tag("details", tag("summary", summary), *children, **attributes)


def plain(value: object) -> str:
    """The words of a piece of markup."""
    return html.unescape(re.sub(r"<[^>]*>", "", value)) if isinstance(value, Markup) else str(value)


def number(value: float, digits: int = 4) -> str:
    """A number for people: so many significant digits at least, thousands apart, a true minus sign."""
    if not math.isfinite(value):
        return "no number"
    size = abs(value)
    if size and (size < 10 ** -(digits - 1) or size >= 1e9):
        written = f"{value:.{digits - 2}e}"
    else:
        after = 0 if not size else max(0, digits - 1 - math.floor(math.log10(size)))
        written = f"{value:,.{after}f}"
        if after:
            written = written.rstrip("0").rstrip(".")
    return written.replace("-", "\N{MINUS SIGN}") if value else "0"


def short(value: float) -> str:
    """A number for an axis: 20k, 1.5M."""
    size = abs(value)
    for bound, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= bound:
            return f"{value / bound:.3g}{letter}".replace("-", "\N{MINUS SIGN}")
    return f"{value:.3g}".replace("-", "\N{MINUS SIGN}") if value else "0"


def interval(middle: float, low: float, high: float) -> str:
    """A statistic with its interval in brackets, where it has one."""
    if not math.isfinite(middle):
        return "no number"
    if not (math.isfinite(low) and math.isfinite(high)):
        return number(middle)
    size = max(abs(middle), abs(low), abs(high))
    after = 0 if not size else min(6, max(0, 2 - math.floor(math.log10(size))))
    shown = [f"{each:,.{after}f}".replace("-", "\N{MINUS SIGN}") for each in (middle, low, high)]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]"
