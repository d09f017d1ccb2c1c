"""Tasks of the dm_control suite with MJX physics (mujoco.readthedocs.io, "MuJoCo XLA") behind the device contract.

The models are those of the installed dm_control, and so are the starts, observations, rewards and time limits of
`envs.mjx.tasks`. Physics runs in float32 by MJX's own JAX code, on whatever device JAX has. Scenes of pixels are poses,
which `envs.render.raycast` draws when they are observed.

Importing this module imports neither mujoco nor dm_control.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
import math
from collections.abc import Callable
from dataclasses import replace
from importlib.machinery import PathFinder
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Key

from envs.mjx.physics import CONTROL_STEPS, Physics, State, Task, advance, look
from envs.mjx.tasks import TASKS, load_task
from envs.mujoco import gl
from envs.mujoco.base import check_settings
from envs.render.drawing import Drawing
from envs.render.mujoco_scene import poses
from envs.render.scenery import make_scenery
from envs.types import ArraySpec, DeviceEnv, EnvSpec, Scene, TimeStep, observe


def make_mjx(
    name: str,
    *,
    pixels: bool,
    image_size: int = 84,
    action_repeat: int = 2,
    camera_id: int | None = None,
    render_quality: gl.RenderQuality = "fast",
) -> DeviceEnv:
    """Makes one task, such as `cheetah_run`; see `task_names`. Loads its model, and compiles nothing.

    Episodes last 1000 control steps and are truncated, never terminated. An action is held for `action_repeat` control
    steps, their rewards are summed, and the repeat stops where the episode ends. No step draws random numbers. A
    simulation that diverges gives NaN, where dm_control raises an error.

    Args:
      name: domain and task, joined by an underscore.
      pixels: scenes are poses, float32 [floats], observed as a frame uint8 [image_size, image_size, 3]; else scenes
        are all entries of the task's observation in the suite's order, float32 [features].
      image_size: height and width of a frame, in pixels.
      action_repeat: control steps per agent step.
      camera_id: the model's camera, -1 for the free one; None takes 0.
      render_quality: `fast`, `smooth` or `canonical`, see `envs.render.raycast`.

    Raises:
      ValueError: an unknown task, or a setting that cannot be.
      RuntimeError: MJX is not installed.
    """
    check_mjx(
        name,
        pixels=pixels,
        image_size=image_size,
        action_repeat=action_repeat,
        camera_id=camera_id,
        render_quality=render_quality,
    )
    physics, task = load_task(name)
    camera = 0 if camera_id is None else int(camera_id)
    if camera >= physics.host.ncam:
        raise ValueError(f"env.camera_id={camera} is no camera of {name}; choose from -1 to {physics.host.ncam - 1}.")
    still = jnp.zeros(physics.host.nu, jnp.float32)

    drawing = _drawing(name, camera, render_quality)

    def view(data: Any) -> Float32[Array, " floats"]:
        return jnp.asarray(poses(drawing.scenery, data)) if pixels else task.observe(data)

    def picture(state: State) -> Float32[Array, " floats"]:
        return jnp.asarray(poses(drawing.scenery, look(physics, task, state, still)))

    def reset(key: Key[Array, ""]) -> tuple[State, Float32[Array, " floats"]]:
        state = task.start(key)
        return state, view(look(physics, task, state, still))

    scene = jax.eval_shape(reset, jax.random.key(0))[1]
    spec = EnvSpec(
        name=name,
        scene=ArraySpec(scene.shape, np.dtype(np.float32)),
        observe=functools.partial(drawing, size=int(image_size)) if pixels else observe,
        action_dim=physics.host.nu,
        action_repeat=int(action_repeat),
        episode_steps=math.ceil(CONTROL_STEPS / action_repeat),
        pixels=pixels,
        vary=drawing.vary if pixels else None,
    )
    return DeviceEnv(spec, reset, _agent_step(physics, task, view, int(action_repeat), scene), picture, drawing)


def check_mjx(
    name: str,
    *,
    pixels: bool,
    image_size: int = 84,
    action_repeat: int = 2,
    camera_id: int | None = None,
    render_quality: gl.RenderQuality = "fast",
) -> None:
    """Raises what `make_mjx` would raise for these settings, without loading the task; see there."""
    check_settings(pixels, image_size, action_repeat, camera_id, render_quality, "jax")
    if name not in TASKS:
        raise ValueError(_why_not(name))
    if not _has_mjx():
        raise RuntimeError(
            "env.backend=mjx needs the package mujoco-mjx, which is not installed: "
            "install it with `pip install mujoco-mjx==3.17.0`, or set env.backend=mujoco."
        )


def task_names() -> list[str]:
    """The names of the suite's tasks that are here."""
    return list(TASKS)


def _has_mjx() -> bool:
    """Looks for the package mujoco.mjx without importing mujoco, which takes seconds."""
    mujoco = importlib.util.find_spec("mujoco")
    places = mujoco.submodule_search_locations if mujoco else None
    return places is not None and PathFinder.find_spec("mujoco.mjx", list(places)) is not None


def _why_not(name: str) -> str:
    elsewhere = [f"{domain}_{task}" for domain, task in gl.import_suite(pixels=False).ALL_TASKS]
    if name in elsewhere:
        return f"env.name={name!r} has no MJX version here: set env.backend=mujoco, or choose from {', '.join(TASKS)}."
    close = difflib.get_close_matches(str(name), TASKS, n=5, cutoff=0.5) or list(TASKS)
    return f"env.name={name!r} is no task of the dm_control suite; close names are {', '.join(close)}."


View = Callable[[Any], Float32[Array, " floats"]]
Step = Callable[[State, Float[Array, " actions"], Key[Array, ""]], tuple[State, TimeStep]]


def _agent_step(physics: Physics, task: Task, view: View, repeat: int, scene: jax.ShapeDtypeStruct) -> Step:
    """Holds an action for so many control steps, or until the episode ends."""
    low, high = physics.host.actuator_ctrlrange.astype(np.float32).T

    def step(state: State, action: Float[Array, " actions"], key: Key[Array, ""]) -> tuple[State, TimeStep]:
        del key  # nothing is random after the start
        control = (high + low) / 2 + (high - low) / 2 * jnp.clip(action, -1, 1)

        def once(_: int | Array, so_far: tuple[State, Scene, Array]) -> tuple[State, Scene, Array]:
            before, _, total = so_far
            after = replace(advance(physics, before, control), steps=before.steps + 1)
            data = look(physics, task, after, control)
            following = after, view(data), total + task.reward(data)
            if CONTROL_STEPS % repeat == 0:  # then episodes end with a repeat
                return following
            over = before.steps >= CONTROL_STEPS
            return jax.tree.map(lambda old, new: jnp.where(over, old, new), so_far, following)

        begin = state, jnp.zeros(scene.shape, scene.dtype), jnp.float32(0)
        state, last, reward = once(0, begin) if repeat == 1 else jax.lax.fori_loop(0, repeat, once, begin)
        return state, TimeStep(last, reward, jnp.array(False), state.steps >= CONTROL_STEPS)

    return step


@functools.cache
def _drawing(name: str, camera: int, quality: gl.RenderQuality) -> Drawing:
    return Drawing(make_scenery(load_task(name)[0].host, camera, name), quality)
