"""What happens between steps: logging, evaluation, videos, checkpoints, and stopping when asked to."""

from __future__ import annotations

import signal
import time
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from experiments.checkpoint import Checkpoints, save_model
from experiments.loop import Run
from experiments.results import Folder
from experiments.setup import Experiment
from experiments.steps import Tally
from experiments.summary import CompileClock
from experiments.video import grid, write_video
from experiments.writers import SeedWriter


class Stopped(Exception):
    """The user asked to stop, and the run is saved."""


class Monitor:
    """Called by the loop before every step, with the run as it stands: `run = monitor(run)`.

    When something is due it reads the device, writes, and hands the run back with its tallies emptied. The first call
    of a resumed run does nothing: what was due there was done before the checkpoint.

    Args:
        begin: the step that this process starts from, 0 or that of the checkpoint.
        clock: has counted the seconds of compiling; they are told once everything is compiled.
    """

    def __init__(
        self, experiment: Experiment, folder: Folder, checkpoints: Checkpoints, begin: int, clock: CompileClock
    ) -> None:
        self._experiment, self._folder, self._checkpoints, self._begin = experiment, folder, checkpoints, begin
        self._compiling: CompileClock | None = clock
        config = experiment.config
        self._log_every = experiment.every(config.log_every)
        self._eval_every = experiment.every(config.eval.every)
        self._save_every = experiment.every(config.checkpoint_every)
        self._writers = [SeedWriter(folder.seed(seed), experiment.frame(begin)) for seed in config.seeds]
        self._bar = tqdm(
            total=experiment.frame(experiment.schedule.total),
            initial=experiment.frame(begin),
            desc=config.env.name,
            # Without tqdm's own rate, which counts one seed and the time of evaluations
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} frames [{elapsed}<{remaining}{postfix}]",
            mininterval=1.0,
        )
        self._shown: dict[str, str] = {}
        self._clock, self._clock_step = time.perf_counter(), begin
        self._stop = False
        self._previous_handler = signal.signal(signal.SIGINT, self._on_interrupt)

    def __call__(self, run: Run) -> Run:
        """Do what is due at `run.step`."""
        step, last = run.step, run.step == self._experiment.schedule.total
        self._bar.update(self._experiment.frame(step) - self._bar.n)
        if step == self._begin > 0:
            return run
        evaluation = step % self._eval_every == 0 or last
        if step % self._log_every == 0 or evaluation:
            run = self._log(run, evaluation)
        if (step % self._save_every == 0 and step > 0) or last or self._stop:
            self.save(run)
        if self._stop and not last:
            raise Stopped
        return run

    def next_due(self, step: int) -> int:
        """The first step after this one at which something is due."""
        periods = (self._log_every, self._eval_every, self._save_every)
        return min(*((step // every + 1) * every for every in periods), self._experiment.schedule.total)

    def save(self, run: Run) -> None:
        """Write a checkpoint, and each seed's networks."""
        started = time.perf_counter()
        # The models first: a kill in between is then made good when the run resumes from the checkpoint before.
        for i, seed in enumerate(self._experiment.config.seeds):
            save_model(self._folder.seed(seed) / "model", run.learner.agent, i)
        self._checkpoints.save(run, self._experiment.pool.snapshot())
        self._clock += time.perf_counter() - started

    def close(self) -> None:
        """Close all files and give Ctrl-C its usual meaning back."""
        signal.signal(signal.SIGINT, self._previous_handler)
        self._bar.close()
        for writer in self._writers:
            writer.close()

    def _on_interrupt(self, *_: Any) -> None:
        if self._stop:
            raise KeyboardInterrupt
        self._stop = True
        tqdm.write("stopping: saving a checkpoint (Ctrl-C again stops at once and loses what came after the last one)")

    def _log(self, run: Run, evaluation: bool) -> Run:
        values = self._training_values(run)
        if evaluation:
            values |= self._evaluate(run)
        frame = self._experiment.frame(run.step)
        for i, writer in enumerate(self._writers):
            writer.write(run.step, frame, {name: float(value[i]) for name, value in values.items()})
        self._show(values)
        if self._compiling and values["train/updates"][0] > 0:
            tqdm.write(f"compiled in {self._compiling.seconds:.0f} s")
            self._compiling = None
        self._clock, self._clock_step = time.perf_counter(), run.step
        learner = replace(run.learner, metrics=_emptied(run.learner.metrics))
        returns, distance = (_emptied(tally) for tally in (run.memory.returns, run.memory.distance))
        return Run(run.step, learner, replace(run.memory, returns=returns, distance=distance))

    def _training_values(self, run: Run) -> dict[str, np.ndarray]:
        """Every metric since the last log point, [seeds] each; NaN where nothing was measured."""
        experiment, updates = self._experiment, self._experiment.schedule.updates(run.step)
        look = experiment.steps.look(run.learner, run.memory, experiment.keys, experiment.schedule.at(run.step))
        plasticity = jax.device_get(look)
        losses, returns = jax.device_get((run.learner.metrics, run.memory.returns))
        seconds = time.perf_counter() - self._clock
        seeds = len(experiment.config.seeds)
        speed = seeds * experiment.frame(run.step - self._clock_step) / seconds
        values = {"train/return": _mean(returns.total, returns.count)}
        values |= {_column(name): _mean(total, losses.count) for name, total in losses.total.items()}
        values |= {f"plasticity/{name}": value for name, value in plasticity.items()}
        values["replay/size"] = np.asarray(jax.vmap(experiment.replay.ready)(run.memory.ring))
        if run.memory.distance is not None:
            values["replay/distance"] = _mean(*jax.device_get((run.memory.distance.total, run.memory.distance.count)))
        values["train/updates"] = np.full(seeds, updates)
        values["time/frames_per_second"] = np.full(seeds, speed if run.step > self._clock_step else np.nan)
        return values

    def _evaluate(self, run: Run) -> dict[str, np.ndarray]:
        experiment, config, step = self._experiment, self._experiment.config, run.step
        every = experiment.every(config.video.every) if config.video.every else 0
        crossed = every and step // every > (step - self._eval_every) // every  # since the evaluation before this one
        film = every and step > 0 and (crossed or step == experiment.schedule.total)
        result = experiment.evaluator.greedy(run.learner.agent, config.video.size if film else 0)
        values = {"eval/return": result.returns.mean(axis=1), "eval/return_std": result.returns.std(axis=1)}
        if step == 0:
            values["eval/random_return"] = experiment.evaluator.random().returns.mean(axis=1)
        if result.frames is not None:
            self._film(step, result.frames)
        return values

    def _film(self, step: int, frames: np.ndarray) -> None:
        """Write the videos. Ctrl-C in a terminal ends ffmpeg too, and a full disk stops it: neither ends the run."""
        experiment, fps = self._experiment, self._experiment.config.video.fps
        try:
            for i, seed in enumerate(experiment.config.seeds):
                write_video(self._folder.video(seed, experiment.frame(step)), frames[i], fps)
            write_video(self._folder.grid(), grid(frames), fps)
        except (RuntimeError, OSError) as error:
            tqdm.write(f"the video at frame {experiment.frame(step)} could not be written: {error}")

    def _show(self, values: dict[str, np.ndarray]) -> None:
        """Mean over seeds behind the progress bar; a value that was not measured keeps its last one."""
        labels = {"eval/return": "return", "plasticity/density": "density", "plasticity/fau": "FAU"}
        for name, label in labels.items():
            if name in values:
                self._shown[label] = f"{np.mean(values[name]):.3g}"
        speed = values["time/frames_per_second"][0]
        self._bar.set_postfix({**self._shown, **({"frames/s": f"{speed:.0f}"} if speed == speed else {})})


def _column(name: str) -> str:
    """Where a metric of the updates stands: with the losses, unless it has a group of its own."""
    return name if "/" in name else f"train/{name}"


def _emptied(tally: Tally | None) -> Any:
    return jax.tree.map(jnp.zeros_like, tally)


def _mean(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
