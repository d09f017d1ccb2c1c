"""Being asked to stop: by Ctrl-C, by a scheduler, or because the time is over."""

from __future__ import annotations

import signal
import time
from typing import Any

from tqdm import tqdm

from experiments.train.loop import Callback, Run

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""Ctrl-C; what SLURM and machines that may be taken away send, some time before they kill."""
SAVES, SAVES_TOGETHER = "saving a checkpoint", "at the next log point all processes save a checkpoint"
"""What comes of a request to stop."""


class Reached(Exception):
    """The run has come to its `stop_at_frame`, and is saved."""


def ending_at(stop: int, callback: Callback) -> Callback:
    """`callback`, after which the run ends once it is at the step `stop`, or was there before it was resumed.

    It ends from within, as it does when it is asked to, and the loop is told of no other end than its own: where tasks
    take turns, what belongs to a switch at that step then comes in the order in which it does without a stop.

    Raises:
        Reached: by the callback.
    """

    def until(run: Run) -> Run:
        run = callback(run)
        if run.step >= stop:
            raise Reached
        return run

    return until


class StopRequest:
    """True once the run was asked to stop. While it is open, the first signal asks, and Ctrl-C after it stops at once.

    Other signals may come again: what takes a machine away, and what has started the run, may both send one.

    Args:
        deadline: the `time.monotonic()` from which on it asks by itself; None: never.
        then: what comes of it, as it is told; None: it is not told.
    """

    def __init__(self, deadline: float | None = None, then: str | None = SAVES) -> None:
        self._deadline, self._then, self._asked = deadline, then, False
        self._previous = {number: signal.signal(number, self._on_signal) for number in SIGNALS}

    def __bool__(self) -> bool:
        if not self._asked and self._deadline is not None and time.monotonic() >= self._deadline:
            self.ask("the time of stop_after is over")
        return self._asked

    def close(self) -> None:
        """Give the signals their usual meaning back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _: Any) -> None:
        if self._asked:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self.ask("Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name)

    def ask(self, why: str) -> None:
        """Ask from within, for such a reason, if nothing has asked yet."""
        if not self._asked and self._then is not None:
            tqdm.write(f"stopping ({why}): {self._then} (Ctrl-C stops at once and loses what came after the last one)")
        self._asked = True
