"""gymnax's tasks with continuous actions (Lange 2022, github.com/RobertTLange/gymnax) behind the device contract.

The dynamics are gymnax's own `step_env` and `reset_env`, which never reset by themselves and leave the time limit to
`is_truncated`. gymnax has no pictures: those of `envs.render.gymnax_scenes` serve. A scene of pixels is the few floats
that a picture needs, and is drawn when it is observed.
"""

from __future__ import annotations

import difflib
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Key, UInt8

from envs.render.gymnax_scenes import SCENES
from envs.types import ArraySpec, DeviceEnv, EnvSpec, EnvState, TimeStep, check_view, observe
from envs.types import Scene as AnyScene


def make_gymnax(name: str, *, pixels: bool, image_size: int = 84, action_repeat: int = 1) -> DeviceEnv:
    """Makes one task with continuous actions, such as `Pendulum-v1` or `Reacher-misc`; see `task_names`.

    With `action_repeat` 1 the key of a step is passed on as it is, so that a trajectory is gymnax's own for the same
    keys. Otherwise each control step gets a key of its own, rewards are summed, and the repeat stops where the episode
    ends.

    Args:
      name: the task, as gymnax registers it.
      pixels: scenes are the floats of a picture, observed as a frame uint8 [image_size, image_size, 3]; else scenes
        are gymnax's observation, float32 [features].
      image_size: height and width of a frame, in pixels.
      action_repeat: control steps per agent step.

    Raises:
      ValueError: an unknown task, one with discrete actions, or a setting that cannot be.
    """
    check_gymnax(name, pixels=pixels, image_size=image_size, action_repeat=action_repeat)
    env, params = _load(name)
    scene = SCENES[name]
    once = _control_step(name, pixels)

    def picture(state: EnvState) -> Float32[Array, " floats"]:
        return scene.picture(state, params)

    def look(picture: Float32[Array, " floats"]) -> UInt8[Array, "size size 3"]:
        return scene.draw(picture, int(image_size))

    def reset(key: Key[Array, ""]) -> tuple[EnvState, AnyScene]:
        observation, state = env.reset_env(key, params)
        state = _as_step_gives(name, state)
        return state, picture(state) if pixels else _flat(observation)

    features = math.prod(jax.eval_shape(reset, jax.random.key(0))[1].shape)
    spec = EnvSpec(
        name=name,
        scene=ArraySpec((features,), np.dtype(np.float32)),
        observe=look if pixels else observe,
        action_dim=math.prod(env.action_space(params).shape),
        action_repeat=int(action_repeat),
        episode_steps=math.ceil(params.max_steps_in_episode / action_repeat),
        pixels=pixels,
    )
    step = once if action_repeat == 1 else _repeat(once, int(action_repeat))
    return DeviceEnv(spec, reset, step, picture, scene.draw)


def check_gymnax(name: str, *, pixels: bool, image_size: int = 84, action_repeat: int = 1) -> None:
    """Raises what `make_gymnax` would raise for these settings; imports gymnax only to refuse a task."""
    check_view(pixels, image_size, action_repeat)
    if name not in SCENES:
        raise ValueError(_why_not(name))


def _why_not(name: str) -> str:
    import gymnax

    if name not in gymnax.registered_envs:
        close = difflib.get_close_matches(str(name), SCENES, n=5, cutoff=0.4) or list(SCENES)
        return f"env.name={name!r} is no task of gymnax; close names are {', '.join(close)}."
    env, params = _load(name)
    if not isinstance(env.action_space(params), gymnax.environments.spaces.Box):
        return f"env.name={name!r} has discrete actions, and the agents here continuous ones: {_listed()}."
    return f"env.name={name!r} has no picture in envs/render/gymnax_scenes.py; choose from {_listed()}."


def _listed() -> str:
    return ", ".join(SCENES)


def task_names() -> list[str]:
    """The names of gymnax's tasks with continuous actions."""
    return list(SCENES)


@functools.cache
def _load(name: str) -> tuple[Any, Any]:
    """The environment and its parameters. gymnax takes seconds to import, so only who makes a task pays for it; its
    functions are compiled per environment object, so each task has one object."""
    import gymnax

    return gymnax.make(name)


@functools.cache
def _bounds(name: str) -> tuple[Float32[np.ndarray, " *shape"], Float32[np.ndarray, " *shape"]]:
    """What -1 and 1 mean: the limits of the action space, and themselves where it has none."""
    env, params = _load(name)
    space = env.action_space(params)
    low = np.broadcast_to(np.asarray(space.low, np.float32), space.shape)
    high = np.broadcast_to(np.asarray(space.high, np.float32), space.shape)
    limited = np.isfinite(low) & np.isfinite(high)
    return np.where(limited, low, np.float32(-1)), np.where(limited, high, np.float32(1))


def _flat(observation: Any) -> Float32[Array, " features"]:
    return jnp.ravel(observation).astype(jnp.float32)


@functools.cache
def _state_dtypes(name: str) -> Any:
    """The dtypes of a state after a step: those of a reset are Python's own numbers here and there."""
    env, params = _load(name)

    def after_step(key: Key[Array, ""]) -> EnvState:
        _, state = env.reset_env(key, params)
        return env.step_env(key, state, jnp.asarray(_bounds(name)[0]), params)[1]

    return jax.tree.map(lambda leaf: leaf.dtype, jax.eval_shape(after_step, jax.random.key(0)))


def _as_step_gives(name: str, state: EnvState) -> EnvState:
    """The same numbers as strongly typed arrays, so that a scan can carry the state of a reset."""
    return jax.tree.map(lambda leaf, dtype: jnp.asarray(leaf, dtype), state, _state_dtypes(name))


Step = Callable[[EnvState, Float[Array, " actions"], Key[Array, ""]], tuple[EnvState, TimeStep]]


def _control_step(name: str, pixels: bool) -> Step:
    env, params = _load(name)
    low, high = _bounds(name)

    def step(state: EnvState, action: Float[Array, " actions"], key: Key[Array, ""]) -> tuple[EnvState, TimeStep]:
        control = (high + low) / 2 + (high - low) / 2 * jnp.clip(action, -1, 1).reshape(low.shape)
        observation, state, reward, terminated, _ = env.step_env(key, state, control, params)
        state = _as_step_gives(name, state)
        terminated = jnp.asarray(terminated, bool)
        truncated = jnp.asarray(env.is_truncated(state, params), bool) & ~terminated
        scene = SCENES[name].picture(state, params) if pixels else _flat(observation)
        return state, TimeStep(scene, jnp.asarray(reward, jnp.float32).reshape(()), terminated, truncated)

    return step


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
