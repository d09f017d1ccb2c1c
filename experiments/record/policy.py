"""What a run has learned, as something that acts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import is_dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32
from ml_collections import ConfigDict

from agents.types import Agent, AgentState
from experiments.build.checks import validate
from experiments.build.default_settings import RunSettings
from experiments.build.experiment import setup
from experiments.record.folder import check_trained_with, compared
from experiments.record.metrics_files import read_json
from experiments.record.models import load_agent
from experiments.train.rollout import Stack, stack_frames
from experiments.train.step import greedy_action
from settings import settings_of


def read_config(folder: Path) -> ConfigDict:
    """The config that a run was made with.

    Raises:
        FileNotFoundError: the folder holds no run.
        ValueError: its config is damaged, or not the one that its networks were trained with.
    """
    path = folder / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"{folder} holds no config.json; give a folder that experiments.run has made")
    saved = read_json(path)
    groups = [name for name, value in vars(RunSettings()).items() if is_dataclass(value)]
    for group in ("env", "agent", *groups):
        if not isinstance(saved.get(group, {}), dict):
            raise ValueError(f"{path} is damaged, its {group} is no group of settings")
    check_trained_with(folder, saved)
    try:
        config = ConfigDict(_with_tuples(_with_new_keys(saved)))
        validate(config)
    except ValueError as error:
        raise ValueError(f"{path} is damaged, or of another version: {error}") from error
    return config


def _with_new_keys(saved: dict[str, Any]) -> dict[str, Any]:
    """The config of an earlier version with the keys that it lacks, as far as they do not say what is computed."""
    for each in settings_of(RunSettings):
        if not compared(each.key):
            *groups, name = each.key.split(".")
            at = reduce(lambda tree, group: tree.setdefault(group, {}), groups, saved)
            at.setdefault(name, each.default)
    return saved


def _with_tuples(value: Any) -> Any:
    """What JSON has as a list is a tuple in a config."""
    if isinstance(value, dict):
        return {key: _with_tuples(each) for key, each in value.items()}
    return tuple(value) if isinstance(value, list) else value


def with_seeds(config: ConfigDict, seeds: Sequence[int]) -> ConfigDict:
    """The config of a run, of these of its seeds alone.

    Raises:
        ValueError: it has no such seed.
    """
    for seed in seeds:
        if seed not in config.seeds:
            raise ValueError(f"the run has the seeds {', '.join(map(str, config.seeds))}, and no seed {seed}")
    config.seeds = tuple(seeds)
    return config


def to_be_played(config: ConfigDict) -> ConfigDict:
    """The config of a run with nothing in it that only training needs, such as room for a replay."""
    config.video.every = 0
    config.replay.store, config.replay.vary = "auto", {"camera": 0.0, "colour": 0.0, "light": 0.0}
    config.replay.capacity = 100 * config.env.num_envs  # never filled
    config.replay.dynamic.on = False
    config.over_seeds, config.devices = "auto", 1
    return config


class Policy:
    """The greedy policy of one seed, for anyone's loop: `policy.reset()` as an episode begins, `action = policy(obs)`.

    An observation is what the run's environment shows in one step: a picture, uint8 [size, size, 3], or a state vector,
    [features]. Frames are stacked here. Actions lie in [-1, 1], whatever the limits of the environment are.
    """

    def __init__(self, agent: Agent, state: AgentState, shape: tuple[int, ...], frame_stack: int) -> None:
        self._shape, self._frame_stack = shape, frame_stack
        self._dtype = np.uint8 if len(shape) == 3 else np.float32
        self._stack: Stack | None = None
        self._act = jax.jit(lambda stack: greedy_action(agent, state, stack))

    def reset(self) -> None:
        """The next observation is the first one of an episode."""
        self._stack = None

    def __call__(self, obs: np.ndarray) -> Float32[np.ndarray, " actions"]:
        """The action that follows on an observation.

        Raises:
            ValueError: it is none of the kind that the policy has learned from.
        """
        obs = np.asarray(obs)
        if obs.shape != self._shape or (self._dtype == np.uint8 and obs.dtype != np.uint8):
            raise ValueError(
                f"the policy has learned from {np.dtype(self._dtype)} {list(self._shape)}, got {obs.dtype} "
                f"{list(obs.shape)}"
            )
        self._stack = stack_frames(self._frame_stack, self._stack, jnp.asarray(obs.astype(self._dtype)))
        return np.asarray(self._act(self._stack), np.float32)


def load_policy(run: str | Path, seed: int | None = None) -> Policy:
    """The policy that a run has learned, from its newest checkpoint.

    Args:
        run: the run's folder, such as `results/drq_ne_cheetah_run`.
        seed: one of the run's seeds; None: its first.

    Raises:
        FileNotFoundError: the folder holds no run, or no networks yet.
        ValueError: the run has no such seed.
    """
    folder, config = Path(run), read_config(Path(run))
    seed = config.seeds[0] if seed is None else seed
    experiment = setup(to_be_played(with_seeds(config, [seed])))
    try:
        states = load_agent([folder / str(seed) / "model"], experiment.agent, experiment.keys)
        shape = jax.eval_shape(experiment.spec.observe, experiment.spec.scene).shape
        state = jax.tree.map(lambda leaf: leaf[0], states)
        return Policy(experiment.agent, state, shape, config.env.frame_stack)
    finally:
        experiment.close()
