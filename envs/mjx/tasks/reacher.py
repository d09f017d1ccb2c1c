"""Reacher: bring the tip of a two-link arm to a target that is somewhere else in every episode; two actuators."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Key

from envs.mjx.physics import Domain, Physics, State, Task, random_joints
from envs.mjx.tasks.rewards import tolerance

if TYPE_CHECKING:
    from mujoco import mjx

NEAREST, FARTHEST = 0.05, 0.20  # m of a target from the shoulder


def make(physics: Physics, task: str) -> Task:
    """One of the domain's tasks; they differ in the size of the target, which is in the model."""
    del task
    host = physics.host
    target, finger = host.geom("target").id, host.geom("finger").id
    touch = float(host.geom_size[target, 0] + host.geom_size[finger, 0])
    joints = random_joints(physics)

    def start(key: Key[Array, ""]) -> State:
        pose, direction, distance = jax.random.split(key, 3)
        angle = jax.random.uniform(direction, maxval=2 * math.pi)
        radius = jax.random.uniform(distance, minval=NEAREST, maxval=FARTHEST)
        return physics.start(joints(pose), radius * jnp.stack([jnp.sin(angle), jnp.cos(angle)]))

    def place(model: mjx.Model, xy: Float32[Array, "2"]) -> mjx.Model:
        return model.replace(geom_pos=jnp.asarray(model.geom_pos).at[target, :2].set(xy))

    def to_target(data: mjx.Data) -> Float32[Array, "2"]:
        return (data.geom_xpos[target] - data.geom_xpos[finger])[:2]

    def observe(data: mjx.Data) -> Float32[Array, "6"]:
        return jnp.concatenate([data.qpos, to_target(data), data.qvel])

    def reward(data: mjx.Data) -> Float32[Array, ""]:
        return tolerance(jnp.linalg.norm(to_target(data)), 0, touch)

    return Task(start, observe, reward, place)


DOMAIN = Domain(("easy", "hard"), make)
