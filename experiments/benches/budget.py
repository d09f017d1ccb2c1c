"""The time that measurements may take."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Budget:
    """So many seconds from now on, or any time with None.

    Nothing is begun for which, going by the longest of its kind so far, the time would not do; what takes longer than
    thought is ended with the program.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds, self._begin, self._timer = seconds, time.monotonic(), None
        self.longest = 0.0
        """Seconds, of what is being measured."""

    def allows(self) -> bool:
        """Whether another one may begin."""
        return self._seconds is None or time.monotonic() - self._begin + self.longest < self._seconds

    def timed(self, fn: Callable[[], T]) -> T:
        """What `fn` returns, whose time counts for what comes next."""
        begin = time.monotonic()
        found = fn()
        self.longest = max(self.longest, time.monotonic() - begin)
        return found

    def end_with(self, say: Callable[[], None]) -> None:
        """When the time is over, say it and end the program, whatever it does: no compilation can be asked to stop."""
        if self._seconds is not None:
            self._timer = threading.Timer(max(0.0, self._seconds + self._begin - time.monotonic()), _end, [say])
            self._timer.daemon = True
            self._timer.start()

    def close(self) -> None:
        """All is done in time."""
        if self._timer is not None:
            self._timer.cancel()


def _end(say: Callable[[], None]) -> None:
    say()
    os._exit(0)
