"""Device environments side by side: stepping that resets itself, inside jit, and the pool that holds their state."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from envs.types import Arrival, DeviceEnv, EnvState, Scene


def arrive(
    env: DeviceEnv, state: EnvState, action: Float[Array, " actions"], key: Key[Array, ""]
) -> tuple[EnvState, Arrival]:
    """One step of one environment. Where it ends the episode, the state is that of the next one's start."""
    step_key, reset_key = jax.random.split(key)
    after, step = env.step(state, action, step_key)
    fresh, first = env.reset(reset_key)
    over = jnp.logical_or(jnp.asarray(step.terminated), jnp.asarray(step.truncated))

    def instead(new: Array, old: Array) -> Array:
        return jnp.where(over, new, old)

    return jax.tree.map(instead, fresh, after), Arrival(step, jax.tree.map(instead, first, step.scene))


class DevicePool:
    """One environment per lane, as `envs.pool.HostPool`, but stepped by whoever holds `state`, inside jit.

    Args:
        keys: one per lane; they decide how its first episode starts.
    """

    def __init__(self, env: DeviceEnv, keys: Key[Array, " lanes"]) -> None:
        self.env, self.spec, self.lanes = env, env.spec, len(keys)
        self._reset, self._keys = jax.jit(jax.vmap(env.reset)), keys
        self.state: EnvState = None

    def reset(self) -> Scene:
        """Start every lane's first episode, and return the scenes there."""
        self.state, scene = self._reset(self._keys)
        return scene

    def snapshot(self) -> EnvState:
        """Where every lane is."""
        return self.state

    def restore(self, snapshot: EnvState) -> None:
        """Take every lane back to where a snapshot found it; nothing is drawn."""
        self.state = snapshot

    def close(self) -> None:
        """There is nothing to end."""
