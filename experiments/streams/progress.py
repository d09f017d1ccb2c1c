"""How far all pairs of stream and arm are, and how long the rest will take."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence

import numpy as np

from experiments.streams.workers import News, Pair

EVERY = 20.0
"""Seconds from one line about what is under way to the next."""


class ProgressLines:
    """Prints a line for each pair that ends, and every 20 s one for those under way, with the time left.

    A pair is taken to need as long as the mean of those of its stream that are finished or under way. For a stream of
    which there is none that is `Stream.seconds`, scaled as it turned out to be wrong for the others.

    Args:
        pairs: what is to be trained.
        known: seconds that pairs of each stream took in earlier runs, by the stream's name.
    """

    def __init__(self, pairs: Sequence[Pair], known: Mapping[str, Sequence[float]], seeds: int, jobs: int) -> None:
        self.failures: dict[str, str] = {}
        """Why pairs failed, by their names."""
        self._pairs, self._jobs, self._guess = pairs, jobs, seeds / 10
        self._took = {name: list(seconds) for name, seconds in known.items()}
        self._ended: set[str] = set()
        self._active: dict[str, tuple[float, float, float]] = {}  # began at, share at the first news, newest share
        self._begin = self._told = time.monotonic()

    def __call__(self, news: News | None) -> None:
        now = time.monotonic()
        if news is None:
            if now - self._told > EVERY and self._active:
                under_way = ", ".join(f"{name} {share:.0%}" for name, (_, _, share) in self._active.items())
                self._print(under_way, now)
            return
        name = news.pair.name
        if news.failure is not None:
            self.failures[name] = news.failure
            self._end(name, f"{name} failed: {news.failure}", now)
        elif news.seconds is not None:
            self._took.setdefault(news.pair.stream.name, []).append(news.seconds)
            self._end(name, f"{name} took {_clock(news.seconds)}", now)
        else:
            begin, first, _ = self._active.get(name, (now, 0.0, 0.0))
            if first == 0:  # a first share above 0 comes after compiling, and may be that of a run that goes on
                begin, first = now, news.share
            self._active[name] = begin, first, news.share

    def _end(self, name: str, said: str, now: float) -> None:
        self._active.pop(name, None)
        self._ended.add(name)
        self._print(said, now)

    def _print(self, said: str, now: float) -> None:
        left = self.seconds_left(now)
        self._told = now
        print(
            f"{len(self._ended)}/{len(self._pairs)} {_clock(now - self._begin)} gone, {_clock(left)} left: {said}",
            file=sys.stderr,
            flush=True,
        )

    def seconds_left(self, now: float) -> float:
        """Until all pairs are done, at the pace so far."""
        pace = {
            name: (now - begin) / (share - first) if share > first else np.nan
            for name, (begin, first, share) in self._active.items()
        }
        whole = self._whole(pace)
        shares = {name: share for name, (_, _, share) in self._active.items()}
        left = [
            (1 - shares.get(pair.name, 0.0)) * _or(pace.get(pair.name, np.nan), whole[pair.stream.name])
            for pair in self._pairs
            if pair.name not in self._ended
        ]
        return max(sum(left) / self._jobs, max(left, default=0.0))

    def _whole(self, pace: Mapping[str, float]) -> dict[str, float]:
        """Seconds that a pair of each stream takes."""
        streams = {pair.stream.name: pair.stream for pair in self._pairs}
        seen = {name: list(self._took.get(name, [])) for name in streams}
        for pair in self._pairs:
            if np.isfinite(pace.get(pair.name, np.nan)):
                seen[pair.stream.name].append(pace[pair.name])
        guess = {name: stream.seconds * self._guess for name, stream in streams.items()}
        wrong = [np.mean(values) / guess[name] for name, values in seen.items() if values]
        scale = float(np.mean(wrong)) if wrong else 1.0
        return {name: float(np.mean(values)) if values else scale * guess[name] for name, values in seen.items()}


def _or(value: float, otherwise: float) -> float:
    return value if np.isfinite(value) else otherwise


def _clock(seconds: float) -> str:
    """Minutes and seconds, with hours in front where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
