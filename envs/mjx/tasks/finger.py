"""Finger: flick a spinner, to keep it turning or to turn its tip to a target; two actuators."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Key

from envs.mjx.physics import Domain, Physics, State, Task, random_joints, untouching

if TYPE_CHECKING:
    from mujoco import mjx

SPIN_VELOCITY = 15.0  # rad/s, backwards, from which on the body spins
XZ = np.array([0, 2])


def make(physics: Physics, task: str) -> Task:
    """One of the domain's tasks; the two turns differ in the size of the target, which is in the model."""
    host, turn = physics.host, task.startswith("turn")
    target, hinge = host.site("target").id, host.body("spinner").pos
    radius = float(host.geom("cap1").size.sum())  # of the circle that the spinner's tip and the targets are on
    size = float(host.site_size[target, 0])
    joints = random_joints(physics)

    def start(key: Key[Array, ""]) -> State:
        pose, direction = jax.random.split(key)
        qpos = untouching(physics, joints, pose)
        if not turn:
            return physics.start(qpos)
        angle = jax.random.uniform(direction, minval=-math.pi, maxval=math.pi)
        return physics.start(qpos, hinge[XZ] + radius * jnp.stack([jnp.sin(angle), jnp.cos(angle)]))

    def place(model: mjx.Model, xz: Float32[Array, "2"]) -> mjx.Model:
        return model.replace(site_pos=jnp.asarray(model.site_pos).at[target, XZ].set(xz))

    def sensor(data: mjx.Data, name: str) -> Float32[Array, " size"]:
        first, size = int(host.sensor(name).adr[0]), int(host.sensor(name).dim[0])
        return data.sensordata[first : first + size]

    def from_hinge(data: mjx.Data, name: str) -> Float32[Array, "2"]:
        return (sensor(data, name) - sensor(data, "spinner"))[XZ]

    def to_surface(data: mjx.Data) -> Float32[Array, ""]:
        return jnp.linalg.norm(from_hinge(data, "target") - from_hinge(data, "tip")) - size

    def observe(data: mjx.Data) -> Float32[Array, " features"]:
        joints = [sensor(data, name) for name in ("proximal", "distal")]
        speeds = [sensor(data, f"{name}_velocity") for name in ("proximal", "distal", "hinge")]
        touch = [jnp.log1p(sensor(data, name)) for name in ("touchtop", "touchbottom")]
        goal = [from_hinge(data, "target"), to_surface(data)[None]] if turn else []
        return jnp.concatenate([*joints, from_hinge(data, "tip"), *speeds, *touch, *goal])

    def spins(data: mjx.Data) -> Float32[Array, ""]:
        return (sensor(data, "hinge_velocity")[0] <= -SPIN_VELOCITY).astype(jnp.float32)

    def reached(data: mjx.Data) -> Float32[Array, ""]:
        return (to_surface(data) <= 0).astype(jnp.float32)

    return Task(start, observe, reached, place) if turn else Task(start, observe, spins)


# The ground, the upper finger and its hub are too far from the spinner and from each other ever to touch. The spinner's
# hub lies inside its caps: the fingertip meets those 2 cm before. MJX spends most of its time on these pairs.
DOMAIN = Domain(
    ("spin", "turn_easy", "turn_hard"),
    make,
    untouched=("ground", "proximal", "proximal_decoration", "spinner_decoration"),
)
