"""The networks of a run: their sparse layers, their masks, and what is measured of them."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array
from ml_collections import ConfigDict

import ne_jax
from agents.learn import Model
from agents.types import Agent, AgentState, Metrics
from experiments.optimisers import SPARSE, density_schedule


def measure_plasticity(state: AgentState, activations: dict[str, Array]) -> Metrics:
    """Density of each sparse layer; FAU and dormant ratio (tau 0) over the hidden layers of actor and critic."""
    values = {"fau": ne_jax.fau(activations), "dormant_ratio": ne_jax.dormant_ratio(activations)}
    masks = all_masks(state)
    density = ne_jax.density(masks) if masks else {"all": jnp.ones(())}
    values["density"] = density.pop("all")
    return values | {f"density/{path}": value for path, value in density.items()}


def models(state: AgentState) -> dict[str, Model]:
    """The trained networks of an agent's state, by name."""
    return {name: part for name, part in vars(state).items() if isinstance(part, Model)}


def all_masks(state: AgentState) -> dict[str, Array]:
    """The masks of all trained networks, their paths led by the network's name."""
    return {f"{name}/{path}": mask for name, model in models(state).items() for path, mask in _masks(model).items()}


def sparse_layers(config: ConfigDict, agent: Agent, total_updates: int) -> list[tuple[str, int, int, int]]:
    """Path, size, initial and final number of weights of each sparse layer."""
    if config.plasticity.method == "none":
        return []
    density, rows = density_schedule(config, total_updates), []
    for name, model in models(jax.eval_shape(agent.init, jax.random.key(0))).items():
        if _masks(model):
            shapes = ne_jax.sparse_shapes(model.params, SPARSE)
            first, last = (ne_jax.counts(d, shapes) for d in (density.initial, density.final))
            rows += [(f"{name}/{path}", leaf_size(shapes[path]), first[path], last[path]) for path in sorted(shapes)]
    return rows


def check_masks(layers: list[tuple[str, int, int, int]], state: AgentState, seeds: int) -> None:
    """ValueError unless each of the sparse `layers` of fresh networks holds as many weights as it should start with.

    It would not if its initialiser gives zeros, which cannot be seen while `init` is traced.
    """
    masks = all_masks(state)
    for path, size, first, _ in layers:
        for held in masks[path].reshape(seeds, size).sum(axis=1):
            if int(held) != first:
                raise ValueError(
                    f"the sparse layer {path} begins with {int(held)} weights in place of {first}: its initialiser "
                    "gives zeros, so that its zero pattern cannot be its mask; give it another one"
                )


def leaf_size(shape: tuple[int, ...]) -> int:
    """Number of weights."""
    return math.prod(shape)


def _masks(model: Model) -> dict[str, Any]:
    return ne_jax.masks(model.opt_state)
