"""One lane of a `HostPool`: an environment, the seeds of its episodes, and the process or thread it may live in.

A worker process is a fresh interpreter that imports neither jax nor the parent's main module (which the spawn of
`multiprocessing` would import, and jax with it: 3.5 s of a core per worker). It ends when its pipe closes, so it
outlives no parent, however that ended, nor does one whose environment hangs: a thread of it looks for the parent.
"""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from envs.types import EnvSpec, MakeHostEnv, Scene, TimeStep

if TYPE_CHECKING:
    from jaxtyping import Float32

_BOOT = (
    # First of all: whoever asks to stop, asks the parent. Schedulers send their signals to all processes.
    "import signal as s; [s.signal(n, s.SIG_IGN) for n in (s.SIGINT, s.SIGTERM, s.SIGUSR1, s.SIGUSR2)]\n"
    "import sys; from envs.pools.worker import serve; serve(int(sys.argv[1]))"
)
_PATIENCE = 5.0  # seconds that a worker gets to close its environment


class Lane:
    """One environment that starts its own next episode. Episode `e` has the seed `SeedSequence((*stream, e))` gives."""

    def __init__(self, make: MakeHostEnv, stream: tuple[int, ...]) -> None:
        self.env = make()
        self._stream = stream
        self._episode = 0

    def _seed(self, episode: int) -> int:
        self._episode = episode
        return int(np.random.SeedSequence((*self._stream, episode)).generate_state(1)[0])

    def spec(self) -> EnvSpec:
        return self.env.spec

    def start(self, episode: int) -> Scene:
        return self.env.reset(self._seed(episode))

    def replay(self, episode: int, actions: Float32[np.ndarray, "steps actions"]) -> Scene:
        return self.env.replay(self._seed(episode), actions)

    def step(self, action: Float32[np.ndarray, " actions"]) -> tuple[TimeStep, Scene | None]:
        """The step, and the first scene of the next episode if this one is over."""
        return self.after(self.env.step(action))

    def after(self, step: TimeStep) -> tuple[TimeStep, Scene | None]:
        """The same for a step that was taken already."""
        over = step.terminated or step.truncated
        return step, self.start(self._episode + 1) if over else None

    def picture(self, size: int) -> Scene:
        return self.env.picture(size)

    def close(self) -> None:
        self.env.close()


class Worker(Protocol):
    """Where a lane lives.

    `post` starts one of the lane's methods and gives a function that waits for its result, so many seconds at most.
    `abandon` ends a lane that may hang, without waiting for it.
    """

    def post(self, method: str, *args: Any) -> Callable[[float], Any]: ...

    def close(self) -> None: ...

    def abandon(self) -> None: ...


def _hangs(lane: int, seconds: float) -> RuntimeError:
    return RuntimeError(
        f"environment worker {lane} did not answer within {seconds:.0f} s and counts as hung; raise "
        "--config.env.worker_timeout if a step may take that long"
    )


class SerialWorker:
    """The caller's own thread: the lane works when its result is asked for. Nobody is there to notice that it hangs."""

    def __init__(self, make: MakeHostEnv, stream: tuple[int, ...], lane: int) -> None:
        self.lane = Lane(make, stream)

    def post(self, method: str, *args: Any) -> Callable[[float], Any]:
        call = partial(getattr(self.lane, method), *args)
        return lambda seconds: call()

    def close(self) -> None:
        self.lane.close()

    def abandon(self) -> None:
        self.lane.close()


class ThreadWorker:
    """A thread of its own, for the lane's whole life: an OpenGL context belongs to the thread that made it.

    It is a daemon, so that one that hangs keeps no program from ending, which those of an executor do.
    """

    def __init__(self, make: MakeHostEnv, stream: tuple[int, ...], lane: int) -> None:
        self._number = lane
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=_work, args=(self._jobs,), name=f"env-{lane}", daemon=True)
        self._thread.start()
        self._lane = self._submit(partial(Lane, make, stream))

    def _submit(self, job: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        self._jobs.put((future, job))
        return future

    def post(self, method: str, *args: Any) -> Callable[[float], Any]:
        return partial(self._wait, self._submit(partial(self._call, method, args)))

    def _wait(self, future: Future[Any], seconds: float) -> Any:
        try:
            return future.result(seconds)
        except TimeoutError as error:
            if future.done():  # the environment's own
                raise
            raise _hangs(self._number, seconds) from error

    def _call(self, method: str, args: tuple[Any, ...]) -> Any:
        return getattr(self._lane.result(), method)(*args)

    def close(self) -> None:
        if self._thread.is_alive():
            self._submit(partial(self._call, "close", ()))
            self._jobs.put(None)
            self._thread.join(_PATIENCE)

    def abandon(self) -> None:
        self._submit(partial(self._call, "close", ()))  # should it ever come back
        self._jobs.put(None)


def _work(jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]) -> None:
    """The life of a worker thread: does one job after another."""
    while (given := jobs.get()) is not None:
        future, job = given
        try:
            future.set_result(job())
        except BaseException as error:
            future.set_exception(error)


class ProcessWorker:
    """A process of its own.

    Raises:
      ValueError: `make` cannot be pickled.
      RuntimeError: (from a wait) the process is gone. What the environment itself raised comes as it was raised.
    """

    def __init__(self, make: MakeHostEnv, stream: tuple[int, ...], lane: int) -> None:
        try:
            job = pickle.dumps((make, stream))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ValueError(
                f"The maker of an environment must be picklable for env.workers='process' ({error}): "
                "give a function of a module, or choose 'thread'."
            ) from error
        self._number = lane
        self._pipe, theirs = Pipe()
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-c", _BOOT, str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            env={**os.environ, "PYTHONPATH": paths, "JAX_PLATFORMS": "cpu"},  # should an environment import jax
            stdin=subprocess.DEVNULL,
        )
        theirs.close()  # else the pipe would stay open when the worker dies, and a wait would never end
        self._end = weakref.finalize(self, _end, self._process, self._pipe)
        self._send(job)

    def _send(self, message: object) -> None:
        try:
            self._pipe.send(message)
        except OSError as error:
            raise self._gone() from error

    def post(self, method: str, *args: Any) -> Callable[[float], Any]:
        self._send((method, args))
        return self._receive

    def _receive(self, seconds: float) -> Any:
        try:
            if not self._pipe.poll(seconds):
                raise _hangs(self._number, seconds)
            error, result = self._pipe.recv()
        except (EOFError, OSError) as cause:
            raise self._gone() from cause
        if error is not None:
            raise error
        return result

    def _gone(self) -> RuntimeError:
        try:
            code = self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            code = None
        return RuntimeError(
            f"Environment worker {self._number} died (exit code {code}): look for its last words above and for the "
            "kernel's out-of-memory messages, or set env.workers='serial' to see the failure in this process."
        )

    def close(self) -> None:
        self._end()

    def abandon(self) -> None:
        self._process.kill()
        self._end()


def _end(process: subprocess.Popen[bytes], pipe: Connection) -> None:
    pipe.close()  # the worker reads the end of its pipe, closes its environment and leaves
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def serve(handle: int) -> None:
    """The life of a worker process: makes its lane, then answers each (method, args) with (error, result)."""
    logging.getLogger("absl").setLevel(logging.ERROR)  # the suite's models warn of old XML once per process
    pipe = Connection(handle)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    lane: Lane | None = None
    failure: Exception | None = None
    try:
        try:
            make, stream = pickle.loads(pipe.recv())
            lane = Lane(make, stream)
        except EOFError:
            return
        except Exception as error:  # told in answer to the first request
            failure = _portable(error)
        while True:
            method, args = pipe.recv()
            try:
                if failure is not None:
                    raise failure
                answer = (None, getattr(lane, method)(*args))
            except Exception as error:
                answer = (_portable(error), None)
            pipe.send(answer)
    except (EOFError, OSError):  # the parent closed the pipe, or is gone
        pass
    finally:
        if lane is not None:
            lane.close()


def _end_with(parent: int) -> None:
    """Leave when the parent is gone, even if the environment hangs and nobody reads the pipe."""
    while os.getppid() == parent:
        time.sleep(1)
    time.sleep(_PATIENCE)  # that the environment has to close
    os._exit(1)


def _portable(error: Exception) -> Exception:
    """The error with the worker's traceback as a note; as a RuntimeError where its own type does not pickle."""
    note = "In an environment worker:\n" + "".join(traceback.format_exception(error)).rstrip()
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    if not hasattr(error, "__notes__"):
        error.add_note(note)
    return error
