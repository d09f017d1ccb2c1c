"""Self-normalised resets: a unit begins anew once it is silent for longer than it used to be between two firings."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from ne_jax.activity import Activity, units_of
from ne_jax.numbers import Number, is_known
from ne_jax.rule import Evolved, Network, Rule, Step, evolve_if, within_masks
from ne_jax.rules.resets import TO_HEAD, Initialise
from ne_jax.sparsity import Leaves, Masks, leaves_by_path
from ne_jax.units import Follows, begun_anew, beside, followed, some_followed


class Silence(NamedTuple):
    """What is remembered of one layer's units, in updates."""

    age: Int[Array, " units"]
    """Updates since the unit last fired, or began anew."""
    gaps: Int[Array, "units longest"]
    """How many silences of 1, 2, ... updates have ended since the thresholds were last set."""
    threshold: Int[Array, " units"]
    """A unit that is silent for so long begins anew."""


Memory = dict[str, Silence]
"""By the path of a layer's kernel."""


class _Setup(NamedTuple):
    """The settings of `self_normalised_resets`, as it takes them."""

    initialise: Initialise
    percentile: Number
    refresh: int
    longest: int
    follows: Follows


def self_normalised_resets(
    activity: Activity,
    initialise: Initialise,
    *,
    percentile: Number = 0.98,
    refresh: int = 1_000,
    longest: int = 200,
    follows: Follows = TO_HEAD,
) -> Rule:
    """SNR: a unit begins anew when it has been silent for longer than nearly all of its own silences (Farias and
    Jozefiak 2024, arXiv:2410.20098, algorithm 1, with the details of its authors' code).

    A unit fires in an update if any of its activations in the batch is positive. After each update::

        fired      : the silence of age_i updates has ended, if there was one; age_i = 0
        silent     : age_i += 1
        begin anew : the units with age_i >= threshold_i; this ends their silence, too
        every `refresh` updates, of the silences that have ended since the last time:
            q_i         = the smallest length within which lie at least `percentile` of unit i's silences; 1 without any
            threshold_i = q_i where q_i < threshold_i, else 2 * threshold_i; within 1 and `longest`

    Thresholds begin at half of `longest`. A reset cuts a silence short at the threshold, so that too low a threshold
    is seen by many silences of its very length, and doubled. A unit that begins anew gets incoming weights from
    `initialise`, bias 0 (scale 1 of a norm) and outgoing weights 0, and the optimiser forgets all of these; its
    threshold stays. A unit that fires in each batch has no silence, and so goes down to a threshold of one update.

    The authors count examples where this counts updates, which is the same: their silences are whole batches. They set
    thresholds at the ends of tasks; `refresh` needs no tasks. Layers that none follows take no part.

    As published, units begin anew in any update: `plastic(..., every=1)`. With a larger `every` (or `spaced`) silences
    are counted in every update, and the rest is done in rounds; `refresh` should then be a multiple of it.

    Args:
        activity: `(params, batch) -> {module path: activations}`, see `flax_activity`; needs `tx.update(batch=...)`.
        initialise: draws fresh parameters of the whole network from a key.
        percentile: share of a unit's own silences that a silence must outlast for the unit to begin anew, in (0, 1);
            0.98 is what Han et al. 2026 take.
        refresh: updates from one setting of the thresholds to the next, > 0.
        longest: silence that any unit can survive, in updates, > 0; so many numbers are kept for each unit.
        follows: says which kernel takes a layer's output; layers that none follows have no units to reset.

    Raises:
        ValueError: a setting is out of range; at `init`, no layer is followed by another; at `update`, a layer has no
            activations.
    """
    if is_known(percentile) and not 0 < percentile < 1:
        raise ValueError(f"percentile must lie in (0, 1), got {percentile}: it is a share of silences")
    for name, value in (("refresh", refresh), ("longest", longest)):
        if value < 1:
            raise ValueError(f"{name} must be a positive number of updates, got {value}")
    setup = _Setup(initialise, percentile, refresh, longest, follows)
    return Rule(
        evolve=partial(_evolve, setup),
        activity=activity,
        init=partial(_init, setup),
        observe=_observe,
        name="self_normalised_resets",
    )


def _init(setup: _Setup, params: Leaves, masks: Masks) -> Memory:
    layers = some_followed("self_normalised_resets", setup.follows, params)

    def nothing(units: int) -> Silence:
        half = max(1, setup.longest // 2)
        return Silence(
            jnp.zeros(units, jnp.int32),
            jnp.zeros((units, setup.longest), jnp.int32),
            jnp.full(units, half, jnp.int32),
        )

    return {path: nothing(params[path].shape[-1]) for path in layers}


def _observe(state: Memory, step: Step, network: Network) -> Memory:
    """Ages and ended silences after one more update."""
    new = {}
    for path, layer in state.items():
        fired = _fired(path, layer.age.size, network)
        new[path] = Silence(jnp.where(fired, 0, layer.age + 1), _ended(layer, fired), layer.threshold)
    return new


def _fired(path: str, units: int, network: Network) -> Bool[Array, " units"]:
    h = units_of(path, network.activations or {})
    if h is None or h.shape[-1] % units:
        raise ValueError(
            f"self_normalised_resets needs the activations of the {units} units of {path}, and there are only those "
            f"of {sorted(network.activations or {})}; sow them in its module, or leave it out by `follows`"
        )
    return (h > 0).reshape(-1, units).any(axis=0)


def _ended(layer: Silence, flags: Bool[Array, " units"]) -> Int[Array, "units longest"]:
    """The counts of silences, with those of the flagged units that end now."""
    units, longest = layer.gaps.shape
    bins = jnp.clip(layer.age, 1, longest) - 1
    return layer.gaps.at[jnp.arange(units), bins].add((flags & (layer.age > 0)).astype(jnp.int32))


def _evolve(setup: _Setup, state: Memory, key: Key[Array, ""], step: Step, network: Network) -> tuple[Memory, Evolved]:
    """Reset the units that are silent for too long, and set thresholds when that is due; most updates do neither."""
    silent = jnp.stack([(layer.age >= layer.threshold).any() for layer in state.values()]).any()
    # Asked while there are activations, which say how large a layer's module is.
    neutral = {path: beside(path, network.params, network.activations) for path in state}
    due = silent | (jnp.asarray(step) % setup.refresh == 0)
    return evolve_if(due, partial(_reset, setup, neutral), state, key, step, network._replace(activations=None))


def _reset(
    setup: _Setup,
    neutral: dict[str, dict[str, float]],
    state: Memory,
    key: Key[Array, ""],
    step: Step,
    network: Network,
) -> tuple[Memory, Evolved]:
    units = {path: layer.age >= layer.threshold for path, layer in state.items()}
    drawn = leaves_by_path(setup.initialise(key))
    new, fresh = begun_anew(units, followed(setup.follows, network.params), neutral, drawn, network.params)
    refresh, after = jnp.asarray(step) % setup.refresh == 0, {}
    for path, layer in state.items():
        begun = Silence(jnp.where(units[path], 0, layer.age), _ended(layer, units[path]), layer.threshold)
        gaps = jnp.where(refresh, 0, begun.gaps)
        after[path] = Silence(begun.age, gaps, jnp.where(refresh, _threshold(setup, begun), begun.threshold))
    return after, Evolved(within_masks(network, new), {}, fresh)


def _threshold(setup: _Setup, layer: Silence) -> Int[Array, " units"]:
    """What the threshold is to be, after the silences that have ended."""
    shares = jnp.cumsum(layer.gaps, axis=1) / jnp.maximum(layer.gaps.sum(axis=1, keepdims=True), 1)
    quantile = jnp.argmax(shares >= setup.percentile, axis=1).astype(jnp.int32) + 1  # 1 without any silence
    threshold = jnp.where(quantile < layer.threshold, quantile, 2 * layer.threshold)
    return jnp.clip(threshold, 1, setup.longest)
