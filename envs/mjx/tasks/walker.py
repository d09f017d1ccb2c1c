"""Planar walker: stand up, walk, run; six actuators."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp
from jaxtyping import Array, Float32, Key

from envs.mjx.physics import Domain, Physics, State, Task, random_joints
from envs.mjx.tasks.rewards import INFINITE, tolerance

if TYPE_CHECKING:
    from mujoco import mjx

STAND_HEIGHT = 1.2  # m of the torso from which on it stands
SPEEDS = {"stand": 0.0, "walk": 1.0, "run": 8.0}  # m/s from which on the reward for moving is 1


def make(physics: Physics, task: str) -> Task:
    """One of the domain's tasks."""
    torso, wanted = physics.host.body("torso").id, SPEEDS[task]
    speed = int(physics.host.sensor("torso_subtreelinvel").adr[0])
    joints = random_joints(physics)

    def start(key: Key[Array, ""]) -> State:
        return physics.start(joints(key))

    def observe(data: mjx.Data) -> Float32[Array, "24"]:
        turned = jnp.stack([data.xmat[1:, 0, 0], data.xmat[1:, 0, 2]], axis=1)
        return jnp.concatenate([turned.ravel(), data.xpos[torso, 2:], data.qvel])

    def reward(data: mjx.Data) -> Float32[Array, ""]:
        high = tolerance(data.xpos[torso, 2], STAND_HEIGHT, INFINITE, margin=STAND_HEIGHT / 2)
        standing = (3 * high + (1 + data.xmat[torso, 2, 2]) / 2) / 4
        if not wanted:
            return standing
        moving = data.sensordata[speed]
        fast = tolerance(moving, wanted, INFINITE, margin=wanted / 2, value_at_margin=0.5, sigmoid="linear")
        return standing * (5 * fast + 1) / 6

    return Task(start, observe, reward)


DOMAIN = Domain(tuple(SPEEDS), make)
