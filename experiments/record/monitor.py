"""What happens between steps: logging, evaluation, videos, checkpoints, and stopping when asked to."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from agents.updates import train_states
from experiments.build.checks import seconds_of
from experiments.build.experiment import Experiment
from experiments.record.checkpoints import Checkpoints, save_model
from experiments.record.folder import Folder
from experiments.record.metrics_files import SeedWriter, read_metrics
from experiments.record.progress import Progress
from experiments.record.remaining import RemainingTime, regular
from experiments.record.saturation import SaturationGuard
from experiments.record.stopping import StopRequest
from experiments.record.summary import CompileClock
from experiments.record.video import grid, write_video
from experiments.record.wandb_runs import WandbRun
from experiments.train.loop import Run
from experiments.train.state import MetricAccumulator
from experiments.train.tasks import Evaluated, TaskSequence, read_history, summarise


class Stopped(Exception):
    """The user asked to stop, and the run is saved."""


class Monitor:
    """Called by the loop before every step, with the run as it stands: `run = monitor(run)`.

    When something is due it reads the device, writes, and hands the run back with its tallies emptied. The first call
    of a resumed run does nothing: what was due there was done before the checkpoint.

    Args:
        begin: the step that this process starts from, 0 or that of the checkpoint.
        clock: has counted the seconds of compiling; they are told once everything is compiled.
        quiet: show no progress.
    """

    def __init__(
        self,
        experiment: Experiment,
        folder: Folder,
        checkpoints: Checkpoints,
        begin: int,
        clock: CompileClock,
        quiet: bool = False,
    ) -> None:
        self._experiment, self._folder, self._checkpoints, self._begin = experiment, folder, checkpoints, begin
        self._compiling: CompileClock | None = None if quiet else clock
        config = experiment.config
        self._log_every = experiment.every(config.log_every)
        self._eval_every = config.eval.every and experiment.every(config.eval.every)  # 0: never
        self._save_every = experiment.every(config.checkpoint_every)
        runs = [WandbRun(config, folder, seed) if config.log.wandb else None for seed in config.seeds]
        self._writers = [
            SeedWriter(folder.seed(seed), experiment.frame(begin), run) for seed, run in zip(config.seeds, runs)
        ]
        self._tasks = experiment.tasks
        tasks = self._tasks if self._tasks and self._tasks.all_evaluated else None
        metrics = [read_metrics(folder.seed(seed) / "metrics.jsonl") for seed in config.seeds] if tasks else []
        self._histories = [read_history(rows, tasks) for rows in metrics] if tasks else []
        total = experiment.schedule.total
        every = {"log": self._log_every, "evaluation": self._eval_every, "checkpoint": self._save_every}
        left = {kind: regular(steps, total) for kind, steps in every.items()}
        self._remaining = RemainingTime(experiment.schedule, begin, left, lambda: clock.seconds)
        self._progress = Progress(
            config.env.name,
            experiment.frame(begin),
            experiment.frame(total),
            self._remaining.seconds,
            each="eval/return" if self._eval_every else "train/return",
            quiet=quiet,
        )
        self._guard = SaturationGuard(config.seeds, config.total_frames)
        self._clock, self._clock_step = time.perf_counter(), begin
        self._initial: tuple[int, dict[str, Any]] | None = None  # what the networks began with, once it is asked for
        limit = seconds_of(config.stop_after)
        self.stopped = StopRequest(clock.begun + limit if limit else None)
        """Whether the run was asked to stop."""

    def __call__(self, run: Run) -> Run:
        """Do what is due at `run.step`."""
        schedule = self._experiment.schedule
        step, last = run.step, run.step == schedule.total
        self._remaining.trained(step)
        self._progress.at(self._experiment.frame(step))
        if step == self._begin > 0:
            return run
        switched = self._tasks is not None and self._tasks.switches(step)
        evaluation = self._eval_every > 0 and (step % self._eval_every == 0 or last or switched)
        log = step % self._log_every == 0 or last or switched
        log = log or evaluation
        measured = log if not schedule.measure_every else schedule.measures(step) or last or switched
        save = (step % self._save_every == 0 and step > 0) or last
        if not (log or measured or save or self.stopped):
            return run
        jax.block_until_ready((run.learner.metrics, run.rollout.episode_step))
        started = time.perf_counter()
        with self._remaining.timed("log"):
            values = self._plasticity(run) if measured else {}
            if log:
                values |= self._training_values(run, started - self._clock)
        if evaluation:
            with self._remaining.timed("evaluation"):
                values |= self._evaluate(run)
        if values:
            self._write(step, values)
        if log:
            run = self._next_interval(run, started)
        stop = bool(self.stopped)  # perhaps only since the evaluation began
        if save or stop:
            with self._remaining.timed("checkpoint"):
                self.save(run)
        self._clock += time.perf_counter() - started  # nothing of this is training
        if stop and not last:
            raise Stopped
        return run

    def next_due(self, step: int) -> int:
        """The first step after this one at which something is due."""
        periods = (self._log_every, self._eval_every or self._log_every, self._save_every)
        schedule = self._experiment.schedule
        due = [schedule.total, schedule.next_measure(step), *((step // every + 1) * every for every in periods)]
        return min(due + ([self._tasks.next_switch(step)] if self._tasks else []))

    def save(self, run: Run) -> None:
        """Write a checkpoint, and each seed's networks."""
        # The models first: a kill in between is then made good when the run resumes from the checkpoint before.
        for i, seed in enumerate(self._experiment.config.seeds):
            save_model(self._folder.seed(seed) / "model", run.learner.agent, i, self._folder.config)
        self._checkpoints.save(run, self._experiment.pool.snapshot())

    def close(self) -> None:
        """Close all files and give signals their usual meaning back."""
        self.stopped.close()
        self._progress.close()
        for writer in self._writers:
            writer.close()

    def _write(self, step: int, values: dict[str, np.ndarray]) -> None:
        """One row of each seed's metrics, and what the user is shown of it."""
        for i, writer in enumerate(self._writers):
            writer.write(step, self._experiment.frame(step), {name: float(each[i]) for name, each in values.items()})
        self._progress.show(values)
        if "plasticity/saturation" in values:
            for sentence in self._guard(self._experiment.frame(step), values["plasticity/saturation"]):
                tqdm.write(sentence)

    def _next_interval(self, run: Run, begins: float) -> Run:
        """The run with its tallies emptied, after a log point."""
        if self._compiling and self._experiment.schedule.updates(run.step) > 0:
            tqdm.write(f"compiled in {self._compiling.seconds:.0f} s")
            self._compiling = None
        self._clock, self._clock_step = begins, run.step
        learner = replace(run.learner, metrics=_emptied(run.learner.metrics))
        returns, distance = (_emptied(tally) for tally in (run.rollout.returns, run.rollout.distance))
        return Run(run.step, learner, replace(run.rollout, returns=returns, distance=distance))

    def _plasticity(self, run: Run) -> dict[str, np.ndarray]:
        """What is measured of the networks, [seeds] each."""
        experiment, schedule = self._experiment, self._experiment.schedule
        task = schedule.task(max(run.step - 1, 0)) if schedule.renews else 0
        if self._initial is None or self._initial[0] != task:
            networks = train_states(run.learner.agent) if run.step == 0 else None  # not begun to learn
            self._initial = (
                task,
                (
                    {name: jax.device_get(model.params) for name, model in networks.items()}
                    if networks
                    else experiment.steps.initial(experiment.keys, np.int32(task))
                ),
            )
        now, initial = schedule.at(run.step), self._initial[1]
        found = jax.device_get(experiment.steps.measure(run.learner, run.rollout, experiment.keys, initial, now))
        return {f"plasticity/{name}": value for name, value in found.items()}

    def _training_values(self, run: Run, seconds: float) -> dict[str, np.ndarray]:
        """Every metric since the last log point, [seeds] each; NaN where nothing was measured."""
        experiment, updates = self._experiment, self._experiment.schedule.updates(run.step)
        losses, returns = jax.device_get((run.learner.metrics, run.rollout.returns))
        seeds = len(experiment.config.seeds)
        speed = seeds * experiment.frame(run.step - self._clock_step) / seconds
        values = {"train/return": _mean(returns.total, returns.count)}
        values |= {_column(name): _mean(total, losses.count) for name, total in losses.total.items()}
        values["replay/size"] = np.asarray(jax.vmap(experiment.replay.ready)(run.rollout.replay_state))
        if run.rollout.distance is not None:
            values["replay/distance"] = _mean(*jax.device_get((run.rollout.distance.total, run.rollout.distance.count)))
        values["train/updates"] = np.full(seeds, updates)
        values["time/frames_per_second"] = np.full(seeds, speed if run.step > self._clock_step else np.nan)
        values |= {f"time/{name}": np.full(seeds, size) for name, size in peak_memory().items()}
        return values

    def _evaluate(self, run: Run) -> dict[str, np.ndarray]:
        experiment, config, step = self._experiment, self._experiment.config, run.step
        # Due at the first regular evaluation after the frame, not at those beside switches.
        every, before = experiment.every(config.video.every or 1), step - self._eval_every
        crossed = step % self._eval_every == 0 and step // every > before // every
        film = config.video.every and step > 0 and (crossed or step == experiment.schedule.total)
        frame = self._tasks.judged(experiment.frame(step)) if self._tasks else 0
        result = experiment.evaluator.greedy(run.learner.agent, config.video.size if film else 0, frame)
        values = {"eval/return": result.returns.mean(axis=1), "eval/return_std": result.returns.std(axis=1)}
        if step == 0:
            values["eval/random_return"] = experiment.evaluator.random().returns.mean(axis=1)
        if self._tasks and self._tasks.all_evaluated:
            values |= self._evaluate_tasks(run, self._tasks, values["eval/return"])
        elif self._tasks:
            values["continual/task"] = np.full(len(config.seeds), self._tasks.phase(frame), float)
        if result.frames is not None:
            self._film(step, result.frames)
        return values

    def _evaluate_tasks(self, run: Run, tasks: TaskSequence, current: np.ndarray) -> dict[str, np.ndarray]:
        """Evaluate on every task but the current one, whose returns are known unless tasks pass into each other."""
        frame = self._experiment.frame(run.step)
        known = {} if tasks.drift else {tasks.of(tasks.phase(tasks.judged(frame))): current}

        def play(task: int) -> np.ndarray:
            return self._experiment.evaluator.greedy(run.learner.agent, 0, tasks.frame_of(task)).returns.mean(axis=1)

        returns = [known[task] if task in known else play(task) for task in range(len(tasks.labels))]
        for i, history in enumerate(self._histories):
            history.append(Evaluated(frame, tuple(float(each[i]) for each in returns)))
        return summarise(self._histories, tasks)

    def _film(self, step: int, frames: np.ndarray) -> None:
        """Write the videos. Ctrl-C in a terminal ends ffmpeg too, and a full disk stops it: neither ends the run."""
        experiment, fps = self._experiment, self._experiment.config.video.fps
        try:
            for i, seed in enumerate(experiment.config.seeds):
                frame, path = experiment.frame(step), self._folder.video(seed, experiment.frame(step))
                write_video(path, frames[i], fps)
                self._writers[i].film(step, frame, frames[i], fps, path)
            write_video(self._folder.grid, grid(frames), fps)
        except (RuntimeError, OSError) as error:
            tqdm.write(f"the video at frame {experiment.frame(step)} could not be written: {error}")


def peak_memory() -> dict[str, float]:
    """The most memory in MiB that this process has had at once, workers apart, and the device where it tells."""
    unit = 2**20 if sys.platform == "darwin" else 2**10  # macOS counts bytes, others KiB
    found = {"peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}
    of_device = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return found | ({"peak_device_memory_mib": of_device / 2**20} if of_device is not None else {})


def _column(name: str) -> str:
    """Where a metric of the updates stands: with the losses, unless it has a group of its own."""
    return name if "/" in name else f"train/{name}"


def _emptied(tally: MetricAccumulator | None) -> Any:
    return jax.tree.map(jnp.zeros_like, tally)


def _mean(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
