"""Play what a run has learned: `python -m experiments.evaluate --run=results/drq_ne_cheetah_run --episodes=20`.

The networks of the run's newest checkpoint act greedily, with the run's own config, in the episodes that its
evaluations played and in those that follow them. Prints each seed's mean return, and the interquartile mean over seeds;
with --json all returns, too, for other programs. --video films each seed's first episode, --renderer draws the pictures
that a run of dm_control from pixels sees by another renderer.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import app, flags, logging
from jaxtyping import Float, UInt8
from ml_collections import ConfigDict
from numpy import ndarray

from experiments.build.allocator import keep_freed_memory
from experiments.build.errors import CURABLE, is_told

if TYPE_CHECKING:  # which takes seconds
    from experiments.train.evaluation import Evaluation

RENDERERS = ("jax", "gl")


def play(folder: Path, config: ConfigDict, episodes: int, video_size: int = 0) -> Evaluation:
    """A run's networks in greedy episodes.

    Args:
        config: that of the run, or one which differs from it in nothing that its networks know of.
        video_size: width of the frames of each seed's first episode, in pixels; 0: there are none.

    Raises:
        FileNotFoundError: the folder holds no networks yet.
        ValueError: the run has several tasks in turn.
    """
    from experiments.build.compile_cache import keep_compiled
    from experiments.build.experiment import setup
    from experiments.record.models import load_agent
    from experiments.record.policy import to_be_played

    if config.compile_cache:
        keep_compiled()
    config.eval.episodes = episodes
    experiment = setup(to_be_played(config))
    try:
        if experiment.tasks is not None:
            raise ValueError(f"--run={folder} has several tasks in turn; this plays runs of one task")
        places = [folder / str(seed) / "model" for seed in config.seeds]
        return experiment.evaluator.greedy(load_agent(places, experiment.agent, experiment.keys), video_size)
    finally:
        experiment.close()


def drawn_by(renderer: str, folder: Path, config: ConfigDict) -> ConfigDict:
    """The config of a run of dm_control from pixels whose pictures come from `renderer`; on MuJoCo, if it is on MJX.

    Raises:
        ValueError: it is no such run.
    """
    if config.env.kind != "dmc" or not config.env.pixels:
        raise ValueError(
            f"--run={folder} is no run of dm_control from pixels: its pictures come from one renderer only"
        )
    config.env.backend, config.env.renderer = "mujoco", renderer
    return config


def main(_: list[str]) -> int:
    """Print a line per seed and one for all; the exit status is 0, or 2 where there is nothing to play."""
    from experiments.record.divergence import diverged_seeds
    from experiments.record.policy import read_config, with_seeds

    keep_freed_memory()
    logging.set_verbosity(logging.WARNING)
    folder = Path(_RUN.value)
    try:
        config = read_config(folder)
        config = with_seeds(config, _SEED.value or config.seeds)
        if _RENDERER.value:
            config = drawn_by(_RENDERER.value, folder, config)
        fps = config.video.fps
        result = play(folder, config, _EPISODES.value, config.video.size if _VIDEO.value else 0)
        if result.frames is not None and _VIDEO.value:
            _film(Path(_VIDEO.value), config.seeds, result.frames, fps)
    except CURABLE as error:
        if not is_told(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    _tell(config.seeds, result.returns, diverged_seeds(folder, config.seeds))
    return 0


def _film(folder: Path, seeds: Sequence[int], frames: UInt8[ndarray, "seeds steps size size 3"], fps: int) -> None:
    """A video for each seed, and one of all side by side."""
    from experiments.record.video import grid, write_video

    folder.mkdir(parents=True, exist_ok=True)
    for seed, each in zip(seeds, frames, strict=True):
        write_video(folder / f"{seed}.mp4", each, fps)
    write_video(folder / "grid.mp4", grid(frames), fps)
    print(f"videos in {folder}", file=sys.stderr)


def _tell(seeds: Sequence[int], returns: Float[ndarray, "seeds episodes"], diverged: Sequence[int]) -> None:
    """Print the returns, as lines or as JSON. Seeds that have diverged are named, and count nowhere."""
    from experiments.record.statistics import bootstrap_ci, iqm

    for seed in diverged:
        print(f"seed {seed} has diverged in training: it has no return and does not count", file=sys.stderr)
    sound = [i for i, seed in enumerate(seeds) if seed not in diverged]
    if not sound:
        return
    seeds, returns = [seeds[i] for i in sound], returns[sound]
    means = returns.mean(axis=1)
    low, high = bootstrap_ci(means)
    if _JSON.value:
        found = {str(seed): each.tolist() for seed, each in zip(seeds, returns, strict=True)}
        print(json.dumps({"returns": found, "iqm": float(iqm(means)), "interval": [float(low), float(high)]}))
        return
    for seed, each in zip(seeds, returns, strict=True):
        print(
            f"seed {seed}: mean return {each.mean():.1f} of {len(each)} episodes ({each.min():.1f} to {each.max():.1f})"
        )
    print(f"interquartile mean over seeds {iqm(means):.1f}, 95 % interval {low:.1f} to {high:.1f}")


if __name__ == "__main__":
    _RUN = flags.DEFINE_string("run", None, "A folder that experiments.run has made.", required=True)
    _EPISODES = flags.DEFINE_integer("episodes", 20, "Episodes per seed.", lower_bound=1)
    _SEED = flags.DEFINE_multi_integer("seed", None, "One of the run's seeds, once for each; default: all.")
    _JSON = flags.DEFINE_bool("json", False, "Print all returns as one line of JSON.")
    _VIDEO = flags.DEFINE_string("video", None, "A folder for SEED.mp4 of each seed's first episode, and grid.mp4.")
    _RENDERER = flags.DEFINE_enum("renderer", None, RENDERERS, "Draws the pictures; default: as in the run.")
    app.run(main)
