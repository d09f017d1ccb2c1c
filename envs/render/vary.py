"""Random views of one scene: free augmentation for a replay that keeps scenes and draws them when it is sampled."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Key

from envs.render.mujoco_scene import Scenery, layout

Vary = Callable[[Key[Array, ""], Float32[Array, " floats"]], Float32[Array, " varied"]]


def make_vary(scenery: Scenery, camera: float = 0.0, colour: float = 0.0, light: float = 0.0) -> Vary:
    """`vary(key, scene)` is the scene seen differently; the same key gives the same view of any scene.

    Args:
        camera: degrees, at most, that the camera moves around what can move, about each of its axes.
        colour: share, at most, by which red, green and blue of each surface change.
        light: share, at most, by which all light changes.

    Raises:
        ValueError: a share that does not lie in [0, 1), or an angle that does not lie in [0, 90).
    """
    for name, value, most in (("camera", camera, 90), ("colour", colour, 1), ("light", light, 1)):
        if not 0 <= value < most:
            raise ValueError(f"replay.vary.{name} must lie in [0, {most}), got {value}.")
    rows = layout(scenery)
    moving = [rows.positions[i] for i, each in enumerate(scenery.primitives) if each.moves]

    def vary(key: Key[Array, ""], scene: Float32[Array, " floats"]) -> Float32[Array, " varied"]:
        angle_key, colour_key, light_key = jax.random.split(key, 3)
        vectors = scene.reshape(-1, 3)
        eye, right, back = vectors[0], vectors[1], vectors[2]
        pivot = jnp.mean(vectors[np.array(moving)], axis=0)
        for angle, axis in zip(jax.random.uniform(angle_key, (3,), minval=-1.0), (right, jnp.cross(back, right), back)):
            turn = _rotation(axis, angle * math.radians(camera))
            eye, right, back = pivot + turn @ (eye - pivot), turn @ right, turn @ back
        tint = 1 + colour * jax.random.uniform(colour_key, (3 * len(scenery.surfaces),), minval=-1.0)
        gain = 1 + light * jax.random.uniform(light_key, (1,), minval=-1.0)
        return jnp.concatenate([eye, right, back, scene[9:], tint, gain])

    return vary


def _rotation(axis: Float32[Array, "3"], angle: Float32[Array, ""]) -> Float32[Array, "3 3"]:
    """Rodrigues' formula, about a unit vector."""
    x, y, z = axis
    cross = jnp.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return jnp.eye(3) + jnp.sin(angle) * cross + (1 - jnp.cos(angle)) * (cross @ cross)
