"""Tasks that take turns behind one contract: `env.sequence`.

States are padded with zeros at the end to the widest task's, and actions are the widest task's, of which each task
takes the first ones. From pixels a scene is the image itself, for every task draws its scenes in its own way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Key

from envs.pools.device import DevicePool
from envs.pools.host import HostPool, Snapshot
from envs.types import ArraySpec, AutoResetStep, DeviceEnv, EnvSpec, EnvState, Scene, TimeStep, observe


def alike(specs: Sequence[EnvSpec]) -> list[EnvSpec]:
    """The specs of tasks of one family, each as that of the task in shapes that all of them have.

    Raises:
        ValueError: images of different sizes, or states with other than one axis.
    """
    pixels = specs[0].pixels
    shapes = [jax.eval_shape(spec.observe, spec.scene).shape if pixels else spec.scene.shape for spec in specs]
    if len(set(shapes)) > 1 if pixels else any(len(shape) != 1 for shape in shapes):
        raise ValueError(f"env.sequence needs tasks whose observations are alike, and theirs have the shapes {shapes}.")
    scene = ArraySpec(max(shapes), np.dtype(np.uint8 if pixels else np.float32))
    actions = max(spec.action_dim for spec in specs)
    return [spec._replace(scene=scene, observe=observe, action_dim=actions, vary=None) for spec in specs]


def fit_device(env: DeviceEnv, spec: EnvSpec) -> DeviceEnv:
    """A task in the shapes of `spec`."""

    def fit(scene: Scene) -> Array:
        return env.spec.observe(scene) if spec.pixels else jnp.pad(scene, (0, spec.scene.shape[0] - len(scene)))

    def reset(key: Key[Array, ""]) -> tuple[EnvState, Scene]:
        state, scene = env.reset(key)
        return state, fit(scene)

    def step(state: EnvState, action: Array, key: Key[Array, ""]) -> tuple[EnvState, TimeStep]:
        state, step = env.step(state, action[: env.spec.action_dim], key)
        return state, step._replace(scene=fit(step.scene))

    return DeviceEnv(spec, reset, step, env.picture, env.draw)


class FittedPool:
    """A pool of one task in the shapes of `spec`."""

    def __init__(self, pool: HostPool, spec: EnvSpec) -> None:
        self.pool, self.spec, self.lanes = pool, spec, pool.lanes
        own = pool.spec.observe
        self._see = None if own is observe else jax.jit(lambda scenes: jax.lax.map(own, scenes))

    @property
    def failure(self) -> RuntimeError | None:
        """As `HostPool.failure`."""
        return self.pool.failure

    @property
    def failed(self) -> np.ndarray:
        """As `HostPool.failed`."""
        return self.pool.failed

    def reset(self, episodes: Sequence[int] | np.ndarray | None = None) -> Scene:
        """As `HostPool.reset`."""
        return self._fit(self.pool.reset(episodes))

    def step(self, actions: Float32[np.ndarray, "lanes actions"]) -> AutoResetStep:
        """As `HostPool.step`."""
        step, first = self.pool.step(actions[:, : self.pool.spec.action_dim])
        scene = self._fit(step.scene)
        return AutoResetStep(step._replace(scene=scene), scene if first is step.scene else self._fit(first))

    def pictures(self, size: int) -> Scene:
        """As `HostPool.pictures`."""
        return self.pool.pictures(size)

    def _fit(self, scenes: Scene) -> Any:
        if self.spec.pixels:
            return scenes if self._see is None else self._see(scenes)
        return np.pad(scenes, ((0, 0), (0, self.spec.scene.shape[0] - scenes.shape[1])))

    def close(self) -> None:
        """End the environments."""
        self.pool.close()


Pool = TypeVar("Pool", DevicePool, FittedPool)


class _Turns(Generic[Pool]):
    """Pools of several tasks, of which one is stepped at a time: that of the phase."""

    def __init__(self, pools: Sequence[Pool], order: Sequence[int]) -> None:
        self._pools, self._order, self.phase = list(pools), tuple(order), 0
        self.spec, self.lanes = pools[0].spec, pools[0].lanes

    @property
    def task(self) -> int:
        """The place of the task whose turn it is."""
        return self._order[self.phase % len(self._order)]

    @property
    def failure(self) -> RuntimeError | None:
        """Why the task whose turn it is can make no further step."""
        return self._pool.failure

    @property
    def _pool(self) -> Pool:
        return self._pools[self.task]

    def close(self) -> None:
        """End the environments of all tasks."""
        for pool in self._pools:
            pool.close()


class DeviceTurns(_Turns[DevicePool]):
    """Device environments whose tasks take turns; `state` is that of the task whose turn it is.

    One environment that changes with the time is a single pool with the order (0,).

    Args:
        begins: the frame at which a phase begins, for environments that change with the time.
    """

    def __init__(
        self, pools: Sequence[DevicePool], order: Sequence[int], begins: Callable[[int], int] = lambda phase: 0
    ) -> None:
        super().__init__(pools, order)
        self._begins = begins

    @property
    def state(self) -> EnvState:
        """Where every lane is."""
        return self._pool.state

    @state.setter
    def state(self, state: EnvState) -> None:
        self._pool.state = state

    def reset(self) -> Scene:
        """Start every task's first episodes, and return the scenes of the first task."""
        self.phase = 0
        return [pool.reset() for pool in self._pools][self.task]

    def enter(self, phase: int) -> Scene:
        """Cut the episodes that are under way, and start others in the task of this phase: the scenes there."""
        self.phase = phase
        return self._pool.reset(phase, self._begins(phase))

    def snapshot(self) -> dict[str, Any]:
        """Where every lane of every task is, and the phase."""
        return {"phase": np.asarray(self.phase, np.int32), "tasks": [pool.snapshot() for pool in self._pools]}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go on from a snapshot."""
        self.phase = int(snapshot["phase"])
        for pool, state in zip(self._pools, snapshot["tasks"], strict=True):
            pool.restore(state)


class HostTurns(_Turns[FittedPool]):
    """Host environments whose tasks take turns. All stay open; those whose turn it is not do nothing."""

    def reset(self) -> Scene:
        """Start the first task's first episodes, and return the scenes there."""
        self.phase = 0
        return self._pool.reset()

    def enter(self, phase: int) -> Scene:
        """Cut the episodes that are under way, and start the next ones in the task of this phase: the scenes there.

        Episodes are numbered through all phases, so that none begins like an earlier one.
        """
        following = self._pool.pool.snapshot()["episode"] + 1
        self.phase = phase
        return self._pool.reset(following)

    def step(self, actions: Float32[np.ndarray, "lanes actions"]) -> AutoResetStep:
        """Step the task whose turn it is; as `HostPool.step`."""
        return self._pool.step(actions)

    def snapshot(self) -> dict[str, Any]:
        """Where every lane of the task is whose turn it is, as `HostPool.snapshot`, and the phase.

        Actions are padded with zeros to the longest episode and the widest action, so that all snapshots are alike.
        """
        snapshot, specs = self._pool.pool.snapshot(), [pool.pool.spec for pool in self._pools]
        longest, widest = max(spec.episode_steps for spec in specs), max(spec.action_dim for spec in specs)
        _, steps, actions = snapshot["actions"].shape
        padded = np.pad(snapshot["actions"], ((0, 0), (0, longest - steps), (0, widest - actions)))
        return {**snapshot, "actions": padded, "phase": np.asarray(self.phase, np.int32)}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go on from a snapshot."""
        self.phase = int(snapshot["phase"])
        spec = self._pool.pool.spec
        own: Snapshot = {key: snapshot[key] for key in ("episode", "steps")}
        own["actions"] = snapshot["actions"][:, : spec.episode_steps, : spec.action_dim]
        self._pool.pool.restore(own)
