"""gymnax's tasks with continuous actions (Lange 2022, github.com/RobertTLange/gymnax) behind the device contract.

The dynamics are gymnax's own `step_env` and `reset_env`, which never reset by themselves and leave the time limit to
`is_truncated`. gymnax has no pictures: those of `envs.gymnax.pictures` serve. A scene of pixels is the few floats
that a picture needs, and is drawn when it is observed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Key, UInt8

from envs.gymnax.pictures import PICTURES
from envs.physics_schedule import Change, PhysicsSchedule, check_names, make_physics
from envs.types import ArraySpec, DeviceEnv, DeviceKind, EnvSpec, EnvState, Scene, TimeStep, ViewSettings, observe
from settings import setting


@dataclass(frozen=True)
class GymnaxSettings(ViewSettings):
    """How a task is seen, and how it changes during a run.

    Pictures know nothing of `physics`: from pixels, a longer pendulum looks like any other.
    """

    physics: Mapping[str, tuple[float, ...]] | None = setting(
        None, "parameters of the task (gymnax's EnvParams), each with the values that it takes in turn"
    )
    physics_every: int = setting(0, "time until the next value; after the last one comes the first", unit="frames")
    physics_change: Change = setting("switch", "switch: at once; drift: evenly from one value to the next")

    def schedule(self) -> PhysicsSchedule:
        """The values of the parameters over time."""
        return make_physics(self.physics, self.physics_every, self.physics_change)


def make(name: str, settings: GymnaxSettings) -> DeviceEnv:
    """Makes one task with continuous actions, such as `Pendulum-v1` or `Reacher-misc`.

    With `action_repeat` 1 the key of a step is passed on as it is, so that a trajectory is gymnax's own for the same
    keys. Otherwise each control step gets a key of its own, rewards are summed, and the repeat stops where the episode
    ends. Scenes are gymnax's observation, float32 [features], or for pixels the floats of a picture, which is drawn
    when it is observed.
    """
    pixels, action_repeat, physics = settings.pixels, settings.action_repeat, settings.schedule()
    env, params = _load(name)
    if physics.values:
        params = params.replace(**{field: values[0] for field, values in physics.values.items()})
    draw = PICTURES[name].draw

    def see(picture: Float32[Array, " floats"]) -> UInt8[Array, "size size 3"]:
        return draw(picture, settings.image_size)

    reset, step, picture = _functions(name, params, pixels, action_repeat)
    features = math.prod(jax.eval_shape(reset, jax.random.key(0))[1].shape)
    spec = EnvSpec(
        name=name,
        scene=ArraySpec((features,), np.dtype(np.float32)),
        observe=see if pixels else observe,
        action_dim=math.prod(env.action_space(params).shape),
        action_repeat=action_repeat,
        episode_steps=math.ceil(params.max_steps_in_episode / action_repeat),
        pixels=pixels,
    )
    made = DeviceEnv(spec, reset, step, picture, draw)
    if physics.length < 2:
        return made

    def at(frame: Int[Array, ""] | int) -> DeviceEnv:
        now = params.replace(**physics.at(frame))
        return DeviceEnv(spec, *_functions(name, now, pixels, action_repeat), draw)

    return made._replace(at=at)


def check(name: str, settings: GymnaxSettings) -> None:
    """Raises what `make` would raise; gymnax is imported to refuse a task and for physics.

    Raises:
      ValueError: a task of gymnax's that this kind has not, or physics that its equations cannot bear.
    """
    if name not in PICTURES:
        _refuse(name)
        return
    physics = settings.schedule()
    if physics.values:
        params = _load(name)[1]
        check_names(physics, name, [field for field, value in vars(params).items() if isinstance(value, float)])
        for values in physics.to_try():
            _check_finite(name, params.replace(**jax.tree.map(jnp.float32, values)), values)


def _check_finite(name: str, params: Any, values: dict[str, float]) -> None:
    """ValueError where a task with these parameters does not come to a finite scene, such as without a mass."""
    env, key = _load(name)[0], jax.random.key(0)
    reset, step, _ = _functions(name, params, False, 1)
    state, _ = reset(key)
    seen = [step(state, jnp.full(math.prod(env.action_space(params).shape), each), key)[1] for each in (0.0, 0.5)]
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(seen)):
        found = ", ".join(f"env.physics.{field}={value}" for field, value in values.items())
        raise ValueError(f"{found} makes {name} come to values that are not finite; change it.")


def _refuse(name: str) -> None:
    """ValueError for a task that gymnax has, and that is none of `PICTURES`."""
    import gymnax

    if name not in gymnax.registered_envs:
        return  # the registry says which names are close
    env, params = _load(name)
    discrete = not isinstance(env.action_space(params), gymnax.environments.spaces.Box)
    why = "discrete actions, and agents here act in [-1, 1]" if discrete else "no picture in envs/gymnax/pictures.py"
    raise ValueError(f"env.name={name!r} has {why}; choose from {', '.join(PICTURES)}")


def task_names() -> list[str]:
    """The names of gymnax's tasks with continuous actions."""
    return list(PICTURES)


@functools.cache
def _load(name: str) -> tuple[Any, Any]:
    """The environment and its parameters. gymnax takes seconds to import, so only who makes a task pays for it; its
    functions are compiled per environment object, so each task has one object."""
    import gymnax

    return gymnax.make(name)


def _bounds(env: Any, params: Any) -> tuple[Float32[Array, " *shape"], Float32[Array, " *shape"]]:
    """What -1 and 1 mean: the limits of the action space, and themselves where it has none."""
    space = env.action_space(params)
    low, high = (jnp.broadcast_to(jnp.asarray(limit, jnp.float32), space.shape) for limit in (space.low, space.high))
    limited = jnp.isfinite(low) & jnp.isfinite(high)
    return jnp.where(limited, low, -1.0), jnp.where(limited, high, 1.0)


def _flat(observation: Any) -> Float32[Array, " features"]:
    return jnp.ravel(observation).astype(jnp.float32)


@functools.cache
def _state_dtypes(name: str) -> Any:
    """The dtypes of a state after a step: those of a reset are Python's own numbers here and there."""
    env, params = _load(name)

    def after_step(key: Key[Array, ""]) -> EnvState:
        _, state = env.reset_env(key, params)
        return env.step_env(key, state, _bounds(env, params)[0], params)[1]

    return jax.tree.map(lambda leaf: leaf.dtype, jax.eval_shape(after_step, jax.random.key(0)))


def _as_step_gives(name: str, state: EnvState) -> EnvState:
    """The same numbers as strongly typed arrays, so that a scan can carry the state of a reset."""
    return jax.tree.map(lambda leaf, dtype: jnp.asarray(leaf, dtype), state, _state_dtypes(name))


Reset = Callable[[Key[Array, ""]], tuple[EnvState, Scene]]
Step = Callable[[EnvState, Float[Array, " actions"], Key[Array, ""]], tuple[EnvState, TimeStep]]
Picture = Callable[[EnvState], Float32[Array, " floats"]]


def _functions(name: str, params: Any, pixels: bool, action_repeat: int) -> tuple[Reset, Step, Picture]:
    """`reset`, `step` and `picture` of a task with these parameters, which may be traced."""
    env = _load(name)[0]
    low, high = _bounds(env, params)

    def picture(state: EnvState) -> Float32[Array, " floats"]:
        return PICTURES[name].picture(state, params)

    def reset(key: Key[Array, ""]) -> tuple[EnvState, Scene]:
        observation, state = env.reset_env(key, params)
        state = _as_step_gives(name, state)
        return state, picture(state) if pixels else _flat(observation)

    def once(state: EnvState, action: Float[Array, " actions"], key: Key[Array, ""]) -> tuple[EnvState, TimeStep]:
        control = (high + low) / 2 + (high - low) / 2 * jnp.clip(action, -1, 1).reshape(low.shape)
        observation, state, reward, terminated, _ = env.step_env(key, state, control, params)
        state = _as_step_gives(name, state)
        terminated = jnp.asarray(terminated, bool)
        truncated = jnp.asarray(env.is_truncated(state, params), bool) & ~terminated
        scene = picture(state) if pixels else _flat(observation)
        return state, TimeStep(scene, jnp.asarray(reward, jnp.float32).reshape(()), terminated, truncated)

    return reset, once if action_repeat == 1 else _repeat(once, action_repeat), picture


def _repeat(once: Step, times: int) -> Step:
    """Holds an action for so many control steps, or until the episode ends; rewards are summed."""

    def step(state: EnvState, action: Float[Array, " actions"], key: Key[Array, ""]) -> tuple[EnvState, TimeStep]:
        def again(so_far: tuple[EnvState, Any], key: Key[Array, ""]) -> tuple[tuple[EnvState, Any], None]:
            state, before = so_far
            state, after = once(state, action, key)
            following = state, after._replace(reward=before.reward + after.reward)
            over = before.terminated | before.truncated
            return jax.tree.map(lambda old, new: jnp.where(over, old, new), so_far, following), None

        keys = jax.random.split(key, times)
        return jax.lax.scan(again, once(state, action, keys[0]), keys[1:])[0]

    return step


KIND = DeviceKind("gymnax", make, GymnaxSettings, check=check, tasks=task_names, packages=("gymnax",))
