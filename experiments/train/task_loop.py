"""Training on tasks that take turns: the loops of `experiments.train.loop`, phase by phase."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agents.types import AgentState
from envs.pools.sequence import DeviceTurns, HostTurns
from envs.types import Scene
from experiments.train.evaluation import Evaluation, Evaluator
from experiments.train.loop import Callback, Run
from experiments.train.state import LearnerState, RolloutState
from experiments.train.tasks import TaskSequence


def train_in_phases(
    train: Callable[..., Run],
    pool: DeviceTurns | HostTurns,
    enter: Callable[[RolloutState, Scene], RolloutState],
    tasks: TaskSequence,
    total: int,
    run: Run,
    callback: Callback,
    next_due: Callable[[int], int],
    until: int | None = None,
    renew: Callable[[LearnerState, int], LearnerState] | None = None,
) -> Run:
    """Train up to step `until` (`total` by default), on the task whose turn it is.

    A switch comes before the callback at its step, so that whatever is evaluated or saved there is in the new phase.
    But where tasks `ends_first`, it comes after it: what a task leaves is measured before it is gone.

    Args:
        train: `(run, callback, next_due, until)` trains on the task that `pool` is at, and pauses before its first step
            and after its last.
        enter: `(rollout, scene)` cuts the running episodes and begins others with these scenes.
        renew: `(learner, phase)` puts new networks in the place of those that have learned; None keeps them.
    """
    end = total if until is None else until
    while True:
        phase = tasks.phase(run.step * tasks.step_frames)
        switched = phase != pool.phase
        if switched:
            run = run._replace(rollout=enter(run.rollout, pool.enter(phase)))
            if renew:
                run = run._replace(learner=renew(run.learner, phase))
        stop = min(end, tasks.next_switch(run.step))
        told = _but_at(run.step, callback) if switched and tasks.ends_first else callback
        if stop < end and not tasks.ends_first:
            told = _but_at(stop, callback)
        run = train(run, told, next_due, stop)
        if stop == end:
            return run


def _but_at(step: int, callback: Callback) -> Callback:
    return lambda run: run if run.step == step else callback(run)


def evaluate_in_turns(evaluators: Sequence[Evaluator], tasks: TaskSequence) -> Evaluator:
    """The evaluators of all tasks as one: a frame says whose turn it is. Random actions are those of the first."""

    def greedy(state: AgentState, video_size: int, frame: int = 0) -> Evaluation:
        return evaluators[tasks.of(frame // tasks.every)].greedy(state, video_size)

    def close() -> None:
        for evaluator in evaluators:
            evaluator.close()

    return Evaluator(greedy, evaluators[0].random, close)
