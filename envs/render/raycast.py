"""MuJoCo's pictures without OpenGL: a ray caster in JAX for scenes of simple shapes, inside jit, for one or thousands.

It follows MuJoCo's OpenGL renderer: a pinhole camera, the nearest primitive on each pixel's ray (`primitives`), and
the fixed pipeline's light (`shading`), but for each pixel where OpenGL lights corners and blends between them.

    scenery = make_scenery(model, camera=0)  # once
    draw = make_draw(scenery, "fast")
    images = jax.jit(draw, static_argnums=1)(poses(scenery, data), 84)

All is worked out in camera coordinates (x right, y up, z backward, metres), in which a pixel's ray never changes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32, UInt8

from envs.render import primitives, shading
from envs.render.mujoco_scene import RenderQuality, Scenery
from envs.render.primitives import FAR, Number, dot
from envs.render.raster import interleave, pack
from envs.render.trace import Rays, Seen, World, camera_rays, each_of, in_pieces, meet, nearest, unpack
from ne_jax.target import on_cpu


class Quality(NamedTuple):
    """Which of the costlier effects are drawn; `samples` rays to each side of a pixel."""

    shadows: bool
    reflections: bool
    samples: int


QUALITIES: dict[RenderQuality, Quality] = {
    "fast": Quality(False, False, 1),
    "smooth": Quality(False, False, 2),
    "canonical": Quality(True, True, 2),
}


Draw = Callable[[Float32[Array, "*batch floats"], int], UInt8[Array, "*batch size size 3"]]


@functools.lru_cache(maxsize=64)
def make_draw(scenery: Scenery, quality: RenderQuality = "fast") -> Draw:
    """The renderer of a scenery: `draw(scenes, size)` gives one image, uint8 [size, size, 3], per scene.

    Batches are drawn one image after another on a CPU, where an image then stays in the cache, and all at once on an
    accelerator. `vmap` of it is the same as a batch. Scenes may come as `make_vary` leaves them.
    """
    return _batched(functools.partial(_draw_words, scenery, QUALITIES[quality]), _to_images)


@functools.lru_cache(maxsize=64)
def make_segment(
    scenery: Scenery,
) -> Callable[[Float32[Array, "*batch floats"], int], Int32[Array, "*batch size size"]]:
    """`segment(scenes, size)`: which primitive each pixel shows, tendons' segments after them; -1 for none."""
    return _batched(functools.partial(_segment_one, scenery), lambda labels: labels)


def _batched(one: Callable[[Array, int], Array], finish: Callable[[Array], Array]) -> Callable[[Array, int], Array]:
    """`one` of a scene, a number per pixel, for batches. `finish` comes last, where it spoils no vector code."""

    @functools.cache
    def of_size(size: int) -> Callable[[Array], Array]:
        @jax.custom_batching.custom_vmap
        def draw(scenes: Array) -> Array:
            flat = scenes.reshape(-1, scenes.shape[-1])
            if len(flat) == 1:
                pixels = one(flat[0], size)
            elif on_cpu():
                pixels = jax.lax.map(lambda scene: one(scene, size), flat)
            else:
                pixels = jax.vmap(lambda scene: one(scene, size))(flat)
            return finish(pixels.reshape(*scenes.shape[:-1], size, size))

        @draw.def_vmap
        def _(axis_size: int, in_batched: list[bool], scenes: Array) -> tuple[Array, bool]:
            return draw(scenes), True

        return draw

    return lambda scenes, size: of_size(int(size))(scenes)


def _draw_words(scenery: Scenery, quality: Quality, scene: Float32[Array, " floats"], size: int) -> Array:
    """One image, a word per pixel."""
    if quality.samples == 1:
        return _words(scenery, quality, scene, size, 0.0, 0.0)
    offsets = (np.arange(quality.samples, dtype=np.float32) + 0.5) / quality.samples - 0.5
    down, right = (jnp.asarray(each.ravel()) for each in np.meshgrid(offsets, offsets))

    def sample(offset: tuple[Array, Array]) -> Array:
        return _words(scenery, quality, scene, size, *offset)

    words = jax.lax.map(sample, (right, down)) if on_cpu() else jax.vmap(sample)((right, down))
    return pack([jnp.mean(plane, axis=0) for plane in _planes(words)], 10)


def _to_images(words: Array) -> Array:
    """Words of ten bits per colour to uint8, red, green and blue in a last axis."""
    return interleave([plane * (255 / 1023) for plane in _planes(words)])


def _planes(words: Array) -> list[Array]:
    return [(words >> shift & 1023).astype(jnp.float32) for shift in (0, 10, 20)]


def _words(scenery: Scenery, quality: Quality, scene: Array, size: int, right: Number, down: Number) -> Array:
    """The colours of one ray per pixel, so far off its centre, ten bits each in one word: XLA draws a single array."""
    world, rays = unpack(scenery, scene), camera_rays(scenery, size, right, down)
    seen = nearest(world, world.solid, rays)
    shadow = functools.partial(_shadow, world) if quality.shadows else None
    light = shading.light(scenery, world, shadow, rays, seen)
    if quality.reflections:
        light = _reflect(scenery, world, rays, seen, light)
    sky = shading.sky(scenery, world, rays)
    colour: list[Number] = [jnp.where(seen.hit, lit, far) for lit, far in zip(light, sky)]
    if world.glass:
        colour = _through(scenery, world, rays, seen, colour)
    return pack([1023 * plane for plane in colour], 10)


def _segment_one(scenery: Scenery, scene: Float32[Array, " floats"], size: int) -> Array:
    world = unpack(scenery, scene)
    things = world.solid + world.glass
    seen = nearest(world, things, camera_rays(scenery, size, 0.0, 0.0))
    labels = jnp.asarray([thing.label for thing in things], jnp.int32)
    return jnp.where(seen.hit, labels[seen.place], -1)


def _shadow(world: World, rays: Rays) -> Array:
    """Whether something solid stands between a point and t = 1 on its ray."""

    def darker(places: list[int], dark: Array) -> Array:
        for place in places:
            dark |= meet(world.solid[place].body, rays).t < 1
        return dark

    return in_pieces(world, list(range(len(world.solid))), darker, jnp.zeros(np.shape(rays.near), bool))


def _reflect(scenery: Scenery, world: World, rays: Rays, seen: Seen, light: list[Number]) -> list[Number]:
    """Adds what the first reflecting plane mirrors: things lit without shadows, their colours dimmed, no sky."""
    mirrors = [
        place for place, thing in enumerate(world.solid) if thing.body.kind == "plane" and thing.surface.reflectance > 0
    ]
    if not mirrors:
        return light
    mirror = min(mirrors, key=lambda place: world.solid[place].label)
    body, strength = world.solid[mirror].body, world.solid[mirror].surface.reflectance
    height = 2 * dot(body.centre, body.z)  # the camera is at the origin: its image lies this far along the normal
    origin = each_of(lambda part: height * part, body.z)
    d = primitives.less(rays.d, 2 * dot(rays.d, body.z), body.z)
    on_mirror = seen.hit & (seen.place == mirror)
    image = Rays(origin, d, rays.dd, jnp.where(on_mirror, seen.t, FAR), rays.pixel)
    mirrored = nearest(world, world.solid, image, but=mirror)
    added = shading.light(scenery, world, None, image, mirrored, dim=strength)
    there = on_mirror & mirrored.hit
    return [jnp.minimum(lit + jnp.where(there, extra, 0.0), 1.0) for lit, extra in zip(light, added)]


def _through(scenery: Scenery, world: World, rays: Rays, behind: Seen, colour: list[Number]) -> list[Number]:
    """Blends in the nearest transparent thing, twice, as MuJoCo draws each of them (front to back, and back)."""
    seen = nearest(world, world.glass, rays)
    visible = seen.hit & ~(behind.hit & (behind.t < seen.t))
    share = jnp.where(visible, 1 - (1 - seen.value(lambda surface: surface.rgba[3])) ** 2, 0.0)
    lit = shading.light(scenery, world, None, rays, seen)
    return [back + share * (new - back) for new, back in zip(lit, colour)]
