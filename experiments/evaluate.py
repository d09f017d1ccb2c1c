"""Play what a run has learned: `python -m experiments.evaluate --run=results/drq_ne_cheetah_run --episodes=20`.

The networks of the run's newest checkpoint act greedily, with the run's own config, in the episodes that its
evaluations played and in those that follow them. Prints each seed's mean return, and the interquartile mean over seeds;
with --json all returns, too, for other programs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from absl import app, flags, logging
from jaxtyping import Float
from ml_collections import ConfigDict
from numpy import ndarray

from experiments.run import CURABLE


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
    from experiments.record.policy import to_be_played

    config.eval.episodes = episodes
    experiment = setup(to_be_played(config))
    try:
        if experiment.tasks is not None:
            raise ValueError(f"--run={folder} has several tasks in turn; this plays runs of one task")
        places = [folder / str(seed) / "model" for seed in config.seeds]
        return experiment.evaluator.greedy(load_agent(places, experiment.agent, experiment.keys), 0).returns
    finally:
        experiment.close()


def main(_: list[str]) -> int:
    """Print a line per seed and one for all; the exit status is 0, or 2 where there is nothing to play."""
    from experiments.record.policy import read_config, with_seeds
    from experiments.record.statistics import bootstrap_ci, iqm

    logging.set_verbosity(logging.WARNING)
    folder = Path(_RUN.value)
    try:
        config = read_config(folder)
        config = with_seeds(config, _SEED.value or config.seeds)
        returns = play(folder, config, _EPISODES.value)
    except CURABLE as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    means = returns.mean(axis=1)
    low, high = bootstrap_ci(means)
    if _JSON.value:
        found = {str(seed): each.tolist() for seed, each in zip(config.seeds, returns, strict=True)}
        print(json.dumps({"returns": found, "iqm": float(iqm(means)), "interval": [float(low), float(high)]}))
        return 0
    for seed, each in zip(config.seeds, returns, strict=True):
        print(
            f"seed {seed}: mean return {each.mean():.1f} of {len(each)} episodes ({each.min():.1f} to {each.max():.1f})"
        )
    print(f"interquartile mean over seeds {iqm(means):.1f}, 95 % interval {low:.1f} to {high:.1f}")
    return 0


if __name__ == "__main__":
    _RUN = flags.DEFINE_string("run", None, "A folder that experiments.run has made.", required=True)
    _EPISODES = flags.DEFINE_integer("episodes", 20, "Episodes per seed.", lower_bound=1)
    _SEED = flags.DEFINE_multi_integer("seed", None, "One of the run's seeds, once for each; default: all.")
    _JSON = flags.DEFINE_bool("json", False, "Print all returns as one line of JSON.")
    app.run(main)
