"""From `config.plasticity` to the optimisers of an agent's networks. Nothing else knows which method is at work."""

from __future__ import annotations

import flax.linen as nn
import optax
from ml_collections import ConfigDict

import ne_jax
from agents.learn import MakeOptimiser, Optimiser

SPARSE = ne_jax.kernels_under("hidden")
"""The wide layers of actor and critic; encoder, projection and heads stay dense."""

METHODS = ("none", "static", "ne")
DISTRIBUTIONS = {"erdos_renyi": ne_jax.erdos_renyi, "uniform": ne_jax.uniform}
SCHEDULES = {"cosine": ne_jax.cosine_growth, "linear": ne_jax.linear_growth}


def make_optimisers(config: ConfigDict, total_updates: int) -> MakeOptimiser:
    """Adam for every network, made plastic for actor and critic as `config.plasticity` says.

    Raises:
        ValueError: a setting is out of range; the sentence names its key.
    """
    _validate(config)
    adam = optax.adam(config.agent.learning_rate)
    if config.plasticity.method == "none":
        return lambda name, network: Optimiser(adam)

    schedule = density_schedule(config, total_updates)

    def prepare(key, params):
        return ne_jax.sparsify(key, params, schedule.initial, SPARSE)

    def make(name: str, network: nn.Module) -> Optimiser:
        if name == "encoder":
            return Optimiser(adam)
        evolution = _evolution(config, schedule, network)
        return Optimiser(ne_jax.plastic(adam, evolution, config.plasticity.every, where=SPARSE), prepare)

    return make


def density_schedule(config: ConfigDict, total_updates: int) -> ne_jax.DensitySchedule:
    """Weights per sparse layer over updates; constant for a static topology."""
    plasticity = config.plasticity
    distribution = DISTRIBUTIONS[plasticity.distribution]
    initial = distribution(1 - plasticity.initial_sparsity)
    if plasticity.method == "static":
        return ne_jax.constant(initial)
    final = distribution(1 - plasticity.final_sparsity)
    # A round can come no later than the last update, and the last round must reach the final density.
    last_round = (total_updates - 1) // plasticity.every * plasticity.every
    if last_round < 1:
        raise ValueError(
            f"plasticity.every={plasticity.every} leaves no round in a run of {total_updates} updates; "
            "lower it, or train for more frames"
        )
    until = max(1, min(round(plasticity.grow_until * total_updates), last_round))
    return SCHEDULES[plasticity.schedule](initial, final, until)


def _evolution(config: ConfigDict, schedule: ne_jax.DensitySchedule, network: nn.Module) -> ne_jax.Evolution:
    plasticity = config.plasticity
    if plasticity.method == "static":
        return ne_jax.static()
    return ne_jax.neuroplastic(
        schedule,
        activity=ne_jax.flax_activity(network.apply) if plasticity.prune == "dormant" else None,
        omega=plasticity.omega,
        tau=plasticity.tau,
        birth=plasticity.birth,
    )


def _validate(config: ConfigDict) -> None:
    plasticity = config.plasticity
    choices = {
        "method": METHODS,
        "distribution": tuple(DISTRIBUTIONS),
        "schedule": tuple(SCHEDULES),
        "prune": ("dormant", "none"),
        "birth": ("zero", "lecun"),
    }
    for key, allowed in choices.items():
        if plasticity[key] not in allowed:
            raise ValueError(f"plasticity.{key} must be one of {', '.join(allowed)}, got {plasticity[key]!r}")
    for key in ("initial_sparsity", "final_sparsity"):
        if not 0 <= plasticity[key] < 1:
            raise ValueError(f"plasticity.{key} must lie in [0, 1), got {plasticity[key]}")
    if plasticity.method == "ne" and plasticity.final_sparsity > plasticity.initial_sparsity:
        raise ValueError(
            f"plasticity.final_sparsity={plasticity.final_sparsity} lies above "
            f"plasticity.initial_sparsity={plasticity.initial_sparsity}, but a network that grows gets less sparse"
        )
    if not 0 < plasticity.grow_until <= 1:
        raise ValueError(f"plasticity.grow_until must lie in (0, 1], got {plasticity.grow_until}")
    if not 0 <= plasticity.omega < 1:
        raise ValueError(f"plasticity.omega must lie in [0, 1), got {plasticity.omega}")
    if plasticity.tau < 0:
        raise ValueError(f"plasticity.tau must not be negative, got {plasticity.tau}")
    if plasticity.every < 1:
        raise ValueError(f"plasticity.every must be a positive number of updates, got {plasticity.every}")
    if config.agent.learning_rate <= 0:
        raise ValueError(f"agent.learning_rate must be positive, got {config.agent.learning_rate}")
