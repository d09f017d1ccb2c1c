"""Training on tasks that take turns: the loops of `experiments.loop`, phase by phase."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agents.types import AgentState
from envs.sequence import DeviceTurns, HostTurns
from envs.types import Scene
from experiments.continual import Tasks
from experiments.evaluate import Evaluation, Evaluator
from experiments.loop import Pause, Run
from experiments.steps import Memory


def train_in_phases(
    train: Callable[..., Run],
    pool: DeviceTurns | HostTurns,
    enter: Callable[[Memory, Scene], Memory],
    tasks: Tasks,
    total: int,
    run: Run,
    pause: Pause,
    next_due: Callable[[int], int],
    until: int | None = None,
) -> Run:
    """Train up to step `until` (`total` by default), on the task whose turn it is.

    A switch comes before the pause at its step, so that whatever is evaluated or saved there is in the new phase.

    Args:
        train: `(run, pause, next_due, until)` trains on the task that `pool` is at, and pauses before its first step
            and after its last.
        enter: `(memory, scene)` cuts the running episodes and begins others with these scenes.
    """
    end = total if until is None else until
    while True:
        phase = tasks.phase(run.step * tasks.step_frames)
        if phase != pool.phase:
            run = run._replace(memory=enter(run.memory, pool.enter(phase)))
        stop = min(end, tasks.next_switch(run.step))
        run = train(run, pause if stop == end else _but_at(stop, pause), next_due, stop)
        if stop == end:
            return run


def _but_at(step: int, pause: Pause) -> Pause:
    return lambda run: run if run.step == step else pause(run)


def evaluate_in_turns(evaluators: Sequence[Evaluator], tasks: Tasks) -> Evaluator:
    """The evaluators of all tasks as one: a frame says whose turn it is. Random actions are those of the first."""

    def greedy(state: AgentState, video_size: int, frame: int = 0) -> Evaluation:
        return evaluators[tasks.of(frame // tasks.every)].greedy(state, video_size)

    def close() -> None:
        for evaluator in evaluators:
            evaluator.close()

    return Evaluator(greedy, evaluators[0].random, close)
