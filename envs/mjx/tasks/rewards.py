"""`tolerance`, the soft indicator of the suite's rewards (Tassa et al. 2018, arXiv:1801.00690)."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float32

INFINITE = math.inf

# Each falls from 1 at x = 0 to v at x = 1, where x >= 0 is the distance to the interval in margins.
SIGMOIDS: dict[str, Callable[[Array, float], Array]] = {
    "gaussian": lambda x, v: jnp.exp(math.log(v) * x**2),
    "linear": lambda x, v: jnp.maximum(1 - (1 - v) * x, 0),
    "quadratic": lambda x, v: jnp.maximum(1 - (1 - v) * x**2, 0),
}
REACH_ZERO = ("linear", "quadratic")


def tolerance(
    x: Float32[Array, "*shape"],
    low: float = 0.0,
    high: float = 0.0,
    *,
    margin: float = 0.0,
    sigmoid: str = "gaussian",
    value_at_margin: float = 0.1,
) -> Float32[Array, "*shape"]:
    """1 where low <= x <= high; outside it a `sigmoid` of the distance, or 0 everywhere if `margin` is 0.

    Args:
      x: values, in any unit.
      low: lower end of the interval, in the same unit.
      high: upper end; may be `INFINITE`.
      margin: the distance from the interval, in the same unit, at which the result is `value_at_margin`.
      sigmoid: a key of `SIGMOIDS`.
      value_at_margin: in (0, 1), and 0 is allowed for the sigmoids of `REACH_ZERO`.

    Raises:
      ValueError: an empty interval, a negative margin, an unknown sigmoid or a value at the margin it cannot have.
    """
    if low > high or margin < 0:
        raise ValueError(f"tolerance needs low <= high and margin >= 0, got {low}, {high} and {margin}.")
    if sigmoid not in SIGMOIDS:
        raise ValueError(f"sigmoid={sigmoid!r} is none of {', '.join(SIGMOIDS)}.")
    if not (0 < value_at_margin < 1 or (value_at_margin == 0 and sigmoid in REACH_ZERO)):
        raise ValueError(f"value_at_margin={value_at_margin} is no value that {sigmoid!r} can have at the margin.")
    x = jnp.asarray(x, jnp.float32)
    distance = jnp.maximum(jnp.maximum(low - x, x - high), 0)
    if margin == 0:
        return (distance == 0).astype(jnp.float32)
    return jnp.where(distance == 0, 1, SIGMOIDS[sigmoid](distance / margin, value_at_margin)).astype(jnp.float32)
