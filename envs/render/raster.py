"""A small 2-D rasteriser in JAX: anti-aliased shapes, painted in order, to uint8 images of any size.

A shape is its signed distance to every pixel's centre, in world units: negative inside, positive outside. So the union
of two shapes is the `minimum` of their distances, and what two shapes share is the `maximum`. `paint` turns distances
into coverages, `clip(1/2 - distance in pixels, 0, 1)`: the exact area for an upright straight edge, at most 0.05 off it
for a slanted one. What is thinner than a pixel comes out bolder than it is.

Sizes and colours are static, positions may be traced; all works under jit, vmap and scan. Pixels lie in one flat axis,
and minima are `where`s (of a NaN nothing is asked here): both let XLA's CPU backend make vector code of a picture.

    canvas = raster.canvas(84, width=4.4)
    image = raster.paint(canvas, (255, 255, 255), [(raster.circle(canvas, (x, y), 0.5), (204, 77, 77))])
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, UInt8

Scalar: TypeAlias = "float | Float[Array, '']"
Point: TypeAlias = "tuple[Scalar, Scalar] | Float[Array, '2']"
Plane: TypeAlias = "Array | np.ndarray | np.floating | float"
Distance: TypeAlias = "Float[Array | np.ndarray, ' pixels']"
Colour: TypeAlias = tuple[int, int, int]


class Canvas(NamedTuple):
    """Pixel centres in world units, row by row from the top left; y points up. `pixel` is the side of a pixel."""

    x: Float32[np.ndarray, " pixels"]
    y: Float32[np.ndarray, " pixels"]
    size: int
    pixel: float

    def at_least(self, radius: float, pixels: float = 0.5) -> float:
        """`radius`, or so many pixels where that is more: keeps fine lines visible in small images."""
        return max(radius, pixels * self.pixel)


def canvas(size: int, width: float, center: tuple[float, float] = (0.0, 0.0)) -> Canvas:
    """A square view of `width` world units around `center`, drawn as `size` by `size` pixels."""
    pixel = width / size
    offsets = (np.arange(size) + 0.5) * pixel - width / 2
    x, y = np.meshgrid(center[0] + offsets, center[1] - offsets)
    return Canvas(x.ravel().astype(np.float32), y.ravel().astype(np.float32), size, pixel)


def minimum(a: Plane, b: Plane) -> Array:
    """The lesser of two; the union of two shapes."""
    return jnp.where(a < b, a, b)


def maximum(a: Plane, b: Plane) -> Array:
    """The greater of two; what two shapes share."""
    return jnp.where(a > b, a, b)


def circle(canvas: Canvas, center: Point, radius: Scalar) -> Distance:
    """A filled circle."""
    x, y = canvas.x - center[0], canvas.y - center[1]
    return jnp.sqrt(x * x + y * y) - radius


def ring(canvas: Canvas, center: Point, radius: Scalar, half_width: Scalar) -> Distance:
    """The outline of a circle, `half_width` to either side of it."""
    return jnp.abs(circle(canvas, center, radius)) - half_width


def capsule(canvas: Canvas, start: Point, end: Point, radius: Scalar) -> Distance:
    """A line with round ends: all that is within `radius` of the segment from `start` to `end`."""
    along_x, along_y = end[0] - start[0], end[1] - start[1]
    x, y = canvas.x - start[0], canvas.y - start[1]
    # A segment without length is a point: any finite t will do.
    inverse = 1 / maximum(along_x * along_x + along_y * along_y, 1e-12)
    t = minimum(maximum(x * (along_x * inverse) + y * (along_y * inverse), 0.0), 1.0)
    x, y = x - t * along_x, y - t * along_y
    return jnp.sqrt(x * x + y * y) - radius


def box(canvas: Canvas, center: Point, half: Point, direction: Point = (1.0, 0.0)) -> Distance:
    """A rectangle of half sides `half`, the first along `direction` (a unit vector). Corners stay sharp when offset."""
    x, y = canvas.x - center[0], canvas.y - center[1]
    along = jnp.abs(x * direction[0] + y * direction[1]) - half[0]
    across = jnp.abs(y * direction[0] - x * direction[1]) - half[1]
    return maximum(along, across)


def half_plane(canvas: Canvas, point: Point, outward: Point) -> Distance:
    """All that lies behind the line through `point` whose normal is the unit vector `outward`."""
    return (canvas.x - point[0]) * outward[0] + (canvas.y - point[1]) * outward[1]


def polyline(canvas: Canvas, points: Sequence[Point], radius: Scalar) -> Distance:
    """A line through two or more points, with round ends and joints. Costs a capsule per segment."""
    distance = capsule(canvas, points[0], points[1], radius)
    for start, end in itertools.pairwise(points[1:]):
        distance = minimum(distance, capsule(canvas, start, end, radius))
    return distance


def paint(
    canvas: Canvas,
    background: Colour | UInt8[np.ndarray, "size size 3"],
    layers: Sequence[tuple[Distance, Colour]],
) -> UInt8[Array, "size size 3"]:
    """Paints shapes, each over those before it.

    Args:
      canvas: what the distances were measured on.
      background: a colour, or an image of this size (paint what never moves once, outside jit).
      layers: signed distances in world units, with a colour in 0..255 each.

    Returns:
      An image, red, green and blue in the last axis.
    """
    if isinstance(background, np.ndarray):
        planes = [background[..., channel].ravel().astype(np.float32) for channel in range(3)]
    else:
        planes = [jnp.full(canvas.x.shape, channel, jnp.float32) for channel in background]
    for distance, colour in layers:
        coverage = minimum(maximum(0.5 - distance * (1 / canvas.pixel), 0.0), 1.0)
        planes = [plane + coverage * (channel - plane) for plane, channel in zip(planes, colour)]
    return interleave(planes).reshape(canvas.size, canvas.size, 3)


def interleave(planes: Sequence[Plane]) -> UInt8[Array, "*shape 3"]:
    """Rounds three planes in 0..255 and puts them side by side in each pixel.

    Stacking them would make XLA's CPU backend work out every picture three times, one number at a time. Instead each
    pixel becomes one 32-bit word, in vector code, of which three bytes are kept.
    """
    return jax.lax.bitcast_convert_type(pack(planes, 8), jnp.uint8)[..., :3]


def pack(planes: Sequence[Plane], bits: int) -> Array:
    """Three planes, each rounded to an integer of so many bits, side by side in one word per pixel.

    Adding 2**23 rounds a float and leaves the integer in its low bits, where a conversion would also look out for NaN
    and overflow.
    """
    low, middle, high = (jax.lax.bitcast_convert_type(plane + 2.0**23, jnp.uint32) & (2**bits - 1) for plane in planes)
    return low | (middle << bits) | (high << 2 * bits)
