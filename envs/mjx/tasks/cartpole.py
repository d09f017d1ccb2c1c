"""Cart-pole: keep a pole up on a cart, from near there or from hanging; one actuator."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Key

from envs.mjx.physics import Domain, Physics, State, Task
from envs.mjx.tasks.rewards import INFINITE, tolerance

if TYPE_CHECKING:
    from mujoco import mjx

CART_RANGE = 0.25  # m from the middle
UPRIGHT_COSINE = 0.995


def make(physics: Physics, task: str) -> Task:
    """One of the domain's tasks."""
    pole = physics.host.body("pole_1").id

    def start(key: Key[Array, ""]) -> State:
        place, swing, speed = jax.random.split(key, 3)
        if task.startswith("swingup"):
            qpos = jnp.array([0, math.pi]) + 0.01 * jax.random.normal(place, (2,))
        else:
            qpos = jnp.stack(
                [
                    jax.random.uniform(place, minval=-0.1, maxval=0.1),
                    jax.random.uniform(swing, minval=-0.034, maxval=0.034),
                ]
            )
        return replace(physics.start(qpos), qvel=0.01 * jax.random.normal(speed, (2,)))

    def observe(data: mjx.Data) -> Float32[Array, "5"]:
        return jnp.stack([data.qpos[0], data.xmat[pole, 2, 2], data.xmat[pole, 0, 2], *data.qvel])

    def smooth(data: mjx.Data) -> Float32[Array, ""]:
        upright = (data.xmat[pole, 2, 2] + 1) / 2
        centred = (1 + tolerance(data.qpos[0], margin=2)) / 2
        gentle = (4 + tolerance(data.ctrl[0], margin=1, value_at_margin=0, sigmoid="quadratic")) / 5
        slow = (1 + tolerance(data.qvel[1], margin=5)) / 2
        return upright * gentle * slow * centred

    def sparse(data: mjx.Data) -> Float32[Array, ""]:
        # The suite's upper bound is 1. In float32 the cosine of an upright pole may be 1 + 1e-7.
        upright = tolerance(data.xmat[pole, 2, 2], UPRIGHT_COSINE, INFINITE)
        return tolerance(data.qpos[0], -CART_RANGE, CART_RANGE) * upright

    return Task(start, observe, sparse if task.endswith("sparse") else smooth)


DOMAIN = Domain(("balance", "balance_sparse", "swingup", "swingup_sparse"), make)
