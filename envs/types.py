"""The environment contract: what an environment emits, what it promises about itself, and what a kind of them is.

An environment emits *scenes*: small pytrees that say how the world is now (a state vector, poses of geoms, or, where
the host drew it, the image itself). `EnvSpec.observe` turns one scene into one network input and is a pure JAX
function. Replay stores scenes; loops and agents never know what is in them.

Importing this module does not import jax: the worker processes of `envs.pools.host` read it, and must start fast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np

from settings import setting

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
    agent steps until the time limit truncates an episode; `action_repeat` counts environment frames (control steps) per
    agent step. `draw(picture, size)` makes an image, uint8 [size, size, 3], of what `HostEnv.picture` gives; None where
    that is the image. `vary(**shares)` makes `vary(key, scene)`: the scene seen differently, for `observe` to draw;
    None where that cannot be.
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
    the last scene only: what it does not return it need not draw. `picture(size)` is what an image of that size, for a
    video, is made from by `EnvSpec.draw`.
    """

    spec: EnvSpec

    def reset(self, seed: int) -> Scene: ...

    def step(self, action: Float32[np.ndarray, " actions"]) -> TimeStep: ...

    def replay(self, seed: int, actions: Float32[np.ndarray, "steps actions"]) -> Scene: ...

    def picture(self, size: int) -> Scene: ...

    def close(self) -> None: ...


MakeHostEnv = Callable[[], HostEnv]


class Together(Protocol):
    """Many environments of one task, stepped by one call, bit for bit as each would step itself.

    `step(envs, actions)` gives where each of them got, or how it failed. Each starts and replays its episodes itself,
    and is drawn after `save(envs)`, which takes it to where it is.
    """

    def step(
        self, envs: Sequence[Any], actions: Float32[np.ndarray, "lanes actions"]
    ) -> list[TimeStep | Exception]: ...

    def save(self, envs: Sequence[Any]) -> None: ...


MakeTogether = Callable[[Sequence[Any]], Together]

EnvState: TypeAlias = "PyTree[Array]"


class DeviceEnv(NamedTuple):
    """One environment as pure JAX functions, for loops that `vmap` and `scan` over it. It does not reset itself.

    reset(key): the state and the first scene of a new episode.
    step(state, action, key): the next state, and where the action, in [-1, 1] (clipped to it), led. The scene of a last
        step is the episode's last one; stepping on from there means nothing.
    picture(state): the few floats that a picture of the state needs. For pixels this is the scene itself.
    draw(picture, size): an image, uint8 [size, size, 3], at any size.
    at(frame): the environment as it is after so many environment frames, which may be traced, but not batched; None
        where it never changes. Its states and scenes are alike at all times, so that episodes go on through a change.
    of(seed): the environment as the training seed of this key has it; None where all seeds have the same.
    """

    spec: EnvSpec
    reset: Callable[[Key[Array, ""]], tuple[EnvState, Scene]]
    step: Callable[[EnvState, Float[Array, " actions"], Key[Array, ""]], tuple[EnvState, TimeStep]]
    picture: Callable[[EnvState], Float32[Array, " floats"]]
    draw: Callable[[Float32[Array, " floats"], int], UInt8[Array, "size size 3"]]
    at: Callable[[Int[Array, ""] | int], DeviceEnv] | None = None
    of: Callable[[Key[Array, ""]], DeviceEnv] | None = None

    def after(self, frame: Int[Array, ""] | int, seed: Key[Array, ""] | None = None) -> DeviceEnv:
        """The environment of a seed after so many environment frames, whether it changes or not."""
        own = self.of(seed) if self.of and seed is not None else self
        return own.at(frame) if own.at else own


def observe(scene: Scene) -> Obs:
    """The scene is what the network sees."""
    return scene


def image_spec(size: int) -> ArraySpec:
    """The `EnvSpec.scene` of an environment whose scenes are images: uint8 [size, size, 3]."""
    return ArraySpec((size, size, 3), np.dtype(np.uint8))


def is_int(value: object) -> bool:
    """Whether this is a whole number, and no truth value."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


@dataclass(frozen=True)
class NoSettings:
    """The settings of a kind that has none."""


@dataclass(frozen=True)
class ViewSettings:
    """What most kinds of environments let one choose of how an agent sees and acts."""

    pixels: bool = setting(False, "observations are images, uint8 [height, width, 3]; else states, float32 [features]")
    image_size: int = setting(84, "height and width of an image", unit="pixels", least=1)
    action_repeat: int = setting(1, "environment frames (control steps) for which an action is held", least=1)


Settings = TypeVar("Settings", bound=object)
"""The dataclass of a kind's settings; see the package `settings`."""


def anything(name: str, settings: object) -> None:
    """The check of a kind that has nothing to add to the bounds of its settings."""


def no_names() -> Sequence[str]:
    """The tasks of a kind that cannot list them."""
    return ()


@dataclass(frozen=True)
class Kind(Generic[Settings]):
    """A kind of environment, as a value: a `HostKind` or a `DeviceKind`. `envs.registry` finds it by its name.

    name: what error messages call it.
    make(name, settings): one environment of the task `name`.
    settings: a frozen dataclass, made with `settings.setting`. Keys of `config.env` of the same names set its fields.
    check(name, settings): raises, early and at little cost, what `make` would raise. The bounds of the settings were
        checked before.
    tasks(): the names of all tasks, for "did you mean"; empty where they cannot be listed.
    packages: the names, as pip knows them, of packages whose versions can change results.
    backends: `config.env.backend`, and the name of the kind that has these tasks with that physics.
    """

    name: str
    make: Callable[[str, Settings], HostEnv | DeviceEnv]
    settings: type[Settings]
    check: Callable[[str, Settings], None] = anything
    tasks: Callable[[], Sequence[str]] = no_names
    packages: tuple[str, ...] = ()
    backends: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class HostKind(Kind[Settings]):
    """A kind of environments on the host. `make` must be picklable for workers that are processes.

    together(name): makes what steps many environments of a task by one call (`env.workers=batch`) out of them; raises
        ValueError for a task that it does not have. None where the kind has no such thing.
    """

    make: Callable[[str, Settings], HostEnv]
    together: Callable[[str], MakeTogether] | None = None


@dataclass(frozen=True)
class DeviceKind(Kind[Settings]):
    """A kind of environments of pure JAX functions."""

    make: Callable[[str, Settings], DeviceEnv]
