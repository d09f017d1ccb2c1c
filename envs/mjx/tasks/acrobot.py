"""Acrobot: bring the tip of a double pendulum to a target above it with a motor at the elbow alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Key

from envs.mjx.physics import Domain, Physics, State, Task
from envs.mjx.tasks.rewards import tolerance

if TYPE_CHECKING:
    from mujoco import mjx


def make(physics: Physics, task: str) -> Task:
    """One of the domain's tasks; `sparse` pays only at the target."""
    host = physics.host
    arms = np.array([host.body("upper_arm").id, host.body("lower_arm").id])
    target, tip = host.site("target").id, host.site("tip").id
    radius = float(host.site_size[target, 0])
    margin = 0 if task.endswith("sparse") else 1

    def start(key: Key[Array, ""]) -> State:
        return physics.start(jax.random.uniform(key, (2,), minval=-math.pi, maxval=math.pi))

    def observe(data: mjx.Data) -> Float32[Array, "6"]:
        return jnp.concatenate([data.xmat[arms, 0, 2], data.xmat[arms, 2, 2], data.qvel])

    def reward(data: mjx.Data) -> Float32[Array, ""]:
        distance = jnp.linalg.norm(data.site_xpos[target] - data.site_xpos[tip])
        return tolerance(distance, 0, radius, margin=margin)

    return Task(start, observe, reward)


DOMAIN = Domain(("swingup", "swingup_sparse"), make)
