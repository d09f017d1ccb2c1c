"""Rules that remember how useful each unit is, and in every update replace a few that are of least use."""

from __future__ import annotations

from functools import partial
from itertools import accumulate
from operator import mul
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from ne_jax.activity import Activity, units_of
from ne_jax.numbers import Number, is_known
from ne_jax.rule import Evolved, Network, Rule, Step, evolve_if, within_masks
from ne_jax.rules.resets import TO_HEAD, Initialise
from ne_jax.sparsity import Leaves, Masks, leaves_by_path, select
from ne_jax.units import Follows, begun_anew, beside, followed, some_followed


class Usefulness(NamedTuple):
    """What is remembered of one layer's units. `inputs`: as many as the following layer takes, which after a flattened
    convolution are more than this layer's units, its channels."""

    utility: Float[Array, " units"]
    """Running average of the contribution utility, from zero; not corrected for its bias."""
    age: Int[Array, " units"]
    """Updates since the unit began, or began anew."""
    mean: Float[Array, " inputs"]
    """Running average of what the unit gives to the following layer, from zero; not corrected for its bias."""
    due: Float[Array, ""]
    """Units of the layer to replace, the fraction included."""


Memory = dict[str, Usefulness]
"""By the path of a layer's kernel."""


class _Setup(NamedTuple):
    """The settings of `continual_backprop`, as it takes them."""

    initialise: Initialise
    replacement_rate: Number
    maturity: int
    decay: Number
    follows: Follows


def continual_backprop(
    activity: Activity,
    initialise: Initialise,
    *,
    replacement_rate: Number = 1e-4,
    maturity: int = 100,
    decay: Number = 0.99,
    follows: Follows = TO_HEAD,
) -> Rule:
    """Continual backpropagation: in every update, a small share of the mature units begins anew, those of least utility
    first (Dohare et al. 2024, "Loss of plasticity in deep continual learning", Nature 632, Methods).

    After each optimiser step, for each layer with units i, activations h and weights w to the following layer::

        age_i     += 1
        utility_i  = decay * utility_i + (1 - decay) * mean |h_i| * sum_k |w_ik|          # eq. 1, mean over the batch
        mature     = age > maturity
        due       += replacement_rate * number of mature units
        n          = floor(due);  due -= n
        begin anew = the n mature units with the smallest utility_i / (1 - decay ** age_i)

    A unit that begins anew gets incoming weights from `initialise`, bias 0 (scale 1 of a norm), outgoing weights 0,
    utility and age 0, and the optimiser forgets all of these weights. Three things are not in the paper's algorithm but
    in its authors' code. The utility's bias is corrected by the division. Several units may go at once; the paper takes
    one where due > 1. And the following layer's bias takes over the unit's mean output (a running average, corrected
    alike) times its outgoing weights, so that what the layer computes changes little. (The published code for dense
    layers clears that mean before it is used, and so moves nothing.) Between two units in successive layers that begin
    anew together, the weight is zero here.

    Published settings: decay 0.99 throughout; maturity 100 on Continual ImageNet, 1,000 with a replacement rate of 1e-5
    on class-incremental CIFAR-100, and 10,000 with 1e-4 for PPO on Ant (the last from their code).

    As published, units are replaced in any update: `plastic(..., every=1)`. With a larger `every` (or `spaced`), ages
    and utilities are kept in every update, and what has become due is replaced in rounds.

    Args:
        activity: `(params, batch) -> {module path: activations}`, see `flax_activity`; needs `tx.update(batch=...)`.
        initialise: draws fresh parameters of the whole network from a key.
        replacement_rate: share of the mature units of a layer that is replaced per update, in [0, 1].
        maturity: updates for which a new unit is safe, >= 0.
        decay: of the running averages per update, in [0, 1).
        follows: says which kernel takes a layer's output; layers that none follows have no units to replace.

    Raises:
        ValueError: a setting is out of range; at `init`, no layer is followed by another; at `update`, a layer has no
            activations, or not as many as the following layer takes.
    """
    if is_known(replacement_rate) and not 0 <= replacement_rate <= 1:
        raise ValueError(f"replacement_rate must lie in [0, 1], got {replacement_rate}: it is a share of units")
    if maturity < 0:
        raise ValueError(f"maturity must not be a negative number of updates, got {maturity}")
    if is_known(decay) and not 0 <= decay < 1:
        raise ValueError(f"decay must lie in [0, 1), got {decay}: with 1 nothing would ever be remembered")
    setup = _Setup(initialise, replacement_rate, maturity, decay, follows)
    return Rule(
        evolve=partial(_evolve, setup),
        activity=activity,
        init=partial(_init, setup),
        observe=partial(_observe, setup),
        name="continual_backprop",
    )


def _init(setup: _Setup, params: Leaves, masks: Masks) -> Memory:
    layers = some_followed("continual_backprop", setup.follows, params)

    def nothing(units: int, inputs: int) -> Usefulness:
        return Usefulness(jnp.zeros(units), jnp.zeros(units, jnp.int32), jnp.zeros(inputs), jnp.zeros(()))

    return {path: nothing(params[path].shape[-1], params[following].shape[-2]) for path, following in layers.items()}


def _observe(setup: _Setup, state: Memory, step: Step, network: Network) -> Memory:
    """Ages, utilities and what is due, after one more update."""
    new = {}
    for path, following in followed(setup.follows, network.params).items():
        old, inputs = state[path], _inputs(path, network.params[following], network)
        weights = jnp.abs(network.params[following])
        contribution = jnp.abs(inputs).mean(axis=0) * weights.sum(axis=(*range(weights.ndim - 2), weights.ndim - 1))
        age = old.age + 1
        new[path] = Usefulness(
            setup.decay * old.utility + (1 - setup.decay) * contribution.reshape(-1, age.size).sum(axis=0),
            age,
            setup.decay * old.mean + (1 - setup.decay) * inputs.mean(axis=0),
            old.due + setup.replacement_rate * (age > setup.maturity).sum(),
        )
    return new


def _inputs(path: str, following: Float[Array, "*fan inputs units"], network: Network) -> Float[Array, "rows inputs"]:
    """The activations of the layer at `path` as the following layer takes them.

    A convolution's are [batch, height, width, channel]: a convolution that follows takes channels, a dense layer all of
    an image at once.
    """
    h = units_of(path, network.activations or {})
    if h is None:
        raise ValueError(
            f"continual_backprop needs the activations of {path}, and there are only those of "
            f"{sorted(network.activations or {})}; sow them in its module, or leave it out by `follows`"
        )
    # All of a layer's units, or all of an image's values at once; the first axis is the batch's.
    if following.shape[-2] not in accumulate(reversed(h.shape[1:]), mul):
        raise ValueError(f"{path} gives activations of shape {h.shape}, and {following.shape[-2]} inputs follow")
    return h.reshape(-1, following.shape[-2])


def _evolve(setup: _Setup, state: Memory, key: Key[Array, ""], step: Step, network: Network) -> tuple[Memory, Evolved]:
    """Replace the units that are due. Nothing is drawn in an update in which none is."""
    due = jnp.stack([layer.due for layer in state.values()]).max() >= 1
    # Asked while there are activations, which say how large a layer's module is.
    neutral = {path: beside(path, network.params, network.activations) for path in state}
    return evolve_if(due, partial(_replace, setup, neutral), state, key, step, network._replace(activations=None))


def _least_useful(setup: _Setup, layer: Usefulness) -> Bool[Array, " units"]:
    corrected = layer.utility / (1 - setup.decay ** jnp.maximum(layer.age, 1))
    return select(-corrected, jnp.floor(layer.due).astype(jnp.int32), among=layer.age > setup.maturity)


def _replace(
    setup: _Setup,
    neutral: dict[str, dict[str, float]],
    state: Memory,
    key: Key[Array, ""],
    step: Step,
    network: Network,
) -> tuple[Memory, Evolved]:
    layers, drawn = followed(setup.follows, network.params), leaves_by_path(setup.initialise(key))
    units = {path: _least_useful(setup, state[path]) for path in layers}
    moved, adjusted = {}, {}
    for path, following in layers.items():
        bias = following.rpartition("/")[0] + "/bias"
        if bias in network.params:
            # The old network's output of the units that go; the bias's optimiser state stays.
            given = _handed_over(setup, state[path], units[path], network.params[following])
            moved[bias] = network.params[bias] + given.astype(network.params[bias].dtype)
            adjusted[bias] = jnp.ones(given.shape, bool)
    begun, fresh = begun_anew(units, layers, neutral, drawn, network.params | moved)
    params = moved | begun
    after = {path: _begun(state[path], flags) for path, flags in units.items()}
    return after, Evolved(within_masks(network, params), {}, fresh, adjusted)


def _handed_over(
    setup: _Setup, layer: Usefulness, flags: Bool[Array, " units"], weights: Float[Array, "*fan inputs outputs"]
) -> Float[Array, " outputs"]:
    """Mean output of the flagged units, corrected for the running average's bias, times their outgoing weights."""
    repeats = layer.mean.size // flags.size
    corrected = layer.mean / jnp.tile(1 - setup.decay ** jnp.maximum(layer.age, 1), repeats)
    mean = jnp.where(jnp.tile(flags, repeats), corrected, 0)
    return (mean[:, None] * weights).sum(axis=range(weights.ndim - 1))


def _begun(layer: Usefulness, flags: Bool[Array, " units"]) -> Usefulness:
    """The memory of a layer whose flagged units have begun anew."""
    return Usefulness(
        jnp.where(flags, 0, layer.utility),
        jnp.where(flags, 0, layer.age),
        jnp.where(jnp.tile(flags, layer.mean.size // flags.size), 0, layer.mean),
        layer.due - flags.sum(),
    )
