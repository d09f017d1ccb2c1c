"""Many host environments stepped side by side, each resetting itself, with snapshots that are only numbers.

`python -m experiments.bench --what=envs` measures the speed of the three backends.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from envs.pools.worker import ProcessWorker, SerialWorker, ThreadWorker, Worker
from envs.types import AutoResetStep, EnvSpec, MakeHostEnv, Scene, TimeStep

if TYPE_CHECKING:
    from jaxtyping import Float32

Backend = Literal["process", "thread", "serial"]
Snapshot = dict[str, np.ndarray]

_WORKERS: dict[Backend, Callable[..., Worker]] = {
    "process": ProcessWorker,
    "thread": ThreadWorker,
    "serial": SerialWorker,
}

_LOG = logging.getLogger(__name__)
_TO_BEGIN = 60.0  # seconds that a new worker has at least: importing takes some
IN_A_ROW = 3
"""Failures of one lane without a whole episode in between, at which it is given up."""


class Failed(NamedTuple):
    """What came in place of a lane's answer."""

    error: Exception


class HostPool:
    """One environment per lane. Episode `e` of lane `i` is seeded from `SeedSequence((*streams[i], e))`.

    What a lane emits depends on its stream, its episode number and its actions: not on the other lanes, nor on the
    backend.

    Where an environment raises, its process dies, or it hangs, that is told in the log with its traceback. The lane
    gets a new environment, which begins the next episode; the step that failed is a truncated one, without a reward.
    At the third time without a whole episode in between, `failure` says so: that step is still a whole one, so
    that a run can be saved, but the pool is closed. Any other error closes it too; `snapshot` still works.

    Args:
      make: makes one environment; picklable for the process backend.
      streams: non-negative integers that name each lane's random numbers, such as (seed, 0).
      backend: `process` (an interpreter per lane), `thread`, or `serial`.
      timeout: seconds after which an environment that does not answer counts as hung; not with `serial`.

    Raises:
      ValueError: an unknown backend, no lanes, or a maker that cannot be pickled; and what `make` itself raises.
      RuntimeError: a worker process died.
    """

    def __init__(
        self,
        make: MakeHostEnv,
        streams: Sequence[tuple[int, ...]],
        backend: Backend = "process",
        timeout: float = 300.0,
    ) -> None:
        if backend not in get_args(Backend):
            raise ValueError(f"env.workers must be one of process, thread, serial, got {backend!r}")
        if not streams:
            raise ValueError("A pool needs at least one lane: give one stream per lane.")
        self._workers: list[Worker] = []
        self._new = [partial(_WORKERS[backend], make, tuple(stream), lane) for lane, stream in enumerate(streams)]
        self._timeout = timeout
        self.failure: RuntimeError | None = None
        """Why there will be no further step."""
        try:
            for new in self._new:
                self._workers.append(new())
            self.spec: EnvSpec = self._all("spec", [()] * len(streams))[0]
        except BaseException:
            self.close()
            raise
        self.lanes = len(streams)
        self._episode = np.zeros(self.lanes, np.int32)
        self._steps = np.full(self.lanes, -1, np.int32)  # -1: not started
        self._actions = np.zeros((self.lanes, self.spec.episode_steps, self.spec.action_dim), np.float32)
        self._scenes: list[Scene] = []  # where each lane is
        self._failures = np.zeros(self.lanes, np.int32)  # since its last whole episode
        self.failed = np.zeros(self.lanes, bool)
        """The lanes that failed in the newest step."""

    def _all(self, method: str, args: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Runs a method on all lanes at once. If anything fails, the pool closes."""
        answers = self._answers(method, args)
        for answer in answers:
            if isinstance(answer, Failed):
                self.close()
                raise answer.error
        return answers

    def _answers(self, method: str, args: Sequence[tuple[Any, ...]]) -> list[Any]:
        """What a method of all lanes gives, run at once, or how it failed. After Ctrl-C the pool is closed."""
        if self.failure is not None:
            raise self.failure
        if not self._workers:
            raise RuntimeError("This pool of environments is closed: make a new one and restore a snapshot.")
        try:
            deadline = time.monotonic() + self._timeout
            waits = [attempt(worker.post, method, *each) for worker, each in zip(self._workers, args, strict=True)]
            return [
                wait if isinstance(wait, Failed) else attempt(wait, max(deadline - time.monotonic(), 0.0))
                for wait in waits
            ]
        except BaseException:
            self.close()
            raise

    def _anew(self, lane: int, episode: int, error: Exception) -> Scene | None:
        """The first scene of an episode in a new environment, in place of one that failed; None: it is given up."""
        while True:
            self._failures[lane] += 1
            told = "".join(traceback.format_exception(error)).rstrip()
            attempt(self._workers[lane].abandon)
            if self._failures[lane] >= IN_A_ROW:
                _LOG.error("environment %d failed for good:\n%s", lane, told)
                self.failure = RuntimeError(
                    f"environment {lane} of {self.spec.name} failed {IN_A_ROW} times without a whole episode in "
                    f"between, lastly by {type(error).__name__}: {_first_line(error)}; its tracebacks stand above"
                )
                return None
            _LOG.error("environment %d failed; another one begins episode %d in its place:\n%s", lane, episode, told)
            found = attempt(self._begin_anew, lane, episode)
            if not isinstance(found, Failed):
                return found
            error = found.error

    def _begin_anew(self, lane: int, episode: int) -> Scene:
        self._workers[lane] = self._new[lane]()
        return self._workers[lane].post("start", episode)(max(self._timeout, _TO_BEGIN))

    def reset(self, episodes: Sequence[int] | np.ndarray | None = None) -> Scene:
        """Starts these episodes, one number per lane (default 0), and returns their first scenes, stacked."""
        numbers = np.zeros(self.lanes, np.int32) if episodes is None else np.asarray(episodes, np.int32)
        if numbers.shape != (self.lanes,) or (numbers < 0).any():
            raise ValueError(f"episodes must be {self.lanes} non-negative numbers, one per lane, got {episodes!r}")
        begun, args = (self._steps >= 0).all(), [(int(number),) for number in numbers]
        # What cannot begin at all is wrong as it stands; what worked before may be mended.
        scenes = self._answers("start", args) if begun else self._all("start", args)
        for lane, each in enumerate(scenes):
            if isinstance(each, Failed):
                scenes[lane] = self._anew(lane, int(numbers[lane]), each.error)
        if self.failure is not None:
            self.close()
            raise self.failure
        self._episode, self._steps = numbers.copy(), np.zeros(self.lanes, np.int32)
        self._actions = np.zeros_like(self._actions)
        self._scenes = scenes
        return _stack(scenes)

    def step(self, actions: Float32[np.ndarray, "lanes actions"]) -> AutoResetStep:
        """Steps every lane. Lanes whose episode ends are reset in the same call; see `AutoResetStep`.

        Raises:
          ValueError: `actions` has the wrong shape.
          RuntimeError: `reset` or `restore` was never called, the pool is closed, or `failure` was there before.
        """
        if (self._steps < 0).any():
            raise RuntimeError("The pool's episodes were never started: call reset() or restore(snapshot) first.")
        actions = np.asarray(actions, np.float32)
        expected = (self.lanes, self.spec.action_dim)
        if actions.shape != expected:
            raise ValueError(f"The pool of {self.spec.name} takes actions of shape {expected}, got {actions.shape}")
        answers = self._answers("step", [(action,) for action in actions])
        self.failed = np.array([isinstance(answer, Failed) for answer in answers])
        for lane in map(int, np.flatnonzero(self.failed)):
            lost = TimeStep(self._scenes[lane], np.float32(0), np.bool_(False), np.bool_(True))
            first = self._anew(lane, int(self._episode[lane]) + 1, answers[lane].error)
            answers[lane] = (lost, self._scenes[lane] if first is None else first)
        steps = [step for step, _ in answers]
        firsts = [step.scene if first is None else first for step, first in answers]
        over = np.array([first is not None for _, first in answers])
        self._failures[over & ~self.failed] = 0
        self._scenes = firsts
        if self.failure is not None:
            self.close()
        self._actions[np.arange(self.lanes), self._steps] = actions
        self._actions[over] = 0
        self._steps = np.where(over, 0, self._steps + 1).astype(np.int32)
        self._episode = self._episode + over.astype(np.int32)
        step = TimeStep(
            _stack([step.scene for step in steps]),
            np.array([step.reward for step in steps], np.float32),
            np.array([step.terminated for step in steps], np.bool_),
            np.array([step.truncated for step in steps], np.bool_),
        )
        return AutoResetStep(step, _stack(firsts) if over.any() else step.scene)

    def pictures(self, size: int) -> Scene:
        """What `EnvSpec.draw` makes a frame of, for each lane. A lane that was just reset shows its new episode."""
        return _stack(self._all("picture", [(size,)] * self.lanes))

    def snapshot(self) -> Snapshot:
        """Where every lane is: episode int32 [lanes], steps int32 [lanes], actions float32 [lanes, steps, actions]."""
        return {"episode": self._episode.copy(), "steps": self._steps.copy(), "actions": self._actions.copy()}

    def restore(self, snapshot: Snapshot) -> Scene:
        """Takes every lane back to where a snapshot found it by replaying its actions, and returns the scenes there.

        Raises:
          ValueError: the snapshot is of another task, another number of lanes, or was taken before the first reset.
        """
        for key, mine in self.snapshot().items():
            shape = np.shape(snapshot[key]) if key in snapshot else None
            if shape != mine.shape:
                raise ValueError(
                    f"The snapshot's {key!r} has shape {shape}, but {self.lanes} lanes of "
                    f"{self.spec.name} need {mine.shape}: restore it into a pool with the settings it was taken from."
                )
        episode, steps = np.asarray(snapshot["episode"], np.int32), np.asarray(snapshot["steps"], np.int32)
        actions = np.array(snapshot["actions"], np.float32)
        if (steps < 0).any():
            raise ValueError("The snapshot was taken before the pool's first reset: there is nothing to restore.")
        replays = zip(episode, steps, actions, strict=True)
        scenes = self._all("replay", [(int(number), taken[:count]) for number, count, taken in replays])
        self._episode, self._steps, self._actions = episode.copy(), steps.copy(), actions
        self._scenes = scenes
        return _stack(scenes)

    def close(self) -> None:
        """Ends every lane; safe to call twice."""
        workers, self._workers = self._workers, []
        for worker in workers:
            attempt(worker.close)

    def __enter__(self) -> HostPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def attempt(call: Callable[..., Any], *args: Any) -> Any:
    """What a call gives, or how it failed."""
    try:
        return call(*args)
    except Exception as error:  # whatever an environment may raise
        return Failed(error)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]


def _stack(scenes: list[Scene]) -> Scene:
    """Stacks scenes leaf by leaf along a new first axis; without jax where a scene is one array."""
    if isinstance(scenes[0], np.ndarray):
        return np.stack(scenes)  # type: ignore[arg-type]
    import jax

    return jax.tree.map(lambda *leaves: np.stack(leaves), *scenes)
