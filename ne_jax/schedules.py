"""Density over time: where each layer starts, where it ends, and how it gets there."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ne_jax.sparsity import Densities, Shapes, counts, erdos_renyi

Progress = Callable[[Int[Array, ""] | int], Float[Array, ""]]


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
