"""Being asked to stop: by Ctrl-C, by a scheduler, or because the time is over."""

from __future__ import annotations

import signal
import time
from typing import Any

from tqdm import tqdm

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""Ctrl-C; what SLURM and machines that may be taken away send, some time before they kill."""


class StopRequest:
    """True once the run was asked to stop. While it is open, the first signal asks, and Ctrl-C after it stops at once.

    Other signals may come again: what takes a machine away, and what has started the run, may both send one.

    Args:
        deadline: the `time.monotonic()` from which on it asks by itself; None: never.
    """

    def __init__(self, deadline: float | None = None) -> None:
        self._deadline, self._asked = deadline, False
        self._previous = {number: signal.signal(number, self._on_signal) for number in SIGNALS}

    def __bool__(self) -> bool:
        if not self._asked and self._deadline is not None and time.monotonic() >= self._deadline:
            self._ask("the time of stop_after is over")
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
        self._ask("Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name)

    def _ask(self, why: str) -> None:
        self._asked = True
        tqdm.write(
            f"stopping ({why}): saving a checkpoint (Ctrl-C stops at once and loses what came after the last one)"
        )
