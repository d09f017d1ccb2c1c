"""What the environments of dm_control and Gymnasium share: MuJoCo's settings, frames, and the life of an episode."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from envs.mujoco import gl
from envs.render.drawing import Drawing
from envs.render.mujoco_scene import poses
from envs.types import ArraySpec, EnvSpec, Scene, TimeStep, check_view, is_int, observe

if TYPE_CHECKING:
    from jaxtyping import Float32


Renderer = Literal["jax", "gl"]


def check_settings(
    pixels: bool,
    image_size: int,
    action_repeat: int,
    camera_id: int | None,
    render_quality: gl.RenderQuality,
    renderer: Renderer = "gl",
) -> None:
    """Raises a ValueError for a setting that no MuJoCo task could have."""
    check_view(pixels, image_size, action_repeat)
    if camera_id is not None and (not is_int(camera_id) or camera_id < -1):
        raise ValueError(
            f"env.camera_id must be None for the task's usual camera, or an integer from -1, not {camera_id!r}."
        )
    if renderer not in get_args(Renderer):
        raise ValueError(f"env.renderer must be 'jax' or 'gl', not {renderer!r}.")
    if render_quality not in get_args(gl.RenderQuality):
        raise ValueError(f"env.render_quality must be 'fast', 'smooth' or 'canonical', not {render_quality!r}.")


def frame_spec(size: int) -> ArraySpec:
    """The `EnvSpec.scene` of frames."""
    return ArraySpec((int(size), int(size), 3), np.dtype(np.uint8))


class MujocoEnv(ABC):
    """A host environment over a MuJoCo simulation. Episodes are functions of their seed and actions alone.

    A subclass sets `spec`, keeps the newest observation in `_observation`, and calls `_draw_with` before it draws.
    With a `Drawing` scenes of pixels are poses, else they are frames that OpenGL drew.
    """

    spec: EnvSpec
    _observation: Any  # None: no episode is under way
    _no_picture: ValueError | None = None

    def _draw_with(
        self, image_size: int, camera: int, quality: gl.RenderQuality, drawing: Drawing | None = None
    ) -> None:
        self._size, self._camera, self._drawing = int(image_size), camera, drawing
        self._quality: gl.RenderQuality = quality
        self._renderers: dict[int, gl.Renderer] = {}

    def _seen(self) -> dict[str, Any]:
        """The fields of `EnvSpec` that say what pixels are."""
        if self._drawing is None:
            return dict(scene=frame_spec(self._size), observe=observe)
        scene = ArraySpec((self._drawing.scenery.floats,), np.dtype(np.float32))
        observe_poses = functools.partial(self._drawing, size=self._size)
        return dict(scene=scene, observe=observe_poses, vary=self._drawing.vary)

    @abstractmethod
    def _model(self) -> Any:
        """The model, as dm_control wraps it."""

    @abstractmethod
    def _data(self) -> Any:
        """The simulation's data, as dm_control wraps it."""

    @abstractmethod
    def _states(self) -> Float32[np.ndarray, " features"]:
        """The newest observation as one array."""

    @abstractmethod
    def _start(self, seed: int) -> None:
        """Starts an episode."""

    @abstractmethod
    def _advance(self, action: Float32[np.ndarray, " actions"]) -> tuple[float, bool, bool]:
        """Holds one action for `action_repeat` steps; gives reward, terminated, truncated."""

    def _renderer(self, size: int) -> gl.Renderer:
        if size not in self._renderers:
            self._renderers[size] = gl.Renderer(self._model(), size, self._camera, self._quality)
        return self._renderers[size]

    def _scene(self) -> Scene:
        return self._picture(self._size) if self.spec.pixels else self._states()

    def _picture(self, size: int) -> Scene:
        if self._drawing is not None:
            return poses(self._drawing.scenery, self._data().ptr)
        return self._renderer(size).render(self._data())

    def reset(self, seed: int) -> Scene:
        """Starts the episode that `seed` stands for, and returns its first scene."""
        self._start(seed)
        return self._scene()

    def step(self, action: Float32[np.ndarray, " actions"]) -> TimeStep:
        """Takes one agent step with an action in [-1, 1] (clipped to it).

        Raises:
          RuntimeError: the episode is over, or was never started.
          ValueError: the action has the wrong shape, or is not finite (Gymnasium).
          dm_control.rl.control.PhysicsError: the simulation diverged, or the action was not finite (dm_control).
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

    def picture(self, size: int) -> Scene:
        """What a frame of the current state is drawn from. With OpenGL the first call for a size makes its renderer.

        Raises:
          RuntimeError: no OpenGL.
          ValueError: the model shows what the renderer cannot draw.
        """
        if self._no_picture is not None:
            raise self._no_picture
        if self._drawing is None:
            gl.import_suite(pixels=True)
        return self._picture(size)

    def close(self) -> None:
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()
