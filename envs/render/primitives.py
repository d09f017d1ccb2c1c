"""Where rays first meet a plane, sphere, capsule, ellipsoid, cylinder or box: closed forms in JAX.

A ray is `t * d` from wherever it starts; `c` is the primitive's centre as seen from there, x and z are its axes, `near`
the least t that counts. All may differ from pixel to pixel, pixels being one flat axis. Vectors are tuples of three
arrays or scalars, because XLA's CPU backend makes vector code of separate x, y, z and not of a last axis of three; a
component that is the Python number 0 costs nothing. To keep float32 exact, start rays near the primitive.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ne_jax.target import on_cpu

FAR = 1e9
TINY = 1e-12
Number: TypeAlias = "Array | np.ndarray | np.floating | float"
"""One number, or one for each pixel."""
V3: TypeAlias = "tuple[Number, Number, Number]"


class Hit(NamedTuple):
    """The first point of a primitive on each ray, [pixels] each. `normal` has any positive length."""

    t: Number
    normal: V3


def dot(a: V3, b: V3) -> Number:
    """Scalar product."""
    terms = [p * q for p, q in zip(a, b) if not (is_zero(p) or is_zero(q))]
    return sum(terms[1:], terms[0]) if terms else 0.0


def from_to(a: V3, t: Number, d: V3) -> V3:
    """t * d - a: from `a` to a point on a ray."""
    x, y, z = (t * q if is_zero(p) else t * q - p for p, q in zip(a, d))
    return x, y, z


def less(a: V3, scale: Number, b: V3) -> V3:
    """a - scale * b."""
    return a[0] - scale * b[0], a[1] - scale * b[1], a[2] - scale * b[2]


def is_zero(value: Number) -> bool:
    """A component that is known to be nothing."""
    return isinstance(value, float) and value == 0


def cross(a: V3, b: V3) -> V3:
    """Vector product."""
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def clamp(value: Number, low: Number, high: Number) -> Number:
    """`value` within limits; unlike `jnp.clip` it does not look out for NaN."""
    value = jnp.where(value < low, low, value)
    return jnp.where(value > high, high, value)


def inverse_root(value: Number) -> Number:
    """1 / sqrt(value) for positive values; finite at zero.

    On a CPU by Newton's method from a first guess in the float's bits. XLA holds square roots and divisions to be so
    costly that it writes each to memory before it is used twice; without them a whole picture becomes one loop.
    """
    if not on_cpu():
        return jax.lax.rsqrt(jnp.maximum(value, TINY * TINY))
    bits = jax.lax.bitcast_convert_type(jnp.asarray(value, jnp.float32), jnp.int32)
    guess = jax.lax.bitcast_convert_type(0x5F3759DF - (bits >> 1), jnp.float32)
    half = 0.5 * value
    for _ in range(3):
        guess = guess * (1.5 - half * guess * guess)
    return guess


def inverse(value: Number) -> Number:
    """1 / value, of either sign."""
    if not on_cpu():
        return 1 / value
    guess = inverse_root(value * value)
    return value * guess * guess


def root(value: Number) -> Number:
    """Square root, zero below zero."""
    value = jnp.where(value > 0, value, 0.0)
    return value * inverse_root(value)


def plane(c: V3, d: V3, x: V3, z: V3, size: V3, near: Number) -> Hit:
    """The front side of a rectangle of half sides size[0] and size[1], without end where one is zero."""
    t = dot(c, z) * inverse(_nonzero(dot(d, z)))
    p, y = from_to(c, t, d), cross(z, x)
    hit = (t > near) & (dot(d, z) < 0)
    hit &= (jnp.abs(dot(p, x)) <= size[0]) | (size[0] <= 0)
    hit &= (jnp.abs(dot(p, y)) <= size[1]) | (size[1] <= 0)
    return Hit(jnp.where(hit, t, FAR), z)


def sphere(c: V3, d: V3, dd: Number, size: V3, near: Number) -> Hit:
    """A sphere of radius size[0]; `dd` is d*d."""
    dc = dot(d, c)
    inside = dc * dc - dd * (dot(c, c) - size[0] * size[0])
    t = (dc - root(inside)) * inverse(dd)
    hit = (inside >= 0) & (t > near)
    return Hit(jnp.where(hit, t, FAR), from_to(c, t, d))


def capsule(c: V3, d: V3, dd: Number, z: V3, size: V3, near: Number) -> Hit:
    """All points within size[0] of a segment, size[1] to either side of the centre."""
    radius, half = size[0], size[1]
    cz, cc = dot(c, z), dot(c, c)
    dz, dc = dot(d, z), dot(d, c)
    a, b = _at_least(dd - dz * dz, 1e-6 * dd), dc - dz * cz
    inside = b * b - a * (cc - cz * cz - radius * radius)
    side = (b - root(inside)) * inverse(a)  # where the infinite cylinder begins
    at = side * dz - cz
    e = clamp(at, -half, half)  # the segment's point whose sphere counts
    de = dc + e * dz
    ball = de * de - dd * (cc + 2 * e * cz + e * e - radius * radius)
    on_side = jnp.abs(at) <= half
    t = jnp.where(on_side, side, (de - root(ball)) * inverse(dd))
    hit = (inside >= 0) & (on_side | (ball >= 0)) & (t > near)
    return Hit(jnp.where(hit, t, FAR), less(from_to(c, t, d), e, z))


def cylinder(c: V3, d: V3, dd: Number, z: V3, size: V3, near: Number) -> Hit:
    """A closed cylinder of radius size[0] and half length size[1]."""
    radius, half = size[0], size[1]
    cz, cc = dot(c, z), dot(c, c)
    dz, dc = dot(d, z), dot(d, c)
    a, b, k = _at_least(dd - dz * dz, 1e-6 * dd), dc - dz * cz, cc - cz * cz - radius * radius
    inside = b * b - a * k
    side = (b - root(inside)) * inverse(a)
    at = side * dz - cz
    facing = jnp.where(dz > 0, -1.0, 1.0)
    lid = (cz + facing * half) * inverse(_nonzero(dz))
    on_side = jnp.abs(at) <= half
    on_lid = (a * lid * lid - 2 * b * lid + k <= 0) & (lid > near)
    t = jnp.where(on_side, side, lid)
    hit = (inside >= 0) & ((on_side & (side > near)) | (~on_side & on_lid))
    n = less(from_to(c, t, d), at, z)
    normal = tuple(jnp.where(on_side, n[i], facing * z[i]) for i in range(3))
    return Hit(jnp.where(hit, t, FAR), (normal[0], normal[1], normal[2]))


def ellipsoid(c: V3, d: V3, x: V3, z: V3, size: V3, near: Number) -> Hit:
    """An ellipsoid of half axes `size`: a unit sphere in coordinates scaled by them."""
    axes = (x, cross(z, x), z)
    ds = [dot(d, axis) * (1 / half) for axis, half in zip(axes, size)]
    cs = [dot(c, axis) * (1 / half) for axis, half in zip(axes, size)]
    local, middle = (ds[0], ds[1], ds[2]), (cs[0], cs[1], cs[2])
    a, b = dot(local, local), dot(local, middle)
    inside = b * b - a * (dot(middle, middle) - 1.0)
    t = (b - root(inside)) * inverse(a)
    hit = (inside >= 0) & (t > near)
    gradient = [(t * ds[i] - cs[i]) * (1 / size[i]) for i in range(3)]
    n = tuple(size[2] * sum(gradient[k] * axes[k][i] for k in range(3)) for i in range(3))
    return Hit(jnp.where(hit, t, FAR), (n[0], n[1], n[2]))


def box(c: V3, d: V3, x: V3, z: V3, size: V3, near: Number) -> Hit:
    """A box of half sides `size`."""
    axes = (x, cross(z, x), z)
    first, last, signs = [], [], []
    for axis, half in zip(axes, size):
        da = dot(d, axis)
        slope = inverse(_nonzero(da))
        middle, reach = dot(c, axis) * slope, jnp.abs(slope) * half
        first.append(middle - reach)
        last.append(middle + reach)
        signs.append(jnp.where(da > 0, -1.0, 1.0))
    enter = jnp.where(first[0] > first[1], first[0], first[1])
    t = jnp.where(enter > first[2], enter, first[2])
    leave = jnp.where(last[0] < last[1], last[0], last[1])
    leave = jnp.where(leave < last[2], leave, last[2])
    hit = (t <= leave) & (t > near)
    on_z, on_x = first[2] >= enter, first[0] > first[1]
    n = tuple(
        jnp.where(on_z, signs[2] * axes[2][i], jnp.where(on_x, signs[0] * axes[0][i], signs[1] * axes[1][i]))
        for i in range(3)
    )
    return Hit(jnp.where(hit, t, FAR), (n[0], n[1], n[2]))


def _at_least(value: Number, least: Number) -> Number:
    """For the square of the sine between ray and axis: float32 may put it below zero where they are parallel."""
    return jnp.where(value < least, least, value)


def _nonzero(value: Number) -> Number:
    return jnp.where(jnp.abs(value) < TINY, TINY, value)
