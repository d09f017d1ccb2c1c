"""The environment contract: what an environment emits, and what it promises about itself.

An environment emits *scenes*: small pytrees that say what the world looks like now (a state vector, geom poses, or,
where OpenGL drew it, the frame itself). `EnvSpec.observe` turns one scene into one network input and is a pure JAX
function. Replay stores scenes; loops and agents never know what is in them.

Importing this module does not import jax: the worker processes of `envs.pools.host` read it, and must start fast.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Float32, Int, Key, PyTree, UInt8

Scene: TypeAlias = "PyTree[Array | np.ndarray]"
Obs: TypeAlias = "Array"


@dataclass(frozen=True)
class ArraySpec:
    """Shape and dtype of one array, for all that reads only these two (`jax.eval_shape`). Needs no jax."""

    shape: tuple[int, ...]
    dtype: np.dtype


class EnvSpec(NamedTuple):
    """What a loop and an agent must know of an environment. Static: no arrays inside.

    `scene` holds one leaf with `shape` and `dtype` per leaf of one scene: an `ArraySpec` or a `jax.ShapeDtypeStruct`.
    `observe(scene)` gives uint8 [height, width, 3] for pixels and float32 [features] for states. `episode_steps` counts
    agent steps until the time limit truncates an episode; `action_repeat` counts control steps (frames) per agent step.
    `draw(picture, size)` makes a frame, uint8 [size, size, 3], of what `HostEnv.picture` gives; None where that is the
    frame. `vary(**shares)` makes `vary(key, scene)`: the scene seen differently, for `observe` to draw; None where that
    cannot be.
    """

    name: str
    scene: PyTree
    observe: Callable[[Scene], Obs]
    action_dim: int
    action_repeat: int
    episode_steps: int
    pixels: bool
    draw: Callable[[Scene, int], Array] | None = None
    vary: Callable[..., Callable[[Key, Scene], Scene]] | None = None


class TimeStep(NamedTuple):
    """Where an action led. The last scene of an episode is a scene like any other: it is kept and stored.

    `terminated`: the world ended, the value beyond is zero. `truncated`: only the clock ran out, the value beyond
    counts.
    """

    scene: Scene
    reward: Float[Array | np.ndarray | np.generic, " *lanes"]
    terminated: Bool[Array | np.ndarray | np.generic, " *lanes"]
    truncated: Bool[Array | np.ndarray | np.generic, " *lanes"]


class AutoResetStep(NamedTuple):
    """One step of many environments that reset themselves: every leaf has a leading lane axis.

    `reset` is the first scene of the lane's next episode where `step` ended one; elsewhere it repeats `step.scene`
    and means nothing.
    """

    step: TimeStep
    reset: Scene


class HostEnv(Protocol):
    """One environment that lives on the host. Same seed and same actions give the same scenes, bit for bit.

    `replay(seed, actions)` is `reset(seed)` followed by `step` with each of the actions [steps, actions], and returns
    the last scene only: what it does not return it need not draw. `picture(size)` is what a video's frame of
    that size is made from, by `EnvSpec.draw`.
    """

    spec: EnvSpec

    def reset(self, seed: int) -> Scene: ...

    def step(self, action: Float32[np.ndarray, " actions"]) -> TimeStep: ...

    def replay(self, seed: int, actions: Float32[np.ndarray, "steps actions"]) -> Scene: ...

    def picture(self, size: int) -> Scene: ...

    def close(self) -> None: ...


MakeHostEnv = Callable[[], HostEnv]

EnvState: TypeAlias = "PyTree[Array]"


class DeviceEnv(NamedTuple):
    """One environment as pure JAX functions, for loops that `vmap` and `scan` over it. It does not reset itself.

    reset(key): the state and the first scene of a new episode.
    step(state, action, key): the next state, and where the action, in [-1, 1] (clipped to it), led. The scene of a last
        step is the episode's last one; stepping on from there means nothing.
    picture(state): the few floats that a picture of the state needs. For pixels this is the scene itself.
    draw(picture, size): a frame, uint8 [size, size, 3], at any size.
    at(frame): the environment as it is after so many frames, which may be traced, but not batched; None where it never
        changes. Its states and scenes are alike at all times, so that episodes go on through a change.
    """

    spec: EnvSpec
    reset: Callable[[Key[Array, ""]], tuple[EnvState, Scene]]
    step: Callable[[EnvState, Float[Array, " actions"], Key[Array, ""]], tuple[EnvState, TimeStep]]
    picture: Callable[[EnvState], Float32[Array, " floats"]]
    draw: Callable[[Float32[Array, " floats"], int], UInt8[Array, "size size 3"]]
    at: Callable[[Int[Array, ""] | int], DeviceEnv] | None = None

    def after(self, frame: Int[Array, ""] | int) -> DeviceEnv:
        """The environment after so many frames, whether it changes or not."""
        return self.at(frame) if self.at else self


def observe(scene: Scene) -> Obs:
    """The scene is what the network sees."""
    return scene


def check_view(pixels: bool, image_size: int, action_repeat: int) -> None:
    """Raises a ValueError, naming the setting, for one that no environment could have."""
    if not isinstance(pixels, bool):
        raise ValueError(f"env.pixels must be True or False, not {pixels!r}.")
    for key, value in {"image_size": image_size, "action_repeat": action_repeat}.items():
        if not is_int(value) or value < 1:
            raise ValueError(f"env.{key} must be a positive integer, such as 84 or 2, not {value!r}.")


def is_int(value: object) -> bool:
    """Whether this is a whole number, and no truth value."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
