"""Tasks of the dm_control suite with MJX physics (mujoco.readthedocs.io, "MuJoCo XLA") behind the device contract.

The models are those of the installed dm_control, and so are the starts, observations, rewards and time limits of
`envs.mjx.tasks`. Physics runs in float32 by MJX's own JAX code, on whatever device JAX has. Scenes of pixels are poses,
which `envs.render.raycast` draws when they are observed.

Importing this module imports neither mujoco nor dm_control.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Key

from envs.mjx.physics import CONTROL_STEPS, Physics, State, Task, advance, kinematics
from envs.mjx.tasks import TASKS, load_task
from envs.mujoco import gl
from envs.mujoco.base import MujocoSettings, RendererName
from envs.render.drawing import Drawing
from envs.render.mujoco_scene import RenderQuality, poses
from envs.render.scenery import make_scenery
from envs.types import ArraySpec, DeviceEnv, DeviceKind, EnvSpec, Scene, TimeStep, observe
from settings import setting

if TYPE_CHECKING:
    from mujoco import mjx


@dataclass(frozen=True)
class MjxSettings(MujocoSettings):
    """How a task of the suite is seen. States are all entries of its observation, in the suite's order.

    The usual camera is 0. Scenes of pixels are poses, float32 [floats], which are drawn when they are observed.
    """

    action_repeat: int = setting(2, "control steps for which an action is held", least=1)
    renderer: RendererName = setting("jax", "there is only jax, which draws on the device")


def make(name: str, settings: MjxSettings) -> DeviceEnv:
    """Makes one task, such as `cheetah_run`; see `TASKS`. Loads its model, and compiles nothing.

    Episodes last 1000 control steps and are truncated, never terminated. An action is held for `action_repeat` control
    steps, their rewards are summed, and the repeat stops where the episode ends. No step draws random numbers. A
    simulation that diverges gives NaN, where dm_control raises an error.

    Raises:
      ValueError: a camera that the model does not have, or a task that shows what is not drawn here.
    """
    physics, task = load_task(name)
    camera, pixels, action_repeat = settings.camera_id or 0, settings.pixels, settings.action_repeat
    if camera >= physics.host.ncam:
        last = physics.host.ncam - 1
        raise ValueError(f"env.camera_id must be a camera of {name}, from -1 to {last}, got {camera}")
    still = jnp.zeros(physics.host.nu, jnp.float32)

    drawing = _drawing(name, camera, settings.render_quality)

    def view(data: mjx.Data) -> Float32[Array, " floats"]:
        return jnp.asarray(poses(drawing.scenery, data)) if pixels else task.observe(data)

    def picture(state: State) -> Float32[Array, " floats"]:
        return jnp.asarray(poses(drawing.scenery, kinematics(physics, task, state, still)))

    def reset(key: Key[Array, ""]) -> tuple[State, Float32[Array, " floats"]]:
        state = task.start(key)
        return state, view(kinematics(physics, task, state, still))

    scene = jax.eval_shape(reset, jax.random.key(0))[1]
    spec = EnvSpec(
        name=name,
        scene=ArraySpec(scene.shape, np.dtype(np.float32)),
        observe=functools.partial(drawing, size=settings.image_size) if pixels else observe,
        action_dim=physics.host.nu,
        action_repeat=action_repeat,
        episode_steps=math.ceil(CONTROL_STEPS / action_repeat),
        pixels=pixels,
        vary=drawing.vary if pixels else None,
    )
    return DeviceEnv(spec, reset, _agent_step(physics, task, view, action_repeat, scene), picture, drawing)


def check(name: str, settings: MjxSettings) -> None:
    """Raises what `make` would raise, without loading the task.

    Raises:
      ValueError: a task that the suite has and this kind has not, or another renderer than jax.
      RuntimeError: MJX is not installed.
    """
    if settings.renderer != "jax":
        raise ValueError("env.backend=mjx draws on the device; set --config.env.renderer=jax")
    if name not in TASKS:
        suite = [f"{domain}_{task}" for domain, task in gl.import_suite(pixels=False).ALL_TASKS]
        if name in suite:
            raise ValueError(
                f"env.name={name!r} has no MJX version here: set env.backend=mujoco, or choose from {', '.join(TASKS)}"
            )
    elif not _has_mjx():
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


View: TypeAlias = "Callable[[mjx.Data], Float32[Array, ' floats']]"
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
            data = kinematics(physics, task, after, control)
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
def _drawing(name: str, camera: int, quality: RenderQuality) -> Drawing:
    return Drawing(make_scenery(load_task(name)[0].host, camera, name), quality)


KIND = DeviceKind(
    "mjx",
    make,
    MjxSettings,
    check=check,
    tasks=task_names,
    packages=("mujoco", "dm_control", "mujoco-mjx"),
)
