"""Cheetah: run; six actuators."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import jax.numpy as jnp
from jaxtyping import Array, Float32, Key

from envs.mjx.physics import Domain, Physics, State, Task, advance, random_joints
from envs.mjx.tasks.rewards import INFINITE, tolerance

if TYPE_CHECKING:
    from mujoco import mjx

RUN_SPEED = 10.0  # m/s from which on the reward is 1
SETTLING = 200  # physics steps without control before an episode starts


def make(physics: Physics, task: str) -> Task:
    """The domain's only task."""
    del task
    joints = random_joints(physics, unlimited=False)
    speed = int(physics.host.sensor("torso_subtreelinvel").adr[0])
    onset, drop = _first_step(physics)

    def start(key: Key[Array, ""]) -> State:
        still = physics.start(joints(key) + drop)
        falling = replace(still, qvel=jnp.asarray(drop / physics.host.opt.timestep), warmstart=jnp.asarray(onset))
        return advance(physics, falling, jnp.zeros(physics.host.nu), SETTLING - 1)

    def observe(data: mjx.Data) -> Float32[Array, "17"]:
        return jnp.concatenate([data.qpos[1:], data.qvel])

    def reward(data: mjx.Data) -> Float32[Array, ""]:
        moving = data.sensordata[speed]
        return tolerance(moving, RUN_SPEED, INFINITE, margin=RUN_SPEED, value_at_margin=0, sigmoid="linear")

    return Task(start, observe, reward)


def _first_step(physics: Physics) -> tuple[Float32[Array, " nv"], Float32[Array, " nq"]]:
    """Accelerations of the first settling step, and how far it moves the joints.

    The suite draws its joint positions after the positions of the model were looked at, and does not look again before
    it steps: the first step adds to the pose drawn what it would add to the model's own.
    """
    import mujoco

    data = mujoco.MjData(physics.host)
    mujoco.mj_step(physics.host, data)
    return jnp.float32(data.qacc), jnp.float32(data.qvel * physics.host.opt.timestep)


DOMAIN = Domain(("run",), make)
