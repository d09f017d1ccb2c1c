"""What is measured of a run's networks on one batch: units, features, weights, gradients, masks, actions, values."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Key

import ne_jax
from agents.replay import Episodes
from agents.types import Agent, AgentState, Metrics, Obs, Params
from agents.updates import TrainState, train_states
from experiments.train.experience import greedy_actions
from experiments.train.state import Number, new_agent

TAUS = (0.0, 0.025, 0.1)
"""Thresholds at which dormant units are counted: silent ones, and those that ReDo's authors count."""
SATURATED = 0.97
"""Size of an action from which on the slope of tanh, 1 - a^2, is below 0.06."""


def measure_plasticity(
    state: AgentState, activations: dict[str, Array], gradients: dict[str, Params], initial: dict[str, Params]
) -> Metrics:
    """What is logged of an agent's networks, on one batch; docs/method.md lists it.

    FAU, dormant ratios and GraMa ratios over the hidden layers of actor and critic, overall and by layer; ranks and
    norm of what the last hidden layers give; norms of weights and gradients, and how far the weights are from their
    `initial` values; densities of the sparse layers; what the newest round did.
    """
    values = by_layer("fau", ne_jax.fau_by_layer(activations))
    kernels = _hidden_kernels(activations, gradients)
    for tau in TAUS:
        at = f"_{tau}" if tau else ""
        values |= by_layer(f"dormant_ratio{at}", ne_jax.dormant_ratio_by_layer(activations, tau))
        values |= by_layer(f"grama_ratio{at}", ne_jax.gradient_dormant_ratio_by_layer(kernels, tau))
    for path, features in last_layers(activations).items():
        measured = ne_jax.ranks(features) | {"feature_norm": ne_jax.feature_norm(features)}
        values |= {f"{name}/{path}": value for name, value in measured.items()}
    for name, model in train_states(state).items():
        values[f"weight_norm/{name}"] = ne_jax.norm(model.params)
        values[f"weight_distance/{name}"] = ne_jax.distance(model.params, initial[name])
        values[f"gradient_norm/{name}"] = ne_jax.norm(gradients[name])
        values |= _round_values(name, ne_jax.record(model.opt_state))
    masks = all_masks(state)
    return values | by_layer("density", ne_jax.density(masks) if masks else {"all": jnp.ones(())})


def measure_behaviour(agent: Agent, state: AgentState, obs: Obs, newest: Episodes) -> Metrics:
    """How the greedy policy acts on a batch, and whether the critics know what comes of it.

    `saturation` is the share of the actions' entries beyond 0.97 in size, `q` the mean of the smaller critic's values
    of these actions. `q_start` is the same where the newest episodes began, and `return_start` their discounted
    returns, which it estimates, in the same scale; NaN where none is whole.
    """

    action = greedy_actions(agent, state, obs)
    found = {"saturation": (jnp.abs(action) > SATURATED).mean()}
    if agent.values:
        found["q"] = agent.values(state, obs, action).mean()
        found["q_start"] = jnp.mean(
            agent.values(state, newest.obs, greedy_actions(agent, state, newest.obs)), where=newest.whole
        )
        found["return_start"] = jnp.mean(newest.value, where=newest.whole)
    return found


def initial_params(agent: Agent, key: Key[Array, ""], task: Number) -> dict[str, Params]:
    """The parameters that each network of a seed began with, or with a later task, drawn again."""
    return {name: model.params for name, model in train_states(new_agent(agent, key, task)).items()}


def by_layer(name: str, values: dict[str, Array]) -> Metrics:
    """The value over all layers under the name alone, and the others with their path."""
    return {name if path == "all" else f"{name}/{path}": value for path, value in values.items()}


def _hidden_kernels(activations: dict[str, Array], gradients: dict[str, Params]) -> dict[str, Array]:
    """The gradients of the kernels whose layers have activations, by the layers' paths."""
    leaves = ne_jax.leaves_by_path(gradients)
    kernels = {path: leaf for path, leaf in leaves.items() if ne_jax.kernels(path, leaf)}
    return {layer: leaf for layer in activations for path, leaf in kernels.items() if path.startswith(f"{layer}/")}


def last_layers(activations: dict[str, Array]) -> dict[str, Array]:
    """Of each stack of hidden layers the last one's activations: `critic/q1/hidden_1` is called `critic/q1`."""
    stacks: dict[str, tuple[int, Array]] = {}
    for path, h in activations.items():
        stack, _, layer = path.rpartition("/")
        number = int(layer.rpartition("_")[2])
        if stack not in stacks or stacks[stack][0] < number:
            stacks[stack] = number, h
    return {stack: h for stack, (_, h) in stacks.items()}


def _round_values(name: str, record: ne_jax.Record | None) -> Metrics:
    """Growth and pruning of a network's newest round; nothing where the topology cannot change."""
    if record is None:
        return {}
    share = record.regrown / jnp.maximum(record.born, 1)
    counts = {"born": record.born, "removed": record.removed, "regrown_share": share, "churn": record.churn}
    return {f"{what}/{name}": value for what, value in counts.items()}


def all_masks(state: AgentState) -> dict[str, Array]:
    """The masks of all trained networks, their paths led by the network's name."""
    return {
        f"{name}/{path}": mask for name, model in train_states(state).items() for path, mask in _masks(model).items()
    }


def _masks(model: TrainState) -> dict[str, Any]:
    return ne_jax.masks(model.opt_state)
