"""Pendulum: swing a pole up and hold it there with less torque than would lift it; one actuator."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Key

from envs.mjx.physics import Domain, Physics, State, Task
from envs.mjx.tasks.rewards import INFINITE, tolerance

if TYPE_CHECKING:
    from mujoco import mjx

UPRIGHT_COSINE = math.cos(math.radians(8))


def make(physics: Physics, task: str) -> Task:
    """The domain's only task."""
    del task
    pole = physics.host.body("pole").id

    def start(key: Key[Array, ""]) -> State:
        return physics.start(jax.random.uniform(key, (1,), minval=-math.pi, maxval=math.pi))

    def observe(data: mjx.Data) -> Float32[Array, "3"]:
        return jnp.stack([data.xmat[pole, 2, 2], data.xmat[pole, 0, 2], data.qvel[0]])

    def reward(data: mjx.Data) -> Float32[Array, ""]:
        # The suite's upper bound is 1. In float32 the cosine of an upright pole may be 1 + 1e-7.
        return tolerance(data.xmat[pole, 2, 2], UPRIGHT_COSINE, INFINITE)

    return Task(start, observe, reward)


DOMAIN = Domain(("swingup",), make)
