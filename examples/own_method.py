"""Two plasticity methods of one's own, one without memory and one with; docs/own_method.md explains them.

python -m experiments.run --config=examples/own_method.py:smoke
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key
from ml_collections import ConfigDict

import ne_jax
from configs import gymnax_states
from experiments.build.method_types import library
from experiments.build.methods import METHODS
from ne_jax.activity import Activity
from ne_jax.rule import Step, within_masks
from ne_jax.rules.resets import Initialise
from ne_jax.sparsity import Leaves, Masks
from ne_jax.units import idle_units


class _Noise(NamedTuple):
    """The settings of `dormant_noise`, as it takes them."""

    tau: float
    scale: float


def dormant_noise(activity: Activity, *, tau: float = 0.0, scale: float = 0.1) -> ne_jax.Rule:
    """Every round, noise on the weights that lead into dormant units: w + scale / sqrt(inputs) * N(0, 1).

    Args:
        activity: `(params, batch) -> {module path: activations}`, see `flax_activity`.
        tau: a unit is dormant at or below this score.
        scale: of the noise; 1 is as large as LeCun's initial weights are.

    Raises:
        ValueError: a setting is out of range.
    """
    if tau < 0:
        raise ValueError(f"tau must not be negative, got {tau}: a score never is")
    if scale <= 0:
        raise ValueError(f"scale must be positive, got {scale}")
    evolve = partial(_add_noise, _Noise(tau, scale))
    return ne_jax.Rule(ne_jax.stateless(evolve), activity=activity, name="dormant_noise")


def _add_noise(setup: _Noise, key: Key[Array, ""], step: Step, network: ne_jax.Network) -> ne_jax.Evolved:
    activations = network.activations or {}
    new, touched = {}, {}
    for i, (path, weights) in enumerate(sorted(network.params.items())):
        if not ne_jax.kernels(path, weights) or ne_jax.units_of(path, activations) is None:
            continue
        units = idle_units(path, weights.shape[-1], activations, setup.tau)
        touched[path] = ne_jax.incoming(units, weights.shape)
        inputs = weights.size // weights.shape[-1]
        noise = jax.random.normal(jax.random.fold_in(key, i), weights.shape) * setup.scale / inputs**0.5
        new[path] = weights + jnp.where(touched[path], noise, 0)
    # `adjusted`: the weights change, and the optimiser keeps what it knows of them.
    return ne_jax.Evolved(within_masks(network, new), masks={}, fresh={}, adjusted=touched)


class _Reset(NamedTuple):
    """The settings of `reset_unused`, as it takes them."""

    initialise: Initialise
    share: float
    decay: float


def reset_unused(initialise: Initialise, *, share: float = 0.01, decay: float = 0.99) -> ne_jax.Rule:
    """Every round, the weights that have long had the smallest gradients start anew::

        m_t = decay * m_{t-1} + (1 - decay) * |g_t|     # in every update, for each weight of a kernel, from 0
        begin anew: the floor(share * n) smallest m of the n weights that a kernel has

    The m of a weight that begins anew is the kernel's mean, so that it is not the first to go again.

    Args:
        initialise: draws fresh parameters of the whole network from a key.
        share: of each kernel's weights that start anew per round.
        decay: of the running average of |gradient|, per update.

    Raises:
        ValueError: a setting is out of range.
    """
    if not 0 < share < 1:
        raise ValueError(f"share must lie in (0, 1), got {share}")
    if not 0 <= decay < 1:
        raise ValueError(f"decay must lie in [0, 1), got {decay}")
    setup = _Reset(initialise, share, decay)
    return ne_jax.Rule(
        evolve=partial(_reset_smallest, setup),
        init=_no_gradients_yet,
        observe=partial(_average_gradients, setup),
        name="reset_unused",
    )


def _no_gradients_yet(params: Leaves, masks: Masks) -> Leaves:
    return {path: jnp.zeros_like(leaf) for path, leaf in params.items() if ne_jax.kernels(path, leaf)}


def _average_gradients(setup: _Reset, state: Leaves, step: Step, network: ne_jax.Network) -> Leaves:
    return {
        path: setup.decay * average + (1 - setup.decay) * jnp.abs(network.gradients[path])
        for path, average in state.items()
    }


def _reset_smallest(
    setup: _Reset, state: Leaves, key: Key[Array, ""], step: Step, network: ne_jax.Network
) -> tuple[Leaves, ne_jax.Evolved]:
    drawn = ne_jax.leaves_by_path(setup.initialise(key))
    new, fresh, after = {}, {}, {}
    for path, average in state.items():
        exists = network.masks.get(path, jnp.ones(average.shape, bool))
        count = jnp.floor(setup.share * exists.sum()).astype(jnp.int32)
        fresh[path] = ne_jax.select(-average, count, among=exists)
        new[path] = jnp.where(fresh[path], drawn[path], network.params[path])
        after[path] = jnp.where(fresh[path], average.mean(where=exists), average)
    # `fresh`: the optimiser forgets these weights, and counts their updates from zero.
    return after, ne_jax.Evolved(new, masks={}, fresh=fresh)


def get_config(variant: str = "") -> ConfigDict:
    """TD3 on Gymnax tasks with one of the two, and their lines of the registry of experiments/build/methods.py."""
    METHODS["dormant_noise"] = library(dormant_noise, period="every", encoder=True)
    METHODS["reset_unused"] = library(reset_unused, period="every", encoder=True)
    config = gymnax_states.get_config(variant)
    config.plasticity.method, config.exp_id = "reset_unused", "td3_reset_unused"
    return config
