"""What the kinds of host environments over MuJoCo share: settings, and how their scenes are drawn."""

from __future__ import annotations

import functools
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal

import numpy as np

from envs.episodes import EpisodeEnv, Observation
from envs.mujoco import gl
from envs.render.drawing import Drawing
from envs.render.mujoco_scene import RenderQuality, poses
from envs.types import ArraySpec, Scene, ViewSettings, image_spec, observe
from settings import setting

if TYPE_CHECKING:
    import mujoco
    from jaxtyping import Float32

    from envs.types import EnvSpec

RendererName = Literal["jax", "gl"]


@dataclass(frozen=True)
class MujocoSettings(ViewSettings):
    """What every MuJoCo task lets one choose."""

    camera_id: int | None = setting(
        None, "camera of the model, -1 for the free one; unset: the task's usual camera", least=-1
    )
    render_quality: RenderQuality = setting(
        "fast", "canonical: with shadows and reflections; smooth: without; fast: without smooth edges too"
    )


class MujocoEnv(EpisodeEnv[Observation], Generic[Observation]):
    """A host environment over a MuJoCo simulation.

    A subclass calls `_draw_with` before it draws. With a `Drawing` scenes of pixels are poses, which are drawn on the
    device; else they are images that OpenGL drew.
    """

    _no_picture: ValueError | None = None

    def _draw_with(self, settings: MujocoSettings, camera: int, drawing: Drawing | None = None) -> None:
        self._size, self._camera, self._drawing = settings.image_size, camera, drawing
        self._quality: RenderQuality = settings.render_quality
        self._renderers: dict[int, gl.Renderer] = {}

    def _with_pixels(self, spec: EnvSpec) -> EnvSpec:
        """The description of a task, with scenes for pixels in place of states."""
        if self._drawing is None:
            return spec._replace(scene=image_spec(self._size), observe=observe)
        scene = ArraySpec((self._drawing.scenery.floats,), np.dtype(np.float32))
        draw = functools.partial(self._drawing, size=self._size)
        return spec._replace(scene=scene, observe=draw, vary=self._drawing.vary)

    @abstractmethod
    def _model(self) -> mujoco.MjModel:
        """The simulation's model."""

    @abstractmethod
    def _simulation(self) -> mujoco.MjData:
        """Where the simulation is."""

    @abstractmethod
    def _states(self) -> Float32[np.ndarray, " features"]:
        """The newest observation as one array."""

    def _renderer(self, size: int) -> gl.Renderer:
        if size not in self._renderers:
            self._renderers[size] = gl.Renderer(self._model(), size, self._camera, self._quality)
        return self._renderers[size]

    def _scene(self) -> Scene:
        return self._picture(self._size) if self.spec.pixels else self._states()

    def _picture(self, size: int) -> Scene:
        if self._drawing is not None:
            return poses(self._drawing.scenery, self._simulation())
        return self._renderer(size).render(self._simulation())

    def picture(self, size: int) -> Scene:
        """What an image of the current state is drawn from. With OpenGL the first call for a size makes its renderer.

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
        """Frees the renderers; safe to call twice."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()
