"""The sparse layers of a run's networks: their sizes, and how many weights they begin and end with."""

from __future__ import annotations

import math

import jax
from jaxtyping import Array, Bool, Key
from ml_collections import ConfigDict

import ne_jax
from agents.types import Agent, AgentState
from agents.updates import train_states
from experiments.build.methods import density_schedule, network_settings
from experiments.train.network_metrics import all_masks


def sparse_layers(config: ConfigDict, agent: Agent, total_updates: int) -> list[tuple[str, int, int, int]]:
    """Path, size, initial and final number of weights of each sparse layer."""

    def begun(key: Key[Array, ""]) -> dict[str, dict[str, Bool[Array, "..."]]]:
        return {name: ne_jax.masks(model.opt_state) for name, model in train_states(agent.init(key)).items()}

    rows = []
    for name, masks in jax.eval_shape(begun, jax.random.key(0)).items():
        density = density_schedule(network_settings(config, name), total_updates) if masks else None
        if density is not None:
            shapes = {path: mask.shape for path, mask in masks.items()}
            first, last = (ne_jax.counts(d, shapes) for d in (density.initial, density.final))
            rows += [(f"{name}/{path}", leaf_size(shapes[path]), first[path], last[path]) for path in sorted(shapes)]
    return rows


def check_masks(layers: list[tuple[str, int, int, int]], state: AgentState) -> None:
    """ValueError unless each of the sparse `layers` of fresh networks holds as many weights as it should start with.

    It would not if its initialiser gives zeros, which cannot be seen while `init` is traced.
    """
    masks = all_masks(state)
    for path, size, first, _ in layers:
        for held in masks[path].reshape(-1, size).sum(axis=1):
            if int(held) != first:
                raise ValueError(
                    f"the sparse layer {path} begins with {int(held)} weights in place of {first}: its initialiser "
                    "gives zeros, so that its zero pattern cannot be its mask; give it another one"
                )


def leaf_size(shape: tuple[int, ...]) -> int:
    """Number of weights."""
    return math.prod(shape)
