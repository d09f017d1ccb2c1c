"""Ball in cup: swing a ball on a string into the cup that it hangs from; two actuators move the cup."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Key

from envs.mjx.physics import Domain, Physics, State, Task, untouching

if TYPE_CHECKING:
    from mujoco import mjx

XZ = np.array([0, 2])


def make(physics: Physics, task: str) -> Task:
    """The domain's only task."""
    del task
    host = physics.host
    target, ball = host.site("target").id, host.body("ball").id
    room = jnp.asarray(host.site_size[target, XZ] - host.geom("ball").size[0], jnp.float32)
    ball_x, ball_z = (int(host.joint(name).qposadr[0]) for name in ("ball_x", "ball_z"))

    def draw(key: Key[Array, ""]) -> Float32[Array, "4"]:
        x, z = jax.random.uniform(key, (2,))
        return jnp.asarray(host.qpos0, jnp.float32).at[ball_x].set(-0.2 + 0.4 * x).at[ball_z].set(0.2 + 0.3 * z)

    def start(key: Key[Array, ""]) -> State:
        return physics.start(untouching(physics, draw, key))

    def observe(data: mjx.Data) -> Float32[Array, "8"]:
        return jnp.concatenate([data.qpos, data.qvel])

    def reward(data: mjx.Data) -> Float32[Array, ""]:
        away = jnp.abs(data.site_xpos[target, XZ] - data.xpos[ball, XZ])
        return jnp.all(away < room).astype(jnp.float32)

    return Task(start, observe, reward)


DOMAIN = Domain(("catch",), make)
