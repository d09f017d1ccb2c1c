"""Device environments side by side: stepping that resets itself, inside jit, and the pool that holds their state."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from envs.types import AutoResetStep, DeviceEnv, EnvState, Scene
from ne_jax import cond_any

Time: TypeAlias = tuple[Int[Array, ""], Key[Array, ""] | None]
"""A frame, and whose it is."""


def auto_reset_step(
    env: DeviceEnv,
    state: EnvState,
    action: Float[Array, " actions"],
    key: Key[Array, ""],
    frame: Int[Array, ""] | int = 0,
    seed: Key[Array, ""] | None = None,
) -> tuple[EnvState, AutoResetStep]:
    """One step of one environment. Where it ends the episode, the state is that of the next one's start.

    Many side by side start new episodes only in steps where some lane needs one: a start can cost more than a step.

    Args:
        frame: the time, the same for all lanes, for an environment that changes.
        seed: the key of the training seed, for an environment that is another one for each.
    """
    step_key, reset_key = jax.random.split(key)
    after, step = env.after(frame, seed).step(state, action, step_key)
    # What has broken does not mend itself, so the episode ends there. The step itself is handed on as it is.
    lost = ~(is_finite(step.scene) & jnp.isfinite(jnp.asarray(step.reward)))
    lost &= jnp.logical_not(jnp.asarray(step.terminated))
    step = step._replace(truncated=jnp.logical_or(jnp.asarray(step.truncated), lost))
    over = jnp.logical_or(jnp.asarray(step.terminated), jnp.asarray(step.truncated))

    # Neither branch may close over a traced frame or seed.
    def start(key: Key[Array, ""], time: Time, *ended: EnvState | Scene) -> tuple[EnvState, Scene]:
        return env.after(*time).reset(key)

    def go_on(key: Key[Array, ""], time: Time, state: EnvState, scene: Scene) -> tuple[EnvState, Scene]:
        return state, scene

    state, first = cond_any(over, start, go_on, reset_key, (jnp.asarray(frame), seed), after, step.scene)
    return state, AutoResetStep(step, first)


def is_finite(scene: Scene) -> Bool[Array, ""]:
    """Whether a scene holds neither NaN nor infinity. Whole numbers, such as pixels, always do."""
    floats = [leaf for leaf in map(jnp.asarray, jax.tree.leaves(scene)) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.stack([jnp.array(True), *(jnp.isfinite(leaf).all() for leaf in floats)]).all()


def _start(
    env: DeviceEnv, key: Key[Array, ""], seed: Key[Array, ""] | None, frame: Int[Array, ""]
) -> tuple[EnvState, Scene]:
    return env.after(frame, seed).reset(key)


class DevicePool:
    """One environment per lane, as `envs.pools.host.HostPool`, but stepped by whoever holds `state`, inside jit.

    Args:
        keys: one per lane; they decide how its first episode starts.
        seeds: the key of each lane's training seed, for an environment that is another one for each.
        place: puts states where whoever steps them wants them, such as on several devices; None leaves them.
    """

    def __init__(
        self,
        env: DeviceEnv,
        keys: Key[Array, " lanes"],
        seeds: Key[Array, " lanes"] | None = None,
        place: Callable[[EnvState], EnvState] | None = None,
    ) -> None:
        self.env, self.spec, self.lanes = env, env.spec, len(keys)
        self._keys, self._seeds, self._place = keys, seeds, place or (lambda state: state)
        self._reset = jax.jit(jax.vmap(partial(_start, env), (0, 0, None)))
        self.state: EnvState = None
        self.failure: RuntimeError | None = None
        """As `HostPool.failure`: none, for what breaks on the device is a matter of numbers."""

    def reset(self, visit: int = 0, frame: int = 0) -> Scene:
        """Start every lane's first episode, another one for each `visit`, at a frame, and return the scenes there."""
        keys = jax.vmap(jax.random.fold_in, (0, None))(self._keys, visit) if visit else self._keys
        state, scene = self._reset(keys, self._seeds, np.int32(frame))
        self.state = self._place(state)
        return scene

    def snapshot(self) -> list[Array]:
        """Where every lane is; without arrays of no size, which a checkpoint cannot hold."""
        return [leaf for leaf in jax.tree.leaves(self.state) if leaf.size]

    def restore(self, snapshot: list[Array]) -> None:
        """Take every lane back to where a snapshot found it; nothing is drawn."""
        shapes, structure = jax.tree.flatten(jax.eval_shape(self._reset, self._keys, self._seeds, np.int32(0))[0])
        kept = iter(snapshot)
        state = structure.unflatten(next(kept) if each.size else jnp.zeros(each.shape, each.dtype) for each in shapes)
        self.state = self._place(state)

    def close(self) -> None:
        """There is nothing to end."""
