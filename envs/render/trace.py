"""What a camera's rays meet: a scene taken apart, in camera coordinates, and the nearest thing on every ray."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from envs.render import primitives
from envs.render.catenary import hanging
from envs.render.mujoco_scene import AXES, CATENARY_POINTS, Kind, Scenery, Surface, layout
from envs.render.primitives import FAR, V3, Hit, Number, dot
from ne_jax.target import on_cpu

OPAQUE = 0.995
"""Least alpha of what hides all behind it, as in MuJoCo."""
CHUNK = 16
"""Things in one piece of straight code: more are slow to compile, and then slow, in XLA's CPU code."""


class Body(NamedTuple):
    """One primitive in camera coordinates, or, where its numbers are arrays [pixels], one for each pixel."""

    kind: Kind
    centre: V3
    x: V3
    z: V3
    size: V3


class Thing(NamedTuple):
    """A primitive or a part of a tendon; `label` counts the former, then the latter.

    surface: what it looks like, and `taut`, what if the condition that comes with it holds. Colours are multiplied by
    `tint`.
    """

    body: Body
    label: int
    surface: Surface
    tint: V3 = (1.0, 1.0, 1.0)
    taut: tuple[Array, Surface] | None = None

    def value(self, of: Callable[[Surface], float]) -> Number:
        """A number of its surface."""
        if self.taut is None or of(self.taut[1]) == of(self.surface):
            return of(self.surface)
        return jnp.where(self.taut[0], of(self.taut[1]), of(self.surface))


class Rays(NamedTuple):
    """`origin + t * d` for each pixel; dd is d * d. Only what is beyond t = near counts.

    `pixel` is what d changes by from one pixel to the next.
    """

    origin: V3
    d: V3
    dd: Number
    near: Number
    pixel: float


class Seen(NamedTuple):
    """What each ray meets first: its place in the list of things, and there the depth, normal and body.

    hit: whether there is anything; else the rest means nothing.
    """

    things: list[Thing]
    hit: Array
    place: Array
    t: Number
    normal: V3
    plane: Body | None

    def value(self, of: Callable[[Surface], float]) -> Number:
        """A number of the surfaces seen; a plain number if it is the same for all."""
        return choose(self.place, [thing.value(of) for thing in self.things])


class World(NamedTuple):
    """A scene in camera coordinates: opaque things, transparent ones, position and direction of lights, and up.

    All light is multiplied by `gain`. `once` is the number one, which XLA does not know to be that.
    """

    solid: list[Thing]
    glass: list[Thing]
    lights: list[tuple[V3, V3]]
    up: V3
    gain: Number
    once: Array


def camera_rays(scenery: Scenery, size: int, right: Number, down: Number) -> Rays:
    """The rays through pixel centres, or so far off them in pixels, row by row from the top left."""
    pixel = 2 * math.tan(math.radians(scenery.fovy) / 2) / size
    middle = ((np.arange(size) + 0.5) * pixel - size * pixel / 2).astype(np.float32)
    u = np.broadcast_to(middle, (size, size)).ravel() + right * pixel
    v = np.broadcast_to(-middle[:, None], (size, size)).ravel() - down * pixel
    return Rays((0.0, 0.0, 0.0), (u, v, -1.0), u * u + v * v + 1, scenery.near, pixel)


def unpack(scenery: Scenery, scene: Float32[Array, " floats"]) -> World:
    """Takes a scene apart. Things of one kind stand side by side."""
    scene, varied = scene[: scenery.floats], scene[scenery.floats :]
    tints: list[V3] = [(1.0, 1.0, 1.0)] * len(scenery.surfaces)
    if varied.size:
        tints = [vector(varied[:-1].reshape(-1, 3), i) for i in range(len(tints))]
    vectors = scene.reshape(-1, 3)
    eye, right, back = vectors[0], vectors[1], vectors[2]
    turn = jnp.stack([right, jnp.cross(back, right), back])

    def turned(rows: Array) -> Array:
        return jnp.einsum("nk,ik->ni", rows, turn, precision="highest")

    points, axes, up = turned(vectors - eye), turned(vectors), turned(jnp.asarray([scenery.up]))
    rows = layout(scenery)
    lights = [(vector(points, p), vector(axes, d)) for p, d in zip(rows.light_positions, rows.light_directions)]
    things = []
    for label, each in enumerate(scenery.primitives):
        found = {name: vector(axes, rows.axes[label] + k) for k, name in enumerate(AXES[each.kind])}
        nothing = (0.0, 0.0, 0.0)
        centre = vector(points, rows.positions[label])
        body = Body(each.kind, centre, found.get("x", nothing), found.get("z", nothing), each.size)
        things.append(Thing(body, label, scenery.surfaces[each.surface], tints[each.surface]))
    things.extend(_strings(scenery, points[rows.tendons :], up[0], tints))
    things.sort(key=lambda thing: thing.body.kind)
    solid = [thing for thing in things if thing.surface.rgba[3] >= OPAQUE]
    glass = [thing for thing in things if thing.surface.rgba[3] < OPAQUE]
    gain = varied[-1] if varied.size else 1.0
    once = 1 + jnp.minimum(jnp.isnan(scene[0]).astype(jnp.int32), 0)
    return World(solid, glass, lights, vector(up, 0), gain, once)


def vector(rows: Float[Array, "rows 3"], i: int) -> V3:
    """One row of an array [rows, 3]."""
    return rows[i, 0], rows[i, 1], rows[i, 2]


def _strings(
    scenery: Scenery, points: Float[Array, "points 3"], up: Float[Array, "3"], tints: list[V3]
) -> Iterator[Thing]:
    """Each tendon as thin capsules."""
    label = len(scenery.primitives)
    for tendon in scenery.tendons:
        path, points = points[: tendon.points], points[tendon.points :]
        surface, taut = scenery.surfaces[tendon.surface], None
        if tendon.slack:
            taut = jnp.sum((path[1] - path[0]) ** 2) > tendon.slack**2, scenery.surfaces[tendon.taut]
            path = hanging(path[0], path[1], up, tendon.slack, CATENARY_POINTS)
        span, middle = path[1:] - path[:-1], (path[1:] + path[:-1]) / 2
        length = jnp.sqrt(jnp.sum(span * span, axis=1)) + 1e-9
        axis = span / length[:, None]
        for i in range(len(path) - 1):
            size = (tendon.radius, length[i] / 2, 0.0)
            body = Body("capsule", vector(middle, i), (0.0, 0.0, 0.0), vector(axis, i), size)
            yield Thing(body, label, surface, tints[tendon.surface], taut)
            label += 1


def meet(body: Body, rays: Rays) -> Hit:
    """Where rays meet one primitive. They start near it, wherever they come from, to spare float32 the distance."""
    c = body.centre
    if any(not isinstance(part, float) for part in rays.origin):
        c = c[0] - rays.origin[0], c[1] - rays.origin[1], c[2] - rays.origin[2]
    if body.kind == "plane":
        return primitives.plane(c, rays.d, body.x, body.z, body.size, rays.near)
    if isinstance(rays.d[2], float):  # from the camera: to the depth of the centre
        start = -c[2]
        near: V3 = (c[0] - start * rays.d[0], c[1] - start * rays.d[1], 0.0)
    else:
        start = dot(c, rays.d) * primitives.inverse(rays.dd)
        near = primitives.less(c, start, rays.d)
    d, dd, least = rays.d, rays.dd, rays.near - start
    if body.kind == "sphere":
        hit = primitives.sphere(near, d, dd, body.size, least)
    elif body.kind == "capsule":
        hit = primitives.capsule(near, d, dd, body.z, body.size, least)
    elif body.kind == "cylinder":
        hit = primitives.cylinder(near, d, dd, body.z, body.size, least)
    else:
        shape = primitives.ellipsoid if body.kind == "ellipsoid" else primitives.box
        hit = shape(near, d, body.x, body.z, body.size, least)
    return hit._replace(t=jnp.where(hit.t < FAR, hit.t + start, FAR))


def nearest(world: World, things: list[Thing], rays: Rays, but: int | None = None) -> Seen:
    """What each ray meets first of all things but one.

    A first pass finds out which thing it is: the depths' bits, as integers, are in the order of the depths, and their
    last bits make room for the thing's place in the list, so that one number per pixel does. A second meets it again.
    """
    far, pixels = jnp.asarray(_bits(jnp.float32(FAR))), np.shape(rays.dd)
    room = max(len(things) - 1, 1).bit_length()

    def closer(places: list[int], key: Array) -> Array:
        for place in places:
            bits = _bits(meet(things[place].body, rays).t)
            bits = (bits >> room << room) | place
            key = jnp.where(bits < key, bits, key)
        return key

    places = [place for place in range(len(things)) if place != but]
    key = in_pieces(world, places, closer, jnp.broadcast_to(far >> room << room, pixels))
    place = key & (2**room - 1)
    hit, t, normal, plane = key < (far >> room << room), FAR, (0.0, 0.0, 1.0), None
    kinds = [thing.body.kind for thing in things]
    for kind in sorted(set(kinds)):
        first, last = kinds.index(kind), len(kinds) - kinds[::-1].index(kind)
        body = _chosen(place - first, [thing.body for thing in things[first:last]])
        met, here = meet(body, rays), (place >= first) & (place < last)
        t = jnp.where(here, met.t, t)
        normal = each_of(lambda new, old, here=here: jnp.where(here, new, old), met.normal, normal)
        plane = body if kind == "plane" else plane
    return Seen(things, hit, place, t, normal, plane)


def _bits(value: Number) -> Array:
    return jax.lax.bitcast_convert_type(value, jnp.int32)


def each_of(fn: Callable[..., Number], *vectors: V3) -> V3:
    """`fn` of the vectors' components, one after another."""
    x, y, z = (fn(*parts) for parts in zip(*vectors))
    return x, y, z


def _chosen(place: Array, bodies: list[Body]) -> Body:
    """The bodies[place] of each pixel."""

    def pick(get: Callable[[Body], V3]) -> V3:
        return each_of(lambda *values: choose(place, list(values)), *[get(body) for body in bodies])

    return Body(
        bodies[0].kind, pick(lambda b: b.centre), pick(lambda b: b.x), pick(lambda b: b.z), pick(lambda b: b.size)
    )


def choose(place: Array, values: list[Number]) -> Number:
    """values[place], for a place per pixel; a plain number where they are all the same."""
    chosen = values[-1]
    for i in range(len(values) - 2, -1, -1):
        plain = isinstance(values[i], float) and isinstance(values[i + 1], float)
        if values[i] is not values[i + 1] and not (plain and values[i] == values[i + 1]):
            chosen = jnp.where(place <= i, values[i], chosen)
    return chosen


Carry = TypeVar("Carry", bound=Array)


def in_pieces(world: World, places: list[int], step: Callable[[list[int], Carry], Carry], carry: Carry) -> Carry:
    """`step` with CHUNK of the places at a time, each piece a loop of its own in XLA's CPU code.

    A loop of one round, which XLA does not know to be one, is what keeps it from making one piece of all.
    """
    pieces = [places[i : i + CHUNK] for i in range(0, len(places), CHUNK)]
    for piece in pieces:
        if on_cpu():
            carry = jax.lax.fori_loop(0, world.once, lambda _, carry, piece=piece: step(piece, carry), carry)
        else:
            carry = step(piece, carry)
    return carry
