"""Seeds side by side in one program, and the random numbers that each has in each step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
from jaxtyping import Array, Int, Key

OverSeeds = Literal["vmap", "map"]
ACT, LEARN, MEASURE, WORLD, EVALUATE, REVIEW, RENEW, RESTART = range(8)
"""Streams of random numbers that a seed draws from in each step."""
NEVER = 2**31 - 1
"""A step that no run reaches: its random numbers are free for initialisation."""


def over_seeds(fn: Callable[..., Any], how: OverSeeds, shared: int = 0) -> Callable[..., Any]:
    """`fn` of one seed as a function of all: the last `shared` arguments are passed to every seed as they are.

    `vmap` batches the seeds, which suits dense nets. `map` runs one after the other inside one program: under `vmap`,
    convolutions with different weights become grouped convolutions, which are slow on every device.
    """

    def batched(*args: Any) -> Any:
        by_seed, rest = args[: len(args) - shared], args[len(args) - shared :]
        if how == "vmap":
            return jax.vmap(lambda each: fn(*each, *rest))(by_seed)
        return jax.lax.map(lambda each: fn(*each, *rest), by_seed)

    return batched


def key_at(key: Key[Array, ""], number: Int[Array, ""] | int, stream: int) -> Key[Array, ""]:
    """The random numbers of one step, or update, of a seed."""
    return jax.random.fold_in(jax.random.fold_in(key, number), stream)
