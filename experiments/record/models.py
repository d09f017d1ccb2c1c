"""The trained networks of each seed, by orbax: what a policy is played from."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import Array, Key, PyTree

import ne_jax
from agents.types import Agent, AgentState
from agents.updates import TrainState
from experiments.build.processes import brought_to_first, several
from experiments.record.folder import Folder
from experiments.record.sums import check_sums, first_line, write_sums
from experiments.train.devices import rows_of
from experiments.train.seeds import over_seeds


def save_models(folder: Folder, seed: int, state: AgentState, seed_index: int) -> None:
    """Write one seed's networks with the run's config; where a run has several processes, such a seed's of each.

    Process 0 writes them all, for orbax writes nothing that another process has alone.
    """
    for own, tree in brought_to_first((np.uint32(seed), networks_of(state, seed_index))):
        write_networks(folder.seed(int(own)) / "model", tree, folder.config)


def networks_of(state: AgentState, seed_index: int) -> dict[str, Any]:
    """One seed's: `{name: {"params": ..., "masks": {path: ...}}}`, target networks as params alone."""
    # On one device, for what reads them may have no more.
    state = jax.tree.map(lambda leaf: rows_of(leaf, seed_index, seed_index + 1), state)
    state = jax.tree.map(lambda leaf: leaf[0], jax.device_put(state, jax.local_devices()[0]))
    tree: dict[str, Any] = {}
    for name, part in vars(state).items():
        if isinstance(part, TrainState):
            tree[name] = {"params": part.params, "masks": _masks(part)}
        elif isinstance(part, dict):
            tree[name] = {"params": part}
    return tree


def write_networks(folder: Path, tree: PyTree, config: Path | None = None) -> None:
    """Write what `networks_of` gives, whole or not at all. `config`: the run's `config.json`; a copy goes beside it."""
    part = folder.absolute().with_name(folder.name + ".part")
    alone = {"active_processes": {0}} if several() else {}
    options = ocp.options.MultiprocessingOptions(**alone)
    with ocp.StandardCheckpointer(multiprocessing_options=options) as checkpointer:
        checkpointer.save(part, tree, force=True)
    if config is not None:
        shutil.copyfile(config, part / "config.json")
    write_sums(part)
    if folder.exists():  # only now, so that a full disk leaves the older one
        shutil.rmtree(folder)
    part.rename(folder)


def _masks(model: TrainState) -> dict[str, Array]:
    """Those of the parameters. An optimiser's go on when its network is frozen."""
    masks = ne_jax.masks(model.opt_state)
    if not model.frozen:
        return masks
    params = ne_jax.leaves_by_path(model.params)
    return {path: params[path] != 0 for path in masks}


def load_model(folder: Path) -> dict[str, PyTree]:
    """Read what `write_networks` wrote, as nested dictionaries of arrays.

    Raises:
        ValueError: the folder holds no networks, or damaged ones.
    """
    try:
        check_sums(folder)
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(folder.absolute())
    except MemoryError:
        raise
    except Exception as error:  # anything can come out of a damaged file
        raise ValueError(f"the networks in {folder} cannot be read ({first_line(error)})") from error


def load_agent(folders: Sequence[Path], agent: Agent, keys: Key[Array, " seeds"]) -> AgentState:
    """The state of all seeds' agents with the networks that `write_networks` wrote, a folder and a key per seed.

    What is not saved, the optimisers' state, is as a new agent's.

    Raises:
        FileNotFoundError: a folder is missing.
        ValueError: a folder holds no networks, or others than the agent has.
    """
    for folder in folders:
        if not folder.exists():
            raise FileNotFoundError(f"{folder} holds no networks yet: they come with the run's first checkpoint")
    state = jax.jit(over_seeds(agent.init, "map"))(keys)
    each = [_load_matching(folder, state) for folder in folders]
    saved = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    parts = {}
    for name, part in vars(state).items():
        if isinstance(part, TrainState):
            parts[name] = replace(part, params=saved[name]["params"])
        elif isinstance(part, dict):
            parts[name] = saved[name]["params"]
    return replace(state, **parts)


def _load_matching(folder: Path, state: AgentState) -> dict[str, PyTree]:
    """The parameters of one seed in a folder, if they are those of the networks of `state`, which is of all seeds."""
    found, wanted = load_model(folder), {}
    for name, part in vars(state).items():
        if isinstance(part, TrainState | dict):
            wanted[name] = {"params": part.params if isinstance(part, TrainState) else part}
    shapes = _shapes(found)
    for path, shape in _shapes(wanted).items():
        if shapes.get(path) != shape[1:]:
            there = f"has the shape {shapes[path]}" if path in shapes else "is missing"
            raise ValueError(f"the networks in {folder} are not those of config.json: {path} {there}, not {shape[1:]}")
    return {name: {"params": found[name]["params"]} for name in wanted}


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(str(getattr(key, "key", key)) for key in path): np.shape(leaf) for path, leaf in leaves}
