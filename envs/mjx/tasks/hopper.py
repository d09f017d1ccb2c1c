"""Planar hopper: stand, or hop forward; four actuators."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Key

from envs.mjx.physics import Domain, Physics, State, Task, feel, random_joints
from envs.mjx.tasks.rewards import INFINITE, tolerance

if TYPE_CHECKING:
    from mujoco import mjx

STAND_HEIGHT = 0.6  # m of the torso over the foot from which on it stands
HIGHEST = 2.0  # m; the upper end of what counts as standing
HOP_SPEED = 2.0  # m/s from which on the reward for hopping is 1


def make(physics: Physics, task: str) -> Task:
    """One of the domain's tasks."""
    host = physics.host
    torso, foot = host.body("torso").id, host.body("foot").id
    speed = int(host.sensor("torso_subtreelinvel").adr[0])
    touch = np.array([int(host.sensor(name).adr[0]) for name in ("touch_toe", "touch_heel")])
    joints = random_joints(physics)

    def start(key: Key[Array, ""]) -> State:
        return feel(physics, physics.start(joints(key)))  # a straight leg reaches the floor

    def observe(data: mjx.Data) -> Float32[Array, "15"]:
        return jnp.concatenate([data.qpos[1:], data.qvel, jnp.log1p(data.sensordata[touch])])

    def standing(data: mjx.Data) -> Float32[Array, ""]:
        return tolerance(data.xipos[torso, 2] - data.xipos[foot, 2], STAND_HEIGHT, HIGHEST)

    def stand(data: mjx.Data) -> Float32[Array, ""]:
        gentle = tolerance(data.ctrl, margin=1, value_at_margin=0, sigmoid="quadratic").mean()
        return standing(data) * (gentle + 4) / 5

    def hop(data: mjx.Data) -> Float32[Array, ""]:
        moving = data.sensordata[speed]
        fast = tolerance(moving, HOP_SPEED, INFINITE, margin=HOP_SPEED / 2, value_at_margin=0.5, sigmoid="linear")
        return standing(data) * fast

    return Task(start, observe, hop if task == "hop" else stand)


DOMAIN = Domain(("stand", "hop"), make)
