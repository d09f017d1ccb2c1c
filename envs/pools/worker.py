"""One lane of a `HostPool`: an environment, the seeds of its episodes, and the process or thread it may live in.

A worker process is a fresh interpreter that imports neither jax nor the parent's main module (which the spawn of
`multiprocessing` would import, and jax with it: 3.5 s of a core per worker). It ends when its pipe closes, so it
outlives no parent, however that ended.
"""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
import traceback
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from envs.types import EnvSpec, MakeHostEnv, Scene, TimeStep

if TYPE_CHECKING:
    from jaxtyping import Float32

_BOOT = (
    # First of all: whoever asks to stop, asks the parent. Schedulers send their signals to all processes.
    "import signal; [signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]\n"
    "import sys; from envs.pools.worker import serve; serve(int(sys.argv[1]))"
)
_PATIENCE = 5.0  # seconds that a worker gets to close its environment


class Lane:
    """One environment that starts its own next episode. Episode `e` has the seed `SeedSequence((*stream, e))` gives."""

    def __init__(self, make: MakeHostEnv, stream: tuple[int, ...]) -> None:
        self._env = make()
        self._stream = stream
        self._episode = 0

    def _seed(self, episode: int) -> int:
        self._episode = episode
        return int(np.random.SeedSequence((*self._stream, episode)).generate_state(1)[0])

    def spec(self) -> EnvSpec:
        return self._env.spec

    def start(self, episode: int) -> Scene:
        return self._env.reset(self._seed(episode))

    def replay(self, episode: int, actions: Float32[np.ndarray, "steps actions"]) -> Scene:
        return self._env.replay(self._seed(episode), actions)

    def step(self, action: Float32[np.ndarray, " actions"]) -> tuple[TimeStep, Scene | None]:
        """The step, and the first scene of the next episode if this one is over."""
        step = self._env.step(action)
        over = step.terminated or step.truncated
        return step, self.start(self._episode + 1) if over else None

    def picture(self, size: int) -> Scene:
        return self._env.picture(size)

    def close(self) -> None:
        self._env.close()


class Worker(Protocol):
    """Where a lane lives. `post` starts one of the lane's methods and gives a function that waits for its result."""

    def post(self, method: str, *args: Any) -> Callable[[], Any]: ...

    def close(self) -> None: ...


class SerialWorker:
    """The caller's own thread: the lane works when its result is asked for."""

    def __init__(self, make: MakeHostEnv, stream: tuple[int, ...], lane: int) -> None:
        self._lane = Lane(make, stream)

    def post(self, method: str, *args: Any) -> Callable[[], Any]:
        return partial(getattr(self._lane, method), *args)

    def close(self) -> None:
        self._lane.close()


class ThreadWorker:
    """A thread of its own, for the lane's whole life: an OpenGL context belongs to the thread that made it."""

    def __init__(self, make: MakeHostEnv, stream: tuple[int, ...], lane: int) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"env-{lane}")
        self._lane = self._thread.submit(Lane, make, stream)

    def post(self, method: str, *args: Any) -> Callable[[], Any]:
        return self._thread.submit(self._call, method, args).result

    def _call(self, method: str, args: tuple[Any, ...]) -> Any:
        return getattr(self._lane.result(), method)(*args)

    def close(self) -> None:
        if self._lane.exception() is None:
            self._thread.submit(self._call, "close", ()).result()
        self._thread.shutdown()


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

    def post(self, method: str, *args: Any) -> Callable[[], Any]:
        self._send((method, args))
        return self._receive

    def _receive(self) -> Any:
        try:
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
