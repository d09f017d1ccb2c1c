"""Arms side by side in processes of their own: what one prints goes to its log, and one that fails stops no other.

A worker trains one arm after the other, so that it imports only once. It is a fresh interpreter, for a process that has
initialised JAX must never fork, and leads a process group of its own, so that Ctrl-C reaches it once, through us.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import NamedTuple

from experiments.build.allocator import keep_freed_memory
from experiments.build.compile_cache import keep_compiled
from experiments.streams.rows import run_folder, save
from experiments.streams.types import Arm, Stream

SPAWN = multiprocessing.get_context("spawn")


class Pair(NamedTuple):
    """What is trained at a time: an arm on a stream."""

    stream: Stream
    arm: Arm

    @property
    def name(self) -> str:
        """As it is told."""
        return f"{self.stream.name} {self.arm.name}"


class News(NamedTuple):
    """What a worker tells."""

    pair: Pair
    share: float = 0.0
    """Of the pair that is done."""
    seconds: float | None = None
    """That it took, once it is finished."""
    failure: str | None = None
    """Why it cannot be finished."""


Tell = Callable[[News | None], None]
"""Called with all news, and with None about every second."""


def train_pairs(pairs: Sequence[Pair], seeds: Sequence[int], out: Path, jobs: int, tell: Tell) -> None:
    """Train all pairs, `jobs` at a time, in this order, and save their rows.

    Raises:
        KeyboardInterrupt: the user has stopped it; the workers have saved what they were at, and are gone.
    """
    waiting, workers = list(pairs), []
    try:
        workers = [_Worker(seeds, out) for _ in range(min(jobs, len(pairs)))]
        while waiting or any(worker.pair for worker in workers):
            for i, worker in enumerate(workers):
                if worker.pair is None and waiting:
                    workers[i] = worker if worker.alive else _Worker(seeds, out)
                    workers[i].begin(waiting.pop(0))
                    tell(News(workers[i].pair))  # pyright: ignore[reportArgumentType]
            for worker in workers:
                for news in worker.news():
                    tell(news)
            tell(None)
            wait([worker.pipe for worker in workers if worker.alive], timeout=1)
    except BaseException:
        if any(worker.pair for worker in workers):
            print("\nstopping: what is under way is saved (Ctrl-C again stops at once)", file=sys.stderr)
        for worker in workers:
            worker.stop()
        raise
    finally:
        _end(workers)


def _end(workers: Sequence[_Worker]) -> None:
    """Wait until all are gone; Ctrl-C ends them at once."""
    try:
        for worker in workers:
            worker.end()
    except KeyboardInterrupt:
        for worker in workers:
            worker.kill()
        raise


class _Worker:
    """A process, and the pair that it is at."""

    def __init__(self, seeds: Sequence[int], out: Path) -> None:
        self.pipe, other = SPAWN.Pipe()
        self.pair: Pair | None = None
        self._stopped = False
        self._process = SPAWN.Process(target=_work, args=(other, tuple(seeds), out))
        self._process.start()
        other.close()  # so that the pipe ends with the process

    @property
    def alive(self) -> bool:
        return not self.pipe.closed

    def begin(self, pair: Pair) -> None:
        self.pair = pair
        with suppress(OSError):  # it has just died, as `news` will tell
            self.pipe.send(pair)

    def news(self) -> Iterator[News]:
        """All that it has told; where the process has died, that its pair failed."""
        try:
            while self.alive and self.pipe.poll():
                found = self.pipe.recv()
                if found.seconds is not None or found.failure is not None:
                    self.pair = None
                yield found
        except (EOFError, OSError):
            self.pipe.close()
            self._process.join()
            if self.pair is not None:
                yield News(self.pair, failure=f"its process ended with status {self._process.exitcode}")
                self.pair = None

    def stop(self) -> None:
        """Ask it to save what it is at, once."""
        self._stopped = True
        if self._process.is_alive() and self._process.pid:
            os.kill(self._process.pid, signal.SIGINT)

    def end(self) -> None:
        """There is nothing more to do: wait until it is gone."""
        if not self._stopped:
            self.pipe.close()  # which it takes for the end
        self._process.join()
        self.pipe.close()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.join()


def _work(pipe: Connection, seeds: Sequence[int], out: Path) -> None:
    """What a worker does: pairs, until there are no more."""
    os.setpgrp()
    keep_freed_memory()
    keep_compiled()
    try:
        while True:
            pair = pipe.recv()
            pipe.send(_train(pair, seeds, out, lambda share, pair=pair: pipe.send(News(pair, share))))
    except (EOFError, OSError, KeyboardInterrupt):
        return  # nothing more to do, nobody to tell, or asked to stop


def _train(pair: Pair, seeds: Sequence[int], out: Path, progress: Callable[[float], None]) -> News:
    """Train a pair to the end: how long it took, or why it failed."""
    folder, begin = run_folder(out, pair.stream.name, pair.arm.name), time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    with _printing_to(folder / "log.txt"):
        try:
            rows = pair.stream.run(pair.arm, seeds, folder, progress)
            seconds = time.perf_counter() - begin
            save(out, pair.stream, pair.arm, seeds, rows, seconds)
            return News(pair, 1.0, seconds=seconds)
        except Exception as error:  # whatever it is, it must not stop the other arms
            traceback.print_exc()
            return News(pair, failure=f"{' '.join(str(error).split()) or type(error).__name__} ({folder / 'log.txt'})")
        finally:
            if "jax" in sys.modules:
                sys.modules["jax"].clear_caches()


@contextmanager
def _printing_to(path: Path) -> Iterator[None]:
    """Standard output and error, those of libraries and child processes included, go to the end of a file."""
    kept = [os.dup(number) for number in (1, 2)]
    with path.open("a") as log:
        for number in (1, 2):
            os.dup2(log.fileno(), number)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, old in zip((1, 2), kept, strict=True):
                os.dup2(old, number)
                os.close(old)
