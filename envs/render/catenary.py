"""The curve of a hanging string."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from envs.render.primitives import clamp


def hanging(
    start: Float[Array, "3"], end: Float[Array, "3"], up: Float[Array, "3"], length: float, points: int
) -> Float[Array, "points 3"]:
    """Points, equally far apart along it, of a string of a length between two ends; straight where it is too short.

    A catenary z = b cosh((x - a) / b): with the ends h apart sideways and v in height, b solves
    2 b sinh(h / 2b) = sqrt(length**2 - v**2), by Newton's method in y = h / 2b.
    """
    span = end - start
    v = jnp.sum(span * up)
    across = span - v * up
    distance = jnp.sqrt(jnp.sum(span * span))
    arc = jnp.maximum(jnp.asarray(length), 1.0001 * distance)  # never quite straight
    h = jnp.maximum(jnp.sqrt(jnp.sum(across * across)), 1e-3 * arc)
    ratio = jnp.log(jnp.sqrt(arc**2 - v**2) / h)
    # log(sinh(y) / y) = ratio; about y**2 / 6 for small y, and y - log(2 y) for large.
    y = jnp.where(ratio < 1, jnp.sqrt(6 * jnp.maximum(ratio, 1e-7)), ratio + jnp.log(2 * ratio + 2))
    for _ in range(8):
        error = jnp.log(jnp.sinh(y) / y) - ratio
        y = clamp(y - error / (1 / jnp.tanh(y) - 1 / y), 1e-3, 20.0)
    b = h / (2 * y)
    a = h / 2 - b * jnp.arctanh(v / arc)
    first = b * jnp.sinh(-a / b)
    at = first + arc * jnp.linspace(0.0, 1.0, points)  # arc length from the lowest point
    x = a + b * jnp.arcsinh(at / b)
    # sqrt(b^2 + at^2) - sqrt(b^2 + first^2), without the difference of two large numbers
    z = (at - first) * (at + first) / (jnp.sqrt(b * b + at * at) + jnp.sqrt(b * b + first * first))
    return start + x[:, None] * (across / h) + z[:, None] * up
