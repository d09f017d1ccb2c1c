"""What a user sees of a run: a line that moves on a terminal, a plain line per evaluation elsewhere, or nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

LABELS = {"eval/return": "return", "plasticity/density": "density", "plasticity/fau": "FAU"}
"""The metrics that are shown, and what they are called."""
SHARE = "time/share_"
"""What the shares of time are called in the log begins so."""


class Progress:
    """The frames of a run, its newest metrics, and the time that is left.

    Args:
        name: of the task.
        frame, total: the frame that this process starts from, and that of the end.
        remaining: seconds until the end, None where they are not known.
        each: the metric for each of which there is a plain line.
        quiet: show nothing.
    """

    def __init__(
        self,
        name: str,
        frame: int,
        total: int,
        remaining: Callable[[], float | None],
        *,
        each: str = "eval/return",
        quiet: bool = False,
    ) -> None:
        moves = sys.stderr.isatty()
        self._bar = _Bar(
            total=total,
            initial=frame,
            desc=name,
            remaining=remaining,
            disable=quiet or not moves,
            # Without tqdm's own rate and its time left, which count compiling and evaluations like training
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} frames [{elapsed}<{to_go}{postfix}]",
            mininterval=1.0,
        )
        self._frame, self._total, self._remaining, self._quiet = frame, total, remaining, quiet
        self._each = None if quiet or moves else each
        self._shown: dict[str, str] = {}

    def at(self, frame: int) -> None:
        """The run has come to this frame."""
        self._bar.update(frame - self._frame)
        self._frame = frame

    def show(self, values: Mapping[str, np.ndarray]) -> None:
        """Means over seeds of the newest metrics; one that was not measured keeps its last value."""
        for name, label in LABELS.items():
            if name in values:
                self._shown[label] = f"{np.mean(values[name]):.3g}"
        speed = values.get("time/frames_per_second", [np.nan])[0]
        if speed == speed:
            self._shown["frames/s"] = f"{speed:.0f}"
        self._bar.set_postfix(self._shown)
        if self._each in values:
            told = "".join(f", {label} {value}" for label, value in self._shown.items())
            shares = {name.removeprefix(SHARE): each[0] for name, each in values.items() if name.startswith(SHARE)}
            time = f"; time: {in_percent(shares)}" if in_percent(shares) else ""
            left = in_words(self._remaining())
            print(f"frame {self._frame:,} of {self._total:,}{told}, {left} left{time}", flush=True)

    def say(self, sentence: str) -> None:
        """A line of its own."""
        if not self._quiet:
            tqdm.write(sentence)

    def close(self) -> None:
        """The line moves no more."""
        self._bar.close()


class _Bar(tqdm):
    """A progress bar that is told how long the rest takes; tqdm reads `format_dict` whenever it draws itself."""

    def __init__(self, *, remaining: Callable[[], float | None], **how: Any) -> None:
        self._remaining = remaining
        super().__init__(**how)

    @property
    def format_dict(self) -> dict[str, Any]:
        return {**super().format_dict, "to_go": in_words(self._remaining())}


def in_words(seconds: float | None) -> str:
    """Such as 05:12 or 1:02:03; a question mark for None."""
    return "?" if seconds is None else tqdm.format_interval(round(seconds))


def in_percent(shares: Mapping[str, float]) -> str:
    """Such as `learning 61 %, environments 20 %`, the largest first; what is below one in two hundred goes unsaid."""
    largest = sorted(shares.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in largest if share >= 0.005)
