"""Density over time: where each layer starts, where it ends, and how it gets there; and how much is exchanged when."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ne_jax.numbers import Number, is_known
from ne_jax.sparsity import Densities, Shapes, counts, erdos_renyi

Progress = Callable[[Int[Array, ""] | int], Float[Array, ""]]


Share = Callable[[Int[Array, ""] | int], Float[Array, ""]]
"""What share of a layer's weights is exchanged in a round at an update."""


class DensitySchedule(NamedTuple):
    """Each layer's weights go from `initial` to `final` as `progress(update)` goes from 0 to 1."""

    initial: Densities
    final: Densities
    progress: Progress


def cosine_growth(initial: float | Densities, final: float | Densities, until: int) -> DensitySchedule:
    """Grow fast at first and ever more slowly until update `until`: the growth *rate* is cosine-annealed.

    d(x) = d0 + (d1 - d0) * (x + sin(pi x) / pi) with x = update / until, the integral of a rate that falls as
    1 + cos(pi x) (Neuroplastic Expansion, Liu et al. 2025, section 4.1; annealing as in RigL, Evci et al. 2020).
    A number means Erdos-Renyi densities for that total.
    """
    return _grow(initial, final, until, lambda x: x + jnp.sin(jnp.pi * x) / jnp.pi)


def linear_growth(initial: float | Densities, final: float | Densities, until: int) -> DensitySchedule:
    """Grow by the same number of weights every round until update `until`. A number means Erdos-Renyi densities."""
    return _grow(initial, final, until, lambda x: x)


def constant(density: float | Densities) -> DensitySchedule:
    """Keep `density` for ever. A number means Erdos-Renyi densities."""
    return DensitySchedule(_densities(density), _densities(density), lambda step: jnp.zeros(()))


def cubic_pruning(final: float | Densities, until: int, begin: int = 0) -> DensitySchedule:
    """Prune from dense to `final` between updates `begin` and `until`, fast at first: with x from 0 to 1 in between,
    d(x) = final + (1 - final) * (1 - x)^3 (Zhu and Gupta 2017, eq. 1). A number means Erdos-Renyi densities.

    Raises:
        ValueError: `until` does not come after `begin`, or `begin` is negative.
    """
    if not 0 <= begin < until:
        raise ValueError(f"pruning must end after it begins at or after update 0, got {begin} to {until}")

    def progress(step: Int[Array, ""] | int) -> Float[Array, ""]:
        x = jnp.clip((jnp.asarray(step, jnp.float32) - begin) / (until - begin), 0.0, 1.0)
        return 1 - (1 - x) ** 3

    return DensitySchedule(erdos_renyi(1.0), _densities(final), progress)


def constant_share(share: Number) -> Share:
    """Exchange the same share in every round; in [0, 1)."""
    _check_share(share)
    return lambda step: jnp.asarray(share, jnp.float32)


def cosine_share(share: Number, until: int, begin: int = 0) -> Share:
    """share / 2 * (1 + cos(pi x)), x from 0 at update `begin` to 1 at `until`, and nothing afterwards (RigL, Evci et
    al. 2020, section 3).

    Raises:
        ValueError: the share lies outside [0, 1), or `until` does not come after `begin`.
    """
    _check_share(share)
    if not 0 <= begin < until:
        raise ValueError(f"rewiring must end after it begins at or after update 0, got {begin} to {until}")

    def at(step: Int[Array, ""] | int) -> Float[Array, ""]:
        x = jnp.clip((jnp.asarray(step, jnp.float32) - begin) / (until - begin), 0.0, 1.0)
        return jnp.where(x < 1, share / 2 * (1 + jnp.cos(jnp.pi * x)), 0.0)

    return at


def counts_at(schedule: DensitySchedule, shapes: Shapes, step: Int[Array, ""] | int) -> dict[str, Int[Array, ""]]:
    """How many weights each layer should hold at update `step` (traced or not), to the nearest whole weight.

    Float32 inside: for layers below 2**22 weights the result is within one weight of exact arithmetic.
    """
    first, last = counts(schedule.initial, shapes), counts(schedule.final, shapes)
    x = schedule.progress(step)
    return {path: first[path] + jnp.round(x * (last[path] - first[path])).astype(jnp.int32) for path in shapes}


def _grow(
    initial: float | Densities, final: float | Densities, until: int, shape: Callable[[Array], Array]
) -> DensitySchedule:
    if until < 1:
        raise ValueError(f"`until` must be a positive number of updates, got {until}")
    if not callable(initial) and not callable(final) and final < initial:
        raise ValueError(
            f"the final density {final} lies below the initial {initial}: a growing schedule cannot shrink"
        )

    def progress(step: Int[Array, ""] | int) -> Float[Array, ""]:
        x = jnp.clip(jnp.asarray(step, jnp.float32) / until, 0.0, 1.0)
        return jnp.where(x < 1, shape(x), 1.0)  # sin(pi) is not quite zero in float32

    return DensitySchedule(_densities(initial), _densities(final), progress)


def _densities(density: float | Densities) -> Densities:
    return density if callable(density) else erdos_renyi(density)


def _check_share(share: Number) -> None:
    if is_known(share) and not 0 <= share < 1:
        raise ValueError(f"the share of weights that is exchanged must lie in [0, 1), got {share}")
