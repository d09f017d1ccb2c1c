"""Experience review: from the share of active units over time to how much of what is learned is early data.

`slope` is the paper's idea (Liu et al., ICLR 2025, section 4.3), `gate` what its authors' code does. Both are pure
functions of the FAU samples of one seed (`ne_jax.fau`). What a seed decides is data, a range of the replay and a flag,
so that seeds under `vmap` decide each for themselves without a branch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from ne_jax.numbers import Number, is_known

HALF_BELOW = 0.9
"""Share of `awaken` below which `auto_batch` halves the batch; the released code's."""


class ReviewState(NamedTuple):
    """What one seed remembers of the share of active units."""

    samples: Float[Array, "*lanes window"]
    """The last FAU samples, newest last; zeros before the first."""
    count: Int[Array, "*lanes"]  # pyright: ignore[reportIncompatibleMethodOverride]
    """Samples so far."""
    steepest: Float[Array, "*lanes"]
    """Largest `|slope|` of a full window so far."""
    probability: Float[Array, "*lanes"]
    """Of reviewing, until the next sample."""

    @property
    def fau(self) -> Float[Array, "*lanes"]:
        """The newest sample."""
        return self.samples[..., -1]


class Decision(NamedTuple):
    """What one update learns from: the part `span` of the replay, ordered by age, as `Replay.sample` takes it.

    `probability` is that with which `review` was drawn. `half`: only half as many transitions as usual; None where
    `auto_batch` is off.
    """

    probability: Float[Array, ""]
    review: Bool[Array, ""]
    span: Float[Array, "2"]
    half: Bool[Array, ""] | None


class Review(NamedTuple):
    """Experience review with fixed settings, as functions of one seed.

    Attributes:
        init(): the state before the first sample, with which nothing is reviewed.
        observe(state, fau): the state after one more sample.
        decide(state, key): what one update learns from.
        every: updates from one sample to the next.
    """

    init: Callable[[], ReviewState]
    observe: Callable[[ReviewState, Float[Array, ""]], ReviewState]
    decide: Callable[[ReviewState, Key[Array, ""]], Decision]
    every: int


def make_review(
    mode: str,
    *,
    every: int = 100,
    fraction: Number = 0.3,
    awaken: Number = 0.4,
    gain: Number = 0.9,
    window: int = 10,
    most: Number = 0.5,
    auto_batch: bool = False,
) -> Review | None:
    """Experience review by `gate` or `slope`; None if there is nothing to do: `mode="none"` without `auto_batch`.

    Args:
        every: updates from one FAU sample to the next.
        fraction: what is reviewed: this oldest share of the replay.
        awaken: FAU below which `gate` reviews, and `auto_batch` (at nine tenths of it) halves batches.
        gain: of `gate_probability`.
        window: samples in the slope of `slope`.
        most: largest probability of `slope`.
        auto_batch: learn from half as many transitions while the critic has few active units; goes with any mode.

    Raises:
        ValueError: a setting is out of range; the sentence names it as `review.KEY`.
    """
    _validate(mode, every, fraction, awaken, gain, window, most)
    if mode == "none" and not auto_batch:
        return None

    def init() -> ReviewState:
        return ReviewState(jnp.zeros(window), jnp.zeros((), jnp.int32), jnp.zeros(()), jnp.zeros(()))

    def observe(state: ReviewState, fau: Float[Array, ""]) -> ReviewState:
        samples, count = jnp.append(state.samples[1:], fau), state.count + 1
        full = count >= window
        slope = jnp.where(full, jnp.abs(least_squares_slope(samples)), 0)
        steepest = jnp.maximum(state.steepest, slope)
        probability = {
            "none": jnp.zeros(()),
            "gate": gate_probability(fau, awaken, gain),
            "slope": jnp.where(full, slope_probability(slope, steepest, most), 0),
        }[mode]
        return ReviewState(samples, count, steepest, probability)

    def decide(state: ReviewState, key: Key[Array, ""]) -> Decision:
        review = jax.random.uniform(key) < state.probability
        span = jnp.stack([jnp.zeros(()), jnp.where(review, fraction, 1)])
        half = (state.count > 0) & (state.fau < HALF_BELOW * awaken) if auto_batch else None
        return Decision(state.probability, review, span, half)

    return Review(init, observe, decide, every)


def gate_probability(fau: Float[Array, ""], awaken: Number, gain: Number) -> Float[Array, ""]:
    """1 - 1 / (1 + gain * exp(awaken - fau)) while `fau` is below `awaken`, else 0 (the authors' released code).

    With the defaults it jumps from 0 to 0.47 at the gate and rises to 0.57 where no unit is active at all.
    """
    odds = gain * jnp.exp(awaken - fau)
    return jnp.where(fau < awaken, odds / (1 + odds), 0)


def slope_probability(slope: Float[Array, ""], steepest: Float[Array, ""], most: Number) -> Float[Array, ""]:
    """`most * (1 - |slope| / steepest)`: the steadier the share of active units, the more early data is reviewed.

    This is our reading of section 4.3 of Liu et al. (ICLR 2025), which ties the review to the slope of the curve of
    active units and leaves open over which window it is taken and how it becomes a probability. We take the
    least-squares slope of the last samples and normalise by `steepest`, the largest `|slope|` that has been seen, this
    one included. A curve that has never moved is as steady as can be.
    """
    return most * (1 - jnp.abs(slope) / jnp.where(steepest > 0, steepest, 1))


def least_squares_slope(samples: Float[Array, " window"]) -> Float[Array, ""]:
    """Slope of the line through equidistant samples, per sample; at least two of them."""
    x = jnp.arange(samples.size) - (samples.size - 1) / 2
    # The slope of the differences to one of them is the same, and a steady curve's is exactly zero.
    return (x * (samples - samples[-1])).sum() / (x * x).sum()


def repeat_half(batch: PyTree[Array], half: Bool[Array, ""]) -> PyTree[Array]:
    """Where `half` holds, a batch of the same shape whose second half repeats the transitions of the first.

    The mean over it, of a loss or of its gradient, is the mean over half a batch. The leading axis is the batch's.

    Raises:
        ValueError: the batch cannot be halved.
    """
    size = len(jax.tree.leaves(batch)[0])
    if size % 2:
        raise ValueError(f"review.auto_batch halves batches, so batch_size must be even, got {size}")
    row = jnp.arange(size)
    row = jnp.where(half, row % (size // 2), row)
    return jax.tree.map(lambda leaf: leaf[row], batch)


def _validate(mode: str, every: int, fraction: Number, awaken: Number, gain: Number, window: int, most: Number) -> None:
    if mode not in ("none", "slope", "gate"):
        raise ValueError(f"review.mode must be none, slope or gate, got {mode!r}")
    if every < 1:
        raise ValueError(f"review.every must be a positive number of updates, got {every}")
    shares = {"fraction": fraction, "most": most}
    for key, value in shares.items():
        if is_known(value) and not 0 < value <= 1:
            raise ValueError(f"review.{key} must lie in (0, 1], got {value}")
    if is_known(awaken) and not 0 <= awaken <= 1:
        raise ValueError(f"review.awaken is a share of active units and must lie in [0, 1], got {awaken}")
    if is_known(gain) and gain <= 0:
        raise ValueError(f"review.gain must be positive, got {gain}")
    if window < 2:
        raise ValueError(f"review.window must be at least 2, for one sample has no slope, got {window}")
