"""Light and colour as OpenGL's fixed pipeline makes them for MuJoCo, worked out at every pixel."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array

from envs.render.mujoco_scene import Checker, Light, Scenery
from envs.render.primitives import V3, Number, clamp, cross, dot, from_to, inverse, inverse_root, is_zero
from envs.render.trace import Rays, Seen, World, choose

PLAIN = Checker(((1.0, 1.0, 1.0), (1.0, 1.0, 1.0)), (0.0, 0.0), (0.0, 0.0), 1.0)


def light(
    scenery: Scenery,
    world: World,
    shadow: Callable[[Rays], Array] | None,
    rays: Rays,
    seen: Seen,
    dim: float = 1.0,
) -> list[Number]:
    """Red, green and blue, 0..1, of what the rays see.

    Args:
        shadow: whether something stands in the way of rays, up to t = 1; None for no shadows.
        dim: what the surfaces' colours are multiplied by.
    """
    p = _at(rays, seen.t)
    n, to_eye = _unit(seen.normal), _unit((-rays.d[0], -rays.d[1], -rays.d[2]))
    tint = [choose(seen.place, [thing.tint[k] for thing in seen.things]) for k in range(3)]
    albedo = [dim * tint[k] * seen.value(lambda surface, k=k: surface.rgba[k]) for k in range(3)]
    specular = seen.value(lambda surface: surface.specular)
    emission = seen.value(lambda surface: surface.emission)
    shininess = scenery.surfaces[0].shininess  # of all, see make_scenery
    pattern = _pattern(rays, seen)
    base = [emission * part for part in albedo]
    total, placed = [base], iter(world.lights)
    for each in scenery.lights:
        position, direction = next(placed) if each.row >= 0 else ((0.0, 0.0, 0.0), (0.0, 0.0, -1.0))
        to_light, strength = _towards(each, position, direction, p)
        facing = dot(n, to_light)
        diffuse = strength * jnp.where(facing > 0, facing, 0.0)
        half = _unit((to_light[0] + to_eye[0], to_light[1] + to_eye[1], to_light[2] + to_eye[2]))
        shine = strength * jnp.where(facing > 0, _power(jnp.maximum(dot(n, half), 0.0), shininess), 0.0) * specular
        lit = [(each.ambient[k] + each.diffuse[k] * diffuse) * albedo[k] + each.specular[k] * shine for k in range(3)]
        if shadow is not None and each.shadows:
            # MuJoCo adds each light that casts shadows in a pass of its own, where they fall.
            open_ = ~shadow(_shadow_rays(each, position, direction, p, n, seen.t))
            total.append([jnp.where(open_, part, 0.0) for part in lit])
        else:
            total[0] = [so_far + part for so_far, part in zip(total[0], lit)]
    passes = [[clamp(world.gain * part, 0.0, 1.0) * shade for part, shade in zip(each, pattern)] for each in total]
    return [clamp(sum(parts[1:], parts[0]), 0.0, 1.0) for parts in zip(*passes)]


def _towards(each: Light, position: V3, direction: V3, p: V3) -> tuple[V3, Number]:
    """The unit vector to a light, and how much of it arrives: spot and attenuation."""
    if each.directional:
        return (-direction[0], -direction[1], -direction[2]), 1.0
    way = (position[0] - p[0], position[1] - p[1], position[2] - p[2])
    square = dot(way, way)
    nearness = inverse_root(square + 1e-12)
    to_light = (way[0] * nearness, way[1] * nearness, way[2] * nearness)
    strength: Number = 1.0
    if each.cutoff < 180:
        cosine = -dot(to_light, direction)
        inside = cosine >= math.cos(math.radians(each.cutoff))
        strength = jnp.where(inside, _power(jnp.maximum(cosine, 0.0), each.exponent), 0.0)
    if each.attenuation != (1.0, 0.0, 0.0):
        constant, linear, quadratic = each.attenuation
        strength = strength * inverse(constant + linear * square * nearness + quadratic * square)
    return to_light, strength


def _shadow_rays(each: Light, position: V3, direction: V3, p: V3, n: V3, depth: Number) -> Rays:
    lift = 2e-3 * depth  # off the surface
    start = (p[0] + lift * n[0], p[1] + lift * n[1], p[2] + lift * n[2])
    if each.directional:
        way = (-100 * direction[0], -100 * direction[1], -100 * direction[2])
    else:
        way = (position[0] - start[0], position[1] - start[1], position[2] - start[2])
    return Rays(start, way, dot(way, way), jnp.zeros_like(depth), 0.0)


def _at(rays: Rays, t: Number) -> V3:
    x, y, z = (t * d if is_zero(o) else o + t * d for o, d in zip(rays.origin, rays.d))
    return x, y, z


def _pattern(rays: Rays, seen: Seen) -> list[Number]:
    """What textures multiply colours by."""
    if seen.plane is None or not any(thing.surface.texture for thing in seen.things):
        return [1.0, 1.0, 1.0]

    def of(get: Callable[[Checker], float]) -> Number:
        return seen.value(lambda surface: get(surface.texture or PLAIN))

    plane, y = seen.plane, cross(seen.plane.z, seen.plane.x)
    centre = plane.centre
    offset = (centre[0] - rays.origin[0], centre[1] - rays.origin[1], centre[2] - rays.origin[2])
    local = from_to(offset, seen.t, rays.d)
    at, scale = [of(lambda c, i=i: c.at[i]) for i in range(2)], [of(lambda c, i=i: c.scale[i]) for i in range(2)]
    width = _footprint(plane.x, y, plane.z, rays, seen.t, scale)
    texel = of(lambda c: c.texel)
    width = jnp.where(width < texel, texel, width)
    waves = [_square_wave(a + b * dot(local, axis), width) for a, b, axis in zip(at, scale, (plane.x, y))]
    swing = waves[0] * waves[1]
    colours = []
    for k in range(3):
        middle = of(lambda c, k=k: (c.colours[0][k] + c.colours[1][k]) / 2)
        half = of(lambda c, k=k: (c.colours[0][k] - c.colours[1][k]) / 2)
        colours.append(middle + half * swing)
    return colours


def _footprint(x: V3, y: V3, z: V3, rays: Rays, t: Number, scale: list[Number]) -> Number:
    """How far, in tiles, the texture of a plane moves from one pixel to the next, at its longest."""
    slope = t * inverse(dot(rays.d, z))
    longest: Number = 0.0
    for k in range(2):  # along a row, along a column: the camera's ray changes in its component k
        moves = [
            factor * rays.pixel * (t * axis[k] - slope * z[k] * dot(rays.d, axis))
            for factor, axis in zip(scale, (x, y))
        ]
        square = moves[0] * moves[0] + moves[1] * moves[1]
        longest = square if k == 0 else jnp.where(square > longest, square, longest)
    return longest * inverse_root(longest + 1e-20)


def _square_wave(x: Number, width: Number) -> Number:
    """The mean, over `width` around x, of a wave that is +1 in the first half of each unit and -1 in the second."""

    def integral(at: Number) -> Number:
        return 0.5 - jnp.abs(at - jnp.floor(at) - 0.5)

    return (integral(x + width / 2) - integral(x - width / 2)) * inverse(width)


def sky(scenery: Scenery, world: World, rays: Rays) -> list[Number]:
    """The skybox along each ray."""
    if not scenery.sky:
        return [0.0, 0.0, 0.0]
    sine = dot(rays.d, world.up) * inverse_root(rays.dd)
    colours = []
    for coefficients in scenery.sky:
        value: Number = coefficients[0]
        for coefficient in coefficients[1:]:
            value = value * sine + coefficient
        colours.append(clamp(world.gain * value, 0.0, 1.0))
    return colours


def _power(base: Number, exponent: float) -> Number:
    return base ** int(exponent) if exponent == int(exponent) else jnp.exp(exponent * jnp.log(base + 1e-12))


def _unit(a: V3) -> V3:
    shorter = inverse_root(dot(a, a) + 1e-20)
    return a[0] * shorter, a[1] * shorter, a[2] * shorter
