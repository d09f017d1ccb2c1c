"""Does a policy know its task in another picture? `python -m experiments.transfer --run=results/drq_ne_cheetah_run`.

Plays the networks that a run of dm_control pixels left, greedily, in the same episodes with each renderer, and prints
the mean returns and their ratio to those with the renderer that the run was trained with. Runs on MJX are played on
MuJoCo. `gl` needs OpenGL.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging
from jaxtyping import Float
from ml_collections import ConfigDict

from agents.types import AgentState
from agents.updates import TrainState
from experiments.build.experiment import Experiment, setup
from experiments.record.checkpoints import load_model
from experiments.train.seeds import over_seeds


def play(folder: Path, renderer: str, episodes: int) -> Float[np.ndarray, "seeds episodes"]:
    """Returns of a run's networks in episodes drawn by `renderer`, `jax` or `gl`.

    Raises:
        FileNotFoundError: the folder holds no run, or no networks yet.
        ValueError: it is no run of dm_control from pixels.
    """
    config = _config(folder)
    if config.env.kind != "dmc" or not config.env.pixels:
        raise ValueError(
            f"--run={folder} is no run of dm_control from pixels: its pictures come from one renderer only"
        )
    if config.env.get("sequence"):
        raise ValueError(f"--run={folder} has several tasks in turn; this plays runs of one task")
    config.env.backend, config.env.renderer, config.eval.episodes = "mujoco", renderer, episodes
    config.replay.store, config.replay.vary, config.video.every = "auto", ConfigDict(), 0
    config.replay.capacity = 100 * config.env.num_envs  # never filled
    config.replay.dynamic.on = False
    experiment = setup(config)
    try:
        return experiment.evaluator.greedy(_networks(experiment, folder), 0).returns
    finally:
        experiment.close()


def _config(folder: Path) -> ConfigDict:
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"--run={folder} holds no config.json; give a folder that experiments.run has made")
    return ConfigDict(json.loads((folder / "config.json").read_text()))


def _networks(experiment: Experiment, folder: Path) -> AgentState:
    state = jax.jit(over_seeds(experiment.agent.init, "map"))(experiment.keys)
    places = [folder / str(seed) / "model" for seed in experiment.config.seeds]
    if not all(place.exists() for place in places):
        raise FileNotFoundError(f"{folder} holds no networks yet: they come with the run's first checkpoint")
    saved = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(load_model, places))
    parts = {}
    for name, part in vars(state).items():
        if isinstance(part, TrainState):
            parts[name] = replace(part, params=saved[name]["params"])
        elif isinstance(part, dict):
            parts[name] = saved[name]["params"]
    return replace(state, **parts)


def main(_: list[str]) -> None:
    """Print a line per renderer."""
    logging.set_verbosity(logging.WARNING)
    folder = Path(_RUN.value)
    try:
        trained = _config(folder).env.get("renderer", "gl")
        before = 0.0
        for renderer in (trained, "gl" if trained == "jax" else "jax"):
            returns = play(folder, renderer, _EPISODES.value)
            mean, seeds = float(returns.mean()), ", ".join(f"{mean:.1f}" for mean in returns.mean(axis=1))
            before = before or mean
            ratio = f"{mean / before:.3f} x" if before else "no ratio to nothing"
            print(f"{renderer:>4}: mean return {mean:.1f} ({seeds}), {ratio}", flush=True)
    except (ValueError, RuntimeError, OSError, MemoryError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    _RUN = flags.DEFINE_string("run", None, "A folder that experiments.run has made.", required=True)
    _EPISODES = flags.DEFINE_integer("episodes", 10, "Episodes per seed.")
    app.run(main)
