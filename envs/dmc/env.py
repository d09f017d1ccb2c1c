"""The dm_control suite (Tassa et al. 2018, arXiv:1801.00690) behind the host environment contract.

Episodes last 1000 control steps and are truncated, never terminated (but for the LQR). Actions are in [-1, 1].
dm_control has no action repeat of its own: here an action is held for `action_repeat` control steps, their rewards are
summed, and the repeat stops where the episode ends.
"""

from __future__ import annotations

import difflib
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from envs.mujoco import gl
from envs.mujoco.base import MujocoEnv, Renderer, check_settings
from envs.render.drawing import Drawing
from envs.render.scenery import make_scenery
from envs.types import ArraySpec, EnvSpec, observe

if TYPE_CHECKING:
    from jaxtyping import Float32, Float64

ENDLESS_STEPS = 1000  # control steps for the tasks that the suite gives no time limit (lqr): what all others have
UNBOUNDED = 1e9  # the suite reports +-1e10 for an actuator without limits


def make_dmc(
    name: str,
    *,
    pixels: bool,
    image_size: int = 84,
    action_repeat: int = 2,
    camera_id: int | None = None,
    renderer: Renderer = "jax",
    render_quality: gl.RenderQuality = "fast",
) -> DmcEnv:
    """Makes one task of the suite, such as `cartpole_swingup`, `ball_in_cup_catch` or `manipulator_bring_ball`.

    Args:
      name: domain and task, joined by an underscore.
      pixels: observations are frames, uint8 [image_size, image_size, 3]; else float32 [features], all entries of the
        task's observation in the suite's order.
      image_size: height and width of a frame, in pixels.
      action_repeat: control steps per agent step.
      camera_id: the model's camera, -1 for the free one; None takes 0, and 2 for the quadruped, as in DrQ-v2.
      renderer: `jax` draws on the device, from scenes of poses, and needs no OpenGL, but draws no meshes; `gl` is
        MuJoCo's own, on the host, whose scenes are frames.
      render_quality: `canonical` has the look of dm_control's own frames, with `gl` bit for bit; `smooth` leaves out
        shadows and reflections, `fast` also multisampling (with `jax`: four rays a pixel).

    Raises:
      ValueError: an unknown task, a setting that cannot be, or a task that `jax` does not draw.
      RuntimeError: `pixels` with `gl`, and no OpenGL.
    """
    check_dmc(
        name,
        pixels=pixels,
        image_size=image_size,
        action_repeat=action_repeat,
        camera_id=camera_id,
        renderer=renderer,
        render_quality=render_quality,
    )
    return DmcEnv(name, pixels, image_size, action_repeat, camera_id, renderer, render_quality)


def check_dmc(
    name: str,
    *,
    pixels: bool,
    image_size: int = 84,
    action_repeat: int = 2,
    camera_id: int | None = None,
    renderer: Renderer = "jax",
    render_quality: gl.RenderQuality = "fast",
) -> None:
    """Raises what `make_dmc` would raise for these settings, without loading the task; see there."""
    check_settings(pixels, image_size, action_repeat, camera_id, render_quality, renderer)
    split_name(name, gl.import_suite(pixels=pixels and renderer == "gl").ALL_TASKS)


def task_names() -> list[str]:
    """The names of all tasks of the suite."""
    return [f"{domain}_{task}" for domain, task in gl.import_suite(pixels=False).ALL_TASKS]


def split_name(name: str, tasks: tuple[tuple[str, str], ...]) -> tuple[str, str]:
    """Finds (domain, task) of a joined name in the suite's own list: both parts may hold underscores themselves."""
    by_name = {f"{domain}_{task}": (domain, task) for domain, task in tasks}
    if name in by_name:
        return by_name[name]
    close = difflib.get_close_matches(str(name), by_name, n=5, cutoff=0.5) or sorted(by_name)
    raise ValueError(f"env.name={name!r} is no task of the dm_control suite; close names are {', '.join(close)}.")


class DmcEnv(MujocoEnv):
    """One task of the suite; see `make_dmc`. An episode is a function of its seed and its actions alone."""

    def __init__(
        self,
        name: str,
        pixels: bool,
        image_size: int,
        action_repeat: int,
        camera_id: int | None,
        renderer: Renderer,
        render_quality: gl.RenderQuality,
    ) -> None:
        suite = gl.import_suite(pixels=pixels and renderer == "gl")
        domain, task = split_name(name, suite.ALL_TASKS)
        # The LQR draws its masses and springs when it is loaded: a fixed seed gives every lane the same system.
        self._env = suite.load(domain, task, task_kwargs={"random": 0})
        self._physics = self._env.physics
        self._keep_out_contexts()
        if self._env._step_limit == math.inf:
            self._env._step_limit = ENDLESS_STEPS
        camera = (2 if domain == "quadruped" else 0) if camera_id is None else int(camera_id)
        if camera >= self._physics.model.ncam:
            last = self._physics.model.ncam - 1
            raise ValueError(f"env.camera_id={camera} is no camera of {name}; choose from -1 to {last}.")
        drawing = None
        if renderer == "jax":
            self._env.reset()  # tasks set sizes and colours of their targets when an episode starts
            try:
                drawing = Drawing(make_scenery(self._physics.model.ptr, camera, name), render_quality)
            except ValueError as error:
                if pixels:
                    raise
                self._no_picture = error  # states need none, unless for a video
        self._draw_with(image_size, camera, render_quality, drawing)
        self._low_high = _bounds(self._env.action_spec())
        self._observation: dict[str, Any] | None = None  # None: no episode is under way
        self.spec = self._describe(name, pixels, int(action_repeat))
        if pixels and drawing is None:
            self._renderer(self._size)

    def _keep_out_contexts(self) -> None:
        """Stops `quadruped_escape` from opening dm_control's own renderer, to which it would upload its terrain."""
        self._physics._make_rendering_contexts = lambda: None

    def _describe(self, name: str, pixels: bool, action_repeat: int) -> EnvSpec:
        shapes = [entry.shape for entry in self._env.observation_spec().values()]
        features = ArraySpec((sum(math.prod(shape) for shape in shapes),), np.dtype(np.float32))
        return EnvSpec(
            name=name,
            **(self._seen() if pixels else dict(scene=features, observe=observe)),
            draw=self._drawing,
            action_dim=self._env.action_spec().shape[0],
            action_repeat=action_repeat,
            episode_steps=math.ceil(math.ceil(self._env._step_limit) / action_repeat),
            pixels=pixels,
        )

    def _model(self) -> Any:
        return self._physics.model

    def _data(self) -> Any:
        return self._physics.data

    def _states(self) -> Float32[np.ndarray, " features"]:
        assert self._observation is not None
        return np.concatenate([np.ravel(entry) for entry in self._observation.values()]).astype(np.float32)

    def _start(self, seed: int) -> None:
        self._env.task.random.seed(seed)
        self._observation = self._env.reset().observation
        for renderer in self._renderers.values():
            renderer.upload_terrain()

    def _advance(self, action: Float32[np.ndarray, " actions"]) -> tuple[float, bool, bool]:
        """Holds one action for `action_repeat` control steps; gives reward, terminated, truncated."""
        if self._observation is None:
            raise RuntimeError(f"The episode of {self.spec.name} is over or was never started: call reset(seed) first.")
        low, high = self._low_high
        if np.shape(action) != low.shape:
            raise ValueError(f"An action of {self.spec.name} has shape {low.shape}, not {np.shape(action)}.")
        control = (high + low) / 2 + (high - low) / 2 * np.clip(action, -1, 1).astype(np.float64)
        reward, terminated, truncated = 0.0, False, False
        for _ in range(self.spec.action_repeat):
            step = self._env.step(control)
            reward += float(step.reward)
            self._observation = step.observation
            if step.last():
                terminated = step.discount == 0
                truncated = not terminated
                break
        return reward, terminated, truncated


def _bounds(spec: Any) -> tuple[Float64[np.ndarray, " actions"], Float64[np.ndarray, " actions"]]:
    """What -1 and 1 mean for each actuator: its limits, and themselves for one without limits."""
    free = (spec.minimum < -UNBOUNDED) | (spec.maximum > UNBOUNDED)
    return np.where(free, -1.0, spec.minimum), np.where(free, 1.0, spec.maximum)
