"""From `config.plasticity` to the optimisers of an agent's networks. Agents do not know which method is at work."""

from __future__ import annotations

import flax.linen as nn
import optax
from ml_collections import ConfigDict

import ne_jax
from agents.updates import Initialise, MakeOptimiser, Optimiser
from experiments.build.default_settings import PlasticitySettings
from experiments.build.methods import (
    METHODS,
    SPARSE,
    Context,
    density_schedule,
    make_rule,
    method_names,
    network_settings,
    round_period,
)
from settings import check_value, settings_of

NO_ROUNDS = 2**31 - 1


def make_optimisers(config: ConfigDict, total_updates: int) -> MakeOptimiser:
    """The optimiser of every network, made plastic as `config.plasticity` says.

    Raises:
        ValueError: a setting is out of range; the sentence names its key.
    """
    for network in ("actor", "critic"):
        _validate(network_settings(config, network))
        density_schedule(network_settings(config, network), total_updates)
    methods = [method_names(network_settings(config, network)) for network in ("actor", "critic", "encoder")]
    everywhere = frozenset.intersection(*map(frozenset, methods))

    def make(
        inner: optax.GradientTransformation, name: str, network: nn.Module, initialise: Initialise, plastic: bool
    ) -> Optimiser:
        settings = network_settings(config, name)
        if not plastic:
            settings.method = "+".join(each for each in method_names(settings) if METHODS[each].encoder) or "none"
        if not method_names(settings):
            return Optimiser(inner)
        # What is not plastic stays dense, whatever its method does elsewhere.
        density = density_schedule(settings, total_updates) if plastic else None
        rule = make_rule(Context(settings, network, initialise, total_updates, everywhere))
        tx = ne_jax.plastic(
            inner,
            rule,
            round_period(settings) or NO_ROUNDS,
            where=None if density is None else SPARSE,
            accumulate=settings.grad_accumulation if rule.evolve else 1,
        )

        def prepare(key, params):
            if density is not None:
                params = ne_jax.sparsify(key, params, density.initial, SPARSE, keep=settings.first_masks)
            # After sparsifying, so that what is to cancel has the same masks.
            return ne_jax.inject(params) if injected(settings) else params

        return Optimiser(tx, prepare)

    return make


def plain_optimiser(
    inner: optax.GradientTransformation, name: str, network: nn.Module, initialise: Initialise, plastic: bool
) -> Optimiser:
    """`inner` as it is: with it, fresh parameters stay as they are drawn."""
    return Optimiser(inner)


def injected(settings: ConfigDict) -> bool:
    """Whether a network needs room for plasticity injection."""
    return "plasticity_injection" in method_names(settings)


def _validate(settings: ConfigDict) -> None:
    for each in settings_of(PlasticitySettings):
        if each.key in settings:
            check_value(each, settings[each.key], f"plasticity.{each.key}")
    period = round_period(settings) or settings.every
    if settings.grad_accumulation > period:
        keys = {settings.reset_every: "plasticity.reset_every=", settings.every: "plasticity.every="}
        raise ValueError(
            f"plasticity.grad_accumulation={settings.grad_accumulation} exceeds {keys.get(period, '')}{period}, "
            "the updates from one round to the next; lower it"
        )
    growing = {"ne", "lifelong_ne", "random_grow"} & set(method_names(settings))
    if growing and settings.final_sparsity > settings.initial_sparsity:
        raise ValueError(
            f"plasticity.final_sparsity={settings.final_sparsity} lies above "
            f"plasticity.initial_sparsity={settings.initial_sparsity}, but a network that grows gets less sparse"
        )
    if growing and settings.growth_rate and settings.schedule != "linear":
        raise ValueError(
            "plasticity.growth_rate grows by the same number each round; set --config.plasticity.schedule=linear"
        )
