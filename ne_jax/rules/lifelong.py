"""Neuroplastic Expansion that lasts: units are renewed as wholes for ever, weights stay near their birth, and a network
whose inputs have become others begins anew."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from ne_jax.activity import incoming
from ne_jax.numbers import Number, is_known, is_zero
from ne_jax.rule import Evolved, Network, Rule, Step
from ne_jax.rules.regularisation import births, pulled_to_birth, values_at_birth
from ne_jax.rules.resets import TO_HEAD, Initialise
from ne_jax.schedules import DensitySchedule, counts_at
from ne_jax.sparsity import Leaves, Masks, kernels, leaves_by_path, select
from ne_jax.units import Follows, begun_anew, beside, followed

FAST, SLOW = 0.9, 0.99
"""Decays per update of the two running averages of what a network sees."""
WARM_UP = 500
"""Updates after which both averages tell of the present, so that their difference means something."""
SKETCH, SAMPLES = 64, 32
"""What is remembered of the inputs: so many numbers, of so many samples of a batch."""
FAR = 300.0
"""Between the ranges of scores that must not meet; logarithms of float32 lie within half of it."""


class Memory(NamedTuple):
    """What is remembered of a network. Units by the path of their kernel, for sparse layers."""

    births: Leaves
    """The value that each weight was born with."""
    age: dict[str, Int[Array, " units"]]
    """Updates since the unit began, or began anew."""
    due: dict[str, Float[Array, ""]]
    """Units of a layer to renew, the fraction included."""
    fast: Float[Array, " sketch"]
    """Running average of the inputs, quick to follow."""
    slow: Float[Array, " sketch"]
    """The same over the last hundred updates."""
    square: Float[Array, " sketch"]
    """That of their squares."""
    novelty: Float[Array, ""]
    """How far what the network sees has moved, after the newest update."""
    since: Int[Array, ""]
    """Updates since the whole network began, or began anew."""


class _Setup(NamedTuple):
    """The settings of `lifelong_ne`, as it takes them."""

    schedule: DensitySchedule
    initialise: Initialise
    tau: Number
    turnover: Number
    maturity: int
    pull: Number
    novelty: Number
    outgoing: Number
    follows: Follows


def lifelong_ne(
    schedule: DensitySchedule,
    initialise: Initialise,
    *,
    tau: Number = 0.001,
    turnover: Number = 0.002,
    maturity: int = 100,
    pull: Number = 1e-5,
    novelty: Number = 0.4,
    outgoing: Number = 2.0,
    follows: Follows = TO_HEAD,
) -> Rule:
    """Neuroplastic Expansion (Liu et al., ICLR 2025) made to last; docs/method.md derives it.

    As there, a network grows from sparse to `schedule`, exactly, and weights are born where the loss gradient asks.
    What differs is what goes, and what happens when growth is over. With the loss L, biases b of a layer's units i, and
    inputs x of the network::

        drive_i = |dL/db_i|                                       how much this batch asks a unit to change
        novelty = sum_j |fast_j - slow_j| / sum_j sd(x_j)         of two running means of x, decays 0.9 and 0.99

    In every update the loss gets `pull * ||p - p_0||^2`, where p_0 is the value that a weight was born with: survivors
    and head cannot grow without bound. In a round, for each sparse layer:

    1. Mature units whose drive is at most `tau` of their layer's mean begin anew as wholes, and if these are fewer than
       the `turnover` share, so do the next ones up to it: all that enters them goes, what leads on from them becomes
       `outgoing` times what is drawn, and a bundle of births, as many as the layer's average unit has weights, goes to
       inputs drawn in proportion to the layer's `|dense gradient|` there. A unit that answers to few inputs is silent
       on many batches, and so is renewed the sooner, the fewer they are.
    2. The births that remain until the schedule is met go to the absent weights of the largest `|dense gradient|`.
    3. Newborn weights are as `initialise` draws them, times sqrt(inputs / weights of the unit), so that a unit with few
       weights speaks as loud as one with many.

    Where `novelty` is exceeded, what the network sees has become something else. Then there is a round at once, in
    which it is drawn anew at the density of the schedule, as in 1 for all units, and targets follow (`ne_jax.renewed`).

    A network without masks takes part in the pull and in beginning anew alone.

    `tx.update` must be given the network's inputs, `batch=...`, unless `novelty` is 0.

    Args:
        schedule: weights per layer over time, see `cosine_growth`.
        initialise: draws fresh parameters of the whole network from a key.
        tau: a unit begins anew when its drive is at most this share of its layer's mean, >= 0.
        turnover: share of a layer's units that begin anew in each round at least, in [0, 1].
        maturity: updates for which a new unit is safe, >= 0.
        pull: weight of the squared distance to birth in the loss, >= 0.
        novelty: shift of the inputs' mean, in their standard deviations, above which the network begins anew, >= 0; 0:
            never. Inputs of more than 64 numbers are added up in 64 groups, with random signs.
        outgoing: what leads on from a unit that begins anew, as a multiple of what `initialise` draws, >= 0; 0: nothing
            at first, so that what the network computes changes by what the old unit did alone.
        follows: says which kernel takes a layer's output.

    Raises:
        ValueError: a setting is out of range; at `init`, nothing follows a sparse layer.
    """
    if is_known(turnover) and not 0 <= turnover <= 1:
        raise ValueError(f"turnover must lie in [0, 1], got {turnover}: it is a share of units")
    for name, value in (
        ("tau", tau),
        ("maturity", maturity),
        ("pull", pull),
        ("novelty", novelty),
        ("outgoing", outgoing),
    ):
        if is_known(value) and value < 0:
            raise ValueError(f"{name} must not be negative, got {value}")
    setup = _Setup(schedule, initialise, tau, turnover, maturity, pull, novelty, outgoing, follows)
    return Rule(
        evolve=partial(_evolve, setup),
        gradient=None if is_zero(pull) else partial(_gradient, setup),
        init=partial(_init, setup),
        observe=partial(_observe, setup),
        reborn=_reborn,
        urgent=None if is_zero(novelty) else partial(_sees_news, setup),
        renews=None if is_zero(novelty) else (lambda path, leaf: True),
        name="lifelong_ne",
    )


def _init(setup: _Setup, params: Leaves, masks: Masks) -> Memory:
    _following(setup, params, masks)
    units = {path: params[path].shape[-1] for path in masks}
    return Memory(
        births=births(params, masks),
        age={path: jnp.zeros(n, jnp.int32) for path, n in units.items()},
        due={path: jnp.zeros(()) for path in units},
        fast=jnp.zeros(SKETCH),
        slow=jnp.zeros(SKETCH),
        square=jnp.zeros(SKETCH),
        novelty=jnp.zeros(()),
        since=jnp.zeros((), jnp.int32),
    )


def _following(setup: _Setup, params: Leaves, masks: Masks) -> dict[str, str]:
    """{kernel of a sparse layer: kernel of the layer that it leads to}."""
    found = followed(setup.follows, params)
    for path in sorted(masks):
        if path not in found:
            raise ValueError(f"lifelong_ne finds no layer that follows {path}, among {sorted(params)}; see `follows`")
    return {path: found[path] for path in sorted(masks)}


def _gradient(setup: _Setup, state: Memory, step: Step, network: Network) -> Leaves:
    return pulled_to_birth(setup.pull, state.births, step, network)


def _reborn(state: Memory, params: Leaves, fresh: dict[str, Bool[Array, "..."]]) -> Memory:
    return state._replace(births=values_at_birth(state.births, params, fresh))


def _observe(setup: _Setup, state: Memory, step: Step, network: Network) -> Memory:
    """How old units are, and what the network sees, after one more update."""
    state = state._replace(
        age={path: age + 1 for path, age in state.age.items()},
        since=state.since + 1,
    )
    if is_zero(setup.novelty):
        return state
    if network.inputs is None:
        raise ValueError("lifelong_ne looks at the inputs: call tx.update(..., batch=inputs), or set novelty=0")
    seen = _sketch(network.inputs)
    fast = FAST * state.fast + (1 - FAST) * seen.mean(axis=0)
    slow = SLOW * state.slow + (1 - SLOW) * seen.mean(axis=0)
    square = SLOW * state.square + (1 - SLOW) * jnp.square(seen).mean(axis=0)
    spread = jnp.sqrt(jnp.maximum(square - jnp.square(slow), 0)).sum()
    shift = jnp.abs(fast - slow).sum() / jnp.where(spread > 0, spread, 1)
    return state._replace(
        fast=fast,
        slow=slow,
        square=square,
        novelty=jnp.where(state.since > WARM_UP, shift, 0),
    )


def _sees_news(setup: _Setup, state: Memory) -> Bool[Array, ""]:
    """Must the network begin anew?"""
    return state.novelty > setup.novelty


def _asked(path: str, network: Network) -> Float[Array, " units"]:
    """|dL/db| of each unit, or where there is no bias, the mean |dL/dw| over what enters it."""
    bias = path.rpartition("/")[0] + "/bias"
    if bias in network.gradients:
        return jnp.abs(network.gradients[bias])
    gradient = jnp.abs(network.gradients[path])
    return gradient.mean(axis=range(gradient.ndim - 1))


def _sketch(inputs: PyTree) -> Float[Array, "samples sketch"]:
    """Inputs of any shape as few numbers: added up in groups, with random signs, so that a shift of any is a shift of
    one (a count sketch, Charikar et al. 2002). Up to `SKETCH` inputs stay as they are, but for signs."""
    parts = [leaf[:SAMPLES].astype(jnp.float32) for leaf in jax.tree.leaves(inputs)]
    flat = jnp.concatenate([part.reshape(part.shape[0], -1) for part in parts], axis=1)
    with jax.ensure_compile_time_eval():  # a constant: nothing is drawn in an update
        signs = jax.random.rademacher(jax.random.key(0), flat.shape[1:], jnp.float32)
    padded = jnp.pad(flat * signs, ((0, 0), (0, -flat.shape[1] % SKETCH)))
    return padded.reshape(len(flat), -1, SKETCH).sum(axis=1)


def _evolve(setup: _Setup, state: Memory, key: Key[Array, ""], step: Step, network: Network) -> tuple[Memory, Evolved]:
    anew = jnp.zeros((), bool) if is_zero(setup.novelty) else _sees_news(setup, state)
    layers, old = _following(setup, network.params, network.masks), network.params
    targets = counts_at(setup.schedule, {path: mask.shape for path, mask in network.masks.items()}, step)
    keys = dict(zip(layers, jax.random.split(key, max(len(layers), 1))))
    values = leaves_by_path(setup.initialise(jax.random.fold_in(key, 1)))
    units, due, masks, grown, changed = {}, {}, {}, {}, {}
    for path in layers:
        idle, due[path] = _to_renew(setup, state, path, _asked(path, network))
        units[path] = idle | anew
        masks[path] = _topology(keys[path], network, path, units[path], targets[path])
        values[path] = jnp.where(masks[path], _loud(values[path], masks[path]), 0)
        changed[path] = masks[path] ^ network.masks[path]
        grown[path] = jnp.where(changed[path], values[path], old[path])  # zero where a weight went
    neutral = {path: beside(path, old, _alone(path, old)) for path in layers}
    params, fresh = begun_anew(units, layers, neutral, values, old | grown, setup.outgoing)
    fresh |= {path: flags | fresh[path] for path, flags in changed.items()}
    if not is_zero(setup.novelty):
        params = {path: jnp.where(anew, values[path], params.get(path, leaf)) for path, leaf in old.items()}
        fresh = {path: jnp.broadcast_to(anew, leaf.shape) | fresh.get(path, False) for path, leaf in old.items()}
    params = {path: jnp.where(masks[path], leaf, 0) if path in masks else leaf for path, leaf in params.items()}
    after = state._replace(
        age={path: jnp.where(flags, 0, state.age[path]) for path, flags in units.items()},
        due=due,
        since=jnp.where(anew, 0, state.since),
    )
    return after, Evolved(params, masks, fresh, renewed=None if is_zero(setup.novelty) else dict.fromkeys(old, anew))


def _alone(path: str, params: Leaves) -> list[str]:
    """The largest module around a kernel that holds no other: what lies in it belongs to the kernel, such as a norm."""
    paths = [each.removeprefix("params/") for each, leaf in params.items() if kernels(each, leaf)]
    parts = path.removeprefix("params/").split("/")[:-1]
    modules = ["/".join(parts[: i + 1]) for i in range(len(parts))]
    return [module for module in modules if sum(each.startswith(f"{module}/") for each in paths) == 1][:1]


def _to_renew(
    setup: _Setup, state: Memory, path: str, drive: Float[Array, " units"]
) -> tuple[Bool[Array, " units"], Float[Array, ""]]:
    """The units of a layer that begin anew in this round, and what is then still due."""
    mature = state.age[path] > setup.maturity
    due = state.due[path] + setup.turnover * drive.size
    flags = select(-drive, jnp.floor(due).astype(jnp.int32), among=mature)
    flags |= mature & (drive <= setup.tau * drive.mean())
    return flags, jnp.clip(due - flags.sum(), 0, drive.size)


def _topology(
    key: Key[Array, ""], network: Network, path: str, units: Bool[Array, " units"], target: Int[Array, ""]
) -> Bool[Array, "*fan units"]:
    """The mask after a round, of `target` weights: what survives, a bundle for each unit that begins anew, and births
    where the gradient is largest."""
    mask, gradient = network.masks[path], jnp.abs(network.gradients[path])
    into = incoming(units, mask.shape)
    kept = mask & ~into
    # Gumbel noise on log-probabilities draws without replacement, in proportion.
    wish = jnp.log(gradient.mean(axis=-1, keepdims=True) + jnp.finfo(gradient.dtype).tiny)
    draws = jnp.clip(wish + jax.random.gumbel(key, mask.shape), -FAR / 2, FAR / 2)
    each = jnp.maximum(target // units.size, 1)
    bundle = into & jax.vmap(select, (-1, None), -1)(draws, each)
    # One order for all: bundles, then where the gradient asks, which into a unit that begins anew tells of the old one:
    # its further places come last.
    scores = jnp.where(bundle, draws + FAR, jnp.where(into, draws - FAR, gradient / (1 + gradient)))
    return kept | select(scores, target - kept.sum(), among=~kept)


def _loud(drawn: Float[Array, "*fan units"], mask: Bool[Array, "*fan units"]) -> Float[Array, "*fan units"]:
    """Values for a sparse kernel whose units vary as those of the dense one do."""
    inputs = mask.size // mask.shape[-1]
    weights = mask.sum(axis=range(mask.ndim - 1))
    return drawn * jnp.sqrt(inputs / jnp.maximum(weights, 1))
