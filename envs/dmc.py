"""The dm_control suite (Tassa et al. 2018, arXiv:1801.00690) behind the host environment contract.

Episodes last 1000 control steps and are truncated, never terminated (but for the LQR). Actions are in [-1, 1].
dm_control has no action repeat of its own: here an action is held for `action_repeat` control steps, their rewards are
summed, and the repeat stops where the episode ends.
"""

from __future__ import annotations

import difflib
import math
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from envs import gl
from envs.types import ArraySpec, EnvSpec, Obs, Scene, TimeStep

if TYPE_CHECKING:
    from jaxtyping import Float32, Float64, UInt8

ENDLESS_STEPS = 1000  # control steps for the tasks that the suite gives no time limit (lqr): what all others have
UNBOUNDED = 1e9  # the suite reports +-1e10 for an actuator without limits


def observe(scene: Scene) -> Obs:
    """The scene is what the network sees."""
    return scene


def make_dmc(
    name: str,
    *,
    pixels: bool,
    image_size: int = 84,
    action_repeat: int = 2,
    camera_id: int | None = None,
    render_quality: gl.RenderQuality = "fast",
) -> DmcEnv:
    """Makes one task of the suite, such as `cartpole_swingup`, `ball_in_cup_catch` or `manipulator_bring_ball`.

    Args:
      name: domain and task, joined by an underscore.
      pixels: scenes are frames, uint8 [image_size, image_size, 3]; else float32 [features], all entries of the task's
        observation in the suite's order.
      image_size: height and width of a frame, in pixels.
      action_repeat: control steps per agent step.
      camera_id: the model's camera, -1 for the free one; None takes 0, and 2 for the quadruped, as in DrQ-v2.
      render_quality: `canonical` draws what dm_control draws, `fast` leaves out shadows, reflections and multisampling.

    Raises:
      ValueError: an unknown task, or a setting that cannot be.
      RuntimeError: `pixels`, and no OpenGL.
    """
    check_dmc(
        name,
        pixels=pixels,
        image_size=image_size,
        action_repeat=action_repeat,
        camera_id=camera_id,
        render_quality=render_quality,
    )
    return DmcEnv(name, pixels, image_size, action_repeat, camera_id, render_quality)


def check_dmc(
    name: str,
    *,
    pixels: bool,
    image_size: int = 84,
    action_repeat: int = 2,
    camera_id: int | None = None,
    render_quality: gl.RenderQuality = "fast",
) -> None:
    """Raises what `make_dmc` would raise for these settings, without loading the task; see there."""
    check_settings(pixels, image_size, action_repeat, camera_id, render_quality)
    split_name(name, gl.import_suite(pixels=pixels).ALL_TASKS)


def check_settings(
    pixels: bool, image_size: int, action_repeat: int, camera_id: int | None, render_quality: gl.RenderQuality
) -> None:
    """Raises a ValueError for a setting that no MuJoCo task could have."""
    if not isinstance(pixels, bool):
        raise ValueError(f"env.pixels must be True or False, not {pixels!r}.")
    for key, value in {"image_size": image_size, "action_repeat": action_repeat}.items():
        if not _is_int(value) or value < 1:
            raise ValueError(f"env.{key} must be a positive integer, such as 84 or 2, not {value!r}.")
    if camera_id is not None and (not _is_int(camera_id) or camera_id < -1):
        raise ValueError(
            f"env.camera_id must be None for the task's usual camera, or an integer from -1, not {camera_id!r}."
        )
    if render_quality not in get_args(gl.RenderQuality):
        raise ValueError(f"env.render_quality must be 'fast' or 'canonical', not {render_quality!r}.")


def _is_int(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


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


def dmc_spec(name: str, *, pixels: bool, image_size: int = 84, **settings: Any) -> EnvSpec:
    """The `EnvSpec` of `make_dmc` with these settings; loads the model and draws nothing, so it needs no OpenGL."""
    spec = make_dmc(name, pixels=False, image_size=image_size, **settings).spec
    return spec._replace(scene=frame_spec(image_size), pixels=True) if pixels else spec


def frame_spec(size: int) -> ArraySpec:
    """The `EnvSpec.scene` of frames."""
    return ArraySpec((int(size), int(size), 3), np.dtype(np.uint8))


class DmcEnv:
    """One task of the suite; see `make_dmc`. An episode is a function of its seed and its actions alone."""

    def __init__(
        self,
        name: str,
        pixels: bool,
        image_size: int,
        action_repeat: int,
        camera_id: int | None,
        render_quality: gl.RenderQuality,
    ) -> None:
        suite = gl.import_suite(pixels=pixels)
        domain, task = split_name(name, suite.ALL_TASKS)
        # The LQR draws its masses and springs when it is loaded: a fixed seed gives every lane the same system.
        self._env = suite.load(domain, task, task_kwargs={"random": 0})
        self._physics = self._env.physics
        self._keep_out_contexts()
        if self._env._step_limit == math.inf:
            self._env._step_limit = ENDLESS_STEPS
        self._camera = (2 if domain == "quadruped" else 0) if camera_id is None else int(camera_id)
        if self._camera >= self._physics.model.ncam:
            last = self._physics.model.ncam - 1
            raise ValueError(f"env.camera_id={self._camera} is no camera of {name}; choose from -1 to {last}.")
        self._quality: gl.RenderQuality = render_quality
        self._size = int(image_size)
        self._renderers: dict[int, gl.Renderer] = {}
        self._low_high = _bounds(self._env.action_spec())
        self._observation: dict[str, Any] | None = None  # None: no episode is under way
        self.spec = self._describe(name, pixels, int(action_repeat))
        if pixels:
            self._renderer(self._size)

    def _keep_out_contexts(self) -> None:
        """Stops `quadruped_escape` from opening dm_control's own renderer, to which it would upload its terrain."""
        self._physics._make_rendering_contexts = lambda: None

    def _describe(self, name: str, pixels: bool, action_repeat: int) -> EnvSpec:
        scene = frame_spec(self._size)
        if not pixels:
            shapes = [entry.shape for entry in self._env.observation_spec().values()]
            scene = ArraySpec((sum(math.prod(shape) for shape in shapes),), np.dtype(np.float32))
        return EnvSpec(
            name=name,
            scene=scene,
            observe=observe,
            action_dim=self._env.action_spec().shape[0],
            action_repeat=action_repeat,
            episode_steps=math.ceil(math.ceil(self._env._step_limit) / action_repeat),
            pixels=pixels,
        )

    def _renderer(self, size: int) -> gl.Renderer:
        if size not in self._renderers:
            self._renderers[size] = gl.Renderer(self._physics.model, size, self._camera, self._quality)
        return self._renderers[size]

    def _scene(self) -> Scene:
        if self.spec.pixels:
            return self._renderer(self._size).render(self._physics.data)
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

    def reset(self, seed: int) -> Scene:
        """Starts the episode that `seed` (0 to 2**32 - 1) stands for, and returns its first scene."""
        self._start(seed)
        return self._scene()

    def step(self, action: Float32[np.ndarray, " actions"]) -> TimeStep:
        """Takes one agent step with an action in [-1, 1] (clipped to it).

        Raises:
          RuntimeError: the episode is over, or was never started.
          ValueError: the action has the wrong shape.
          dm_control.rl.control.PhysicsError: the simulation diverged, or the action was not finite.
        """
        reward, terminated, truncated = self._advance(action)
        scene = self._scene()
        if terminated or truncated:
            self._observation = None
        return TimeStep(scene, np.float32(reward), np.bool_(terminated), np.bool_(truncated))

    def replay(self, seed: int, actions: Float32[np.ndarray, "steps actions"]) -> Scene:
        """Takes an episode to where these actions led it, drawing only the scene there. The episode must not end."""
        self._start(seed)
        for action in actions:
            _, terminated, truncated = self._advance(action)
            if terminated or truncated:
                raise ValueError(
                    f"The {len(actions)} actions to replay run past the end of this episode of {self.spec.name}."
                )
        return self._scene()

    def render(self, size: int) -> UInt8[np.ndarray, "size size 3"]:
        """A frame of the current state for a video, at any size. The first call for a size makes its renderer.

        Raises:
          RuntimeError: no OpenGL.
        """
        gl.import_suite(pixels=True)
        return self._renderer(size).render(self._physics.data)

    def close(self) -> None:
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()


def _bounds(spec: Any) -> tuple[Float64[np.ndarray, " actions"], Float64[np.ndarray, " actions"]]:
    """What -1 and 1 mean for each actuator: its limits, and themselves for one without limits."""
    free = (spec.minimum < -UNBOUNDED) | (spec.maximum > UNBOUNDED)
    return np.where(free, -1.0, spec.minimum), np.where(free, 1.0, spec.maximum)
