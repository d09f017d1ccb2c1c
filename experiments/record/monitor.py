"""What happens between steps: logging, evaluation, videos, checkpoints, and stopping when asked to."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from experiments.build.checks import seconds_of
from experiments.build.errors import UserError
from experiments.build.experiment import Experiment
from experiments.build.processes import anywhere, is_first, several
from experiments.record.calendar import Calendar, stop_step
from experiments.record.checkpoints import Checkpoints
from experiments.record.divergence import COLUMN, RESTARTS, DivergenceGuard, without_frozen
from experiments.record.folder import Folder
from experiments.record.lane_checkpoints import LaneCheckpoints
from experiments.record.metrics_files import SeedWriter, read_metrics
from experiments.record.models import save_models
from experiments.record.progress import SHARE, Progress
from experiments.record.readings import Readings
from experiments.record.remaining import RemainingTime, regular
from experiments.record.saturation import SaturationGuard
from experiments.record.saving import saving
from experiments.record.shares import Shares
from experiments.record.stopping import SAVES, SAVES_TOGETHER, StopRequest
from experiments.record.summary import CompileClock
from experiments.record.video import grid, write_video
from experiments.record.wandb_runs import WandbRun
from experiments.train.evaluation import Evaluation
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
        folders: that of the run, or of each lane.
        begin: the step that this process starts from, 0 or that of the checkpoint.
        clock: has counted the seconds of compiling; they are told once everything is compiled.
        quiet: show no progress.
    """

    def __init__(
        self,
        experiment: Experiment,
        folders: Sequence[Folder],
        checkpoints: Checkpoints | LaneCheckpoints,
        begin: int,
        clock: CompileClock,
        quiet: bool = False,
    ) -> None:
        self._experiment, self._folders, self._checkpoints, self._begin = experiment, folders, checkpoints, begin
        self._compiling: CompileClock | None = None if quiet else clock
        config = experiment.config
        self._calendar = Calendar(experiment)
        self.next_due = self._calendar.next_due
        self._tasks = experiment.tasks
        self._places = [(folders[row.lane], row.seed) for row in experiment.rows]
        self._redo = begin > 0 and self._calendar.due(begin).row and anywhere(not self._is_written(begin))
        frame = experiment.frame(begin) - self._redo
        lanes = experiment.lanes or (config,)
        runs = [
            WandbRun(lanes[row.lane], folders[row.lane], row.seed) if config.log.wandb else None
            for row in experiment.rows
        ]
        with saving(folders, checkpoints):
            places = zip(self._places, runs, strict=True)
            self._writers = [SeedWriter(folder.seed(seed), frame, run) for (folder, seed), run in places]
        tasks = self._tasks if self._tasks and self._tasks.all_evaluated else None
        self._histories = [read_history(rows, tasks) for rows in self._metrics()] if tasks else []
        total = max(begin, stop_step(config, experiment.schedule.total))
        left = {kind: regular(steps, total) for kind, steps in self._calendar.every.items()}
        self._remaining = RemainingTime(experiment.schedule._replace(total=total), begin, left, lambda: clock.seconds)
        self._shares = Shares(experiment.stopwatch, self._remaining.spent, lambda: clock.seconds)
        self._progress = Progress(
            config.env.name,
            experiment.frame(begin),
            experiment.frame(total),
            self._remaining.seconds,
            each="eval/return" if self._calendar.every["evaluation"] else "train/return",
            quiet=quiet,
        )
        self._saturation = SaturationGuard([row.name for row in experiment.rows], config.total_frames)
        self.divergence = DivergenceGuard(experiment)
        self._clock, self._clock_step = time.perf_counter(), begin
        self._readings = Readings(experiment)
        limit = seconds_of(config.stop_after)
        told = (SAVES_TOGETHER if several() else SAVES) if is_first() else None
        self.stopped = StopRequest(clock.begun + limit if limit else None, told)
        """Whether the run was asked to stop."""
        self._last: Run | None = None
        """What it was called with, until it is done."""

    def __call__(self, run: Run) -> Run:
        """Do what is due at `run.step`."""
        step, last, self._last = run.step, run.step == self._experiment.schedule.total, run
        self._remaining.trained(step)
        self._progress.at(self._experiment.frame(step))
        if step == self._begin > 0 and not self._redo:
            self._last = None
            return run
        evaluation, log, measured, save = due = self._calendar.due(step)
        failure = self._experiment.pool.failure
        if failure and several():  # the others are elsewhere, and no checkpoint is of this process alone
            raise UserError(f"{failure}; the same commands, in all processes, go on from the newest checkpoint")
        if not (due.row or save or failure or (self.stopped and not several())):
            self._last = None
            return run
        jax.block_until_ready((run.learner.metrics, run.rollout.episode_step))
        started = time.perf_counter()
        what = self._experiment.config.on_divergence
        for sentence in self.divergence.read(run):
            if what != "stop":  # whose error says it
                tqdm.write(f"{sentence} (on_divergence={what})")
        with self._remaining.timed("log"):
            values = self._readings.plasticity(run) if measured else {}
            if log:
                values |= self._readings.training(run, run.step - self._clock_step, started - self._clock)
        if evaluation:
            with self._remaining.timed("evaluation"):
                values |= self._evaluate(run)
        if log:
            shares = self._shares.since(step - self._clock_step, started - self._clock)
            values |= {SHARE + name: np.full(len(self._writers), share) for name, share in shares.items()}
        if values:
            self._write(run, without_frozen(values, self.divergence.frozen))
        if log:
            run = self._last = self._next_interval(run, started)  # its row is written
            run = self._last = self._after_divergence(run)
        stop = anywhere(bool(self.stopped))  # perhaps only since the evaluation began
        if stop:
            self.stopped.ask("another process was asked to")
        if save or stop or failure:
            with self._remaining.timed("checkpoint"):
                self.save(run)
        if failure:
            raise UserError(f"{failure}; the run is saved, and the same command goes on") from failure
        if last or stop:
            self._progress.say(f"time went to {self._shares.told()}")
        self._clock += time.perf_counter() - started  # nothing of this is training
        if stop and not last:
            raise Stopped
        self._last = None
        return run

    def save(self, run: Run) -> None:
        """Write a checkpoint, and each seed's networks.

        Raises:
            UserError: it cannot be written.
        """
        with saving(self._folders, self._checkpoints):
            # The models first: a kill in between is then made good when the run resumes from the checkpoint before.
            for i, (folder, seed) in enumerate(self._places):
                save_models(folder, seed, run.learner.agent, i)
            self._checkpoints.save(*self._experiment.kept(run))

    def rescue(self) -> str:
        """After an error: save the run as it is, if the error was between two steps; in words, what came of it.

        In the middle of a step there is nothing whole to save: an update takes the place of what was before it. Of
        several processes none saves alone.
        """
        run, saved = None if several() else self._last, self._checkpoints.newest
        if run is not None and run.step != saved:
            try:
                self.save(run)
                saved = run.step
            except UserError as error:
                return str(error)
        if saved is None:
            return "nothing is saved yet"
        return f"the run is saved at frame {self._experiment.frame(saved):,}; the same command goes on from there"

    def close(self) -> None:
        """Close all files and give signals their usual meaning back."""
        self.stopped.close()
        self._progress.close()
        with ExitStack() as files:  # closed even where nothing can be written
            for writer in self._writers:
                files.callback(writer.close)
            with saving(self._folders, self._checkpoints):
                files.close()

    def _is_written(self, step: int) -> bool:
        """Whether each seed has its row of a step: after an error the run is saved before it has."""
        frame = self._experiment.frame(step)
        return all(any(row["frame"] == frame for row in found) for found in self._metrics())

    def _metrics(self) -> list[list[dict]]:
        """What is written of each seed."""
        return [read_metrics(folder.seed(seed) / "metrics.jsonl") for folder, seed in self._places]

    def _after_divergence(self, run: Run) -> Run:
        """What `on_divergence` wants to be done about seeds that have diverged.

        Raises:
            UserError: the run is to stop, and is saved.
        """
        what, found = self._experiment.config.on_divergence, [each for each in self.divergence.found if each]
        if what == "restart" and found:
            return self.divergence.restart(run)
        if what != "stop" or not anywhere(bool(found)):
            return run
        self.save(run)
        told = "; ".join(map(str, found)) or "a seed of another process diverged"
        raise UserError(
            f"{told}; the run is saved, and goes on without what diverged with --config.on_divergence=freeze, or with "
            "new networks for it with restart"
        )

    def _write(self, run: Run, values: dict[str, np.ndarray]) -> None:
        """One row of each seed's metrics, and what the user is shown of it."""
        frame, frozen = self._experiment.frame(run.step), self.divergence.frozen
        restarts = self.divergence.restarts(run)
        for i, writer in enumerate(self._writers):
            row = {name: float(each[i]) for name, each in values.items()}
            row |= {COLUMN: 1.0} if frozen[i] else {}
            row |= {RESTARTS: float(restarts[i])} if restarts[i] else {}
            with saving(self._folders, self._checkpoints):
                writer.write(run.step, frame, row)
        self._progress.show({name: each[~frozen] for name, each in values.items()} if not frozen.all() else {})
        if "plasticity/saturation" in values:
            for sentence in self._saturation(frame, values["plasticity/saturation"]):
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

    def _evaluate(self, run: Run) -> dict[str, np.ndarray]:
        experiment, config, step = self._experiment, self._experiment.config, run.step
        # Due at the first regular evaluation after the frame, not at those beside switches.
        every, before = experiment.every(config.video.every or 1), step - self._calendar.every["evaluation"]
        crossed = step % self._calendar.every["evaluation"] == 0 and step // every > before // every
        film = config.video.every and step > 0 and (crossed or step == experiment.schedule.total)
        frame = self._tasks.judged(experiment.frame(step)) if self._tasks else 0
        result = self._play(run, config.video.size if film else 0, frame)
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

    def _play(self, run: Run, video_size: int, frame: int) -> Evaluation:
        """Greedy episodes; those of a seed that has diverged have no return."""
        result = self._experiment.evaluator.greedy(run.learner.agent, video_size, frame)
        return result._replace(returns=np.where(self.divergence.frozen[:, None], np.nan, result.returns))

    def _evaluate_tasks(self, run: Run, tasks: TaskSequence, current: np.ndarray) -> dict[str, np.ndarray]:
        """Evaluate on every task but the current one, whose returns are known unless tasks pass into each other."""
        frame = self._experiment.frame(run.step)
        known = {} if tasks.drift else {tasks.of(tasks.phase(tasks.judged(frame))): current}

        def play(task: int) -> np.ndarray:
            return self._play(run, 0, tasks.frame_of(task)).returns.mean(axis=1)

        returns = [known[task] if task in known else play(task) for task in range(len(tasks.labels))]
        for i, history in enumerate(self._histories):
            history.append(Evaluated(frame, tuple(float(each[i]) for each in returns)))
        return summarise(self._histories, tasks)

    def _film(self, step: int, frames: np.ndarray) -> None:
        """Write the videos. Ctrl-C in a terminal ends ffmpeg too, and a full disk stops it: neither ends the run."""
        experiment, fps = self._experiment, self._experiment.config.video.fps
        try:
            for i, (folder, seed) in enumerate(self._places):
                frame, path = experiment.frame(step), folder.video(seed, experiment.frame(step))
                write_video(path, frames[i], fps)
                self._writers[i].film(step, frame, frames[i], fps, path)
            lanes = np.split(frames, len(self._folders)) if is_first() else ()  # one file, of the first process's seeds
            for folder, each in zip(self._folders, lanes):
                write_video(folder.grid, grid(each), fps)
        except (RuntimeError, OSError) as error:
            tqdm.write(f"the video at frame {experiment.frame(step)} could not be written: {error}")


def _emptied(tally: MetricAccumulator | None) -> Any:
    return jax.tree.map(jnp.zeros_like, tally)
