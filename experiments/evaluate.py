"""Play what a run has learned: `python -m experiments.evaluate --run=results/drq_ne_cheetah_run --episodes=20`.

The networks of the run's newest checkpoint act greedily, with the run's own config, in the episodes that its
evaluations played and in those that follow them. Prints each seed's mean return, and the interquartile mean over seeds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from absl import app, flags, logging
from jaxtyping import Float
from ml_collections import ConfigDict
from numpy import ndarray

from experiments.run import CURABLE


def read_config(folder: Path) -> ConfigDict:
    """The config that a run was made with.

    Raises:
        FileNotFoundError: the folder holds no run.
    """
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"--run={folder} holds no config.json; give a folder that experiments.run has made")
    return ConfigDict(_with_tuples(json.loads((folder / "config.json").read_text())))


def _with_tuples(value: Any) -> Any:
    """What JSON has as a list is a tuple in a config."""
    if isinstance(value, dict):
        return {key: _with_tuples(each) for key, each in value.items()}
    return tuple(value) if isinstance(value, list) else value


def play(folder: Path, config: ConfigDict, episodes: int) -> Float[ndarray, "seeds episodes"]:
    """Returns of a run's networks in greedy episodes.

    Args:
        config: that of the run, or one which differs from it in nothing that its networks know of.

    Raises:
        FileNotFoundError: the folder holds no networks yet.
        ValueError: the run has several tasks in turn.
    """
    from experiments.build.experiment import setup
    from experiments.record.checkpoints import load_agent

    config.eval.episodes, config.video.every = episodes, 0
    config.replay.store, config.replay.vary = "auto", {"camera": 0.0, "colour": 0.0, "light": 0.0}
    config.replay.capacity = 100 * config.env.num_envs  # never filled
    config.replay.dynamic.on = False
    experiment = setup(config)
    try:
        if experiment.tasks is not None:
            raise ValueError(f"--run={folder} has several tasks in turn; this plays runs of one task")
        places = [folder / str(seed) / "model" for seed in config.seeds]
        return experiment.evaluator.greedy(load_agent(places, experiment.agent, experiment.keys), 0).returns
    finally:
        experiment.close()


def main(_: list[str]) -> int:
    """Print a line per seed and one for all; the exit status is 0, or 2 where there is nothing to play."""
    from experiments.record.statistics import bootstrap_ci, iqm

    logging.set_verbosity(logging.WARNING)
    folder = Path(_RUN.value)
    try:
        config = read_config(folder)
        returns = play(folder, config, _EPISODES.value)
    except CURABLE as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for seed, each in zip(config.seeds, returns, strict=True):
        print(
            f"seed {seed}: mean return {each.mean():.1f} of {len(each)} episodes ({each.min():.1f} to {each.max():.1f})"
        )
    means = returns.mean(axis=1)
    low, high = bootstrap_ci(means)
    print(f"interquartile mean over seeds {iqm(means):.1f}, 95 % interval {low:.1f} to {high:.1f}")
    return 0


if __name__ == "__main__":
    _RUN = flags.DEFINE_string("run", None, "A folder that experiments.run has made.", required=True)
    _EPISODES = flags.DEFINE_integer("episodes", 20, "Episodes per seed.", lower_bound=1)
    app.run(main)
