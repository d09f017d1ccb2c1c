"""MuJoCo's OpenGL, headless: finding it, saying clearly when it is not there, and one kept renderer per image size.

`physics.render()` of dm_control builds a camera on every call, which costs 4-5 times the drawing itself at 84x84. The
renderer here keeps its scene, its camera and its OpenGL context, in a buffer no larger than the image.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import os
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Protocol

import numpy as np

from envs.render.mujoco_scene import RenderQuality

if TYPE_CHECKING:
    from types import ModuleType

    import mujoco
    from jaxtyping import Int32, UInt8


class GLContext(Protocol):
    """An OpenGL context of MuJoCo: one of its own classes, which MUJOCO_GL chooses."""

    def __init__(self, max_width: int, max_height: int) -> None: ...

    def make_current(self) -> None: ...

    def free(self) -> None: ...


_lock = threading.Lock()  # thread workers import, and make contexts, at the same time
_import_error: Exception | None = None


def no_gl(cause: object) -> RuntimeError:
    """The one sentence that says why nothing can be drawn and what to do about it."""
    return RuntimeError(
        f"Pixels need headless OpenGL, which MUJOCO_GL={os.environ.get('MUJOCO_GL', '')} does not give here ({cause}): "
        "install it with `apt-get install libegl1 libgl1-mesa-dri` and set MUJOCO_GL=egl, have dm_control drawn in JAX "
        "with `--config.env.renderer=jax`, or train from states with `--config.env.pixels=False`."
    )


def import_suite(*, pixels: bool) -> ModuleType:
    """Imports mujoco and dm_control with a headless OpenGL, and returns the module `dm_control.suite`.

    Unless MUJOCO_GL says otherwise it is set to egl on Linux before mujoco is first imported. States need no OpenGL:
    where it is missing, they go on with MUJOCO_GL=disable.

    Raises:
      RuntimeError: `pixels`, and OpenGL is disabled or cannot be loaded.
    """
    global _import_error
    with _lock:
        if sys.platform == "linux":
            os.environ.setdefault("MUJOCO_GL", "egl")
        os.environ.setdefault("LP_NUM_THREADS", "0")  # llvmpipe's own threads only cost at this frame size
        try:
            suite = _import()
            if pixels:
                context_class()
        except ModuleNotFoundError:
            raise
        except (AttributeError, ImportError, OSError) as error:  # no libEGL; no driver; a library that does not load
            if pixels:
                raise no_gl(error) from error
            _import_error = error
            os.environ["MUJOCO_GL"] = "disable"
            suite = _import()
    return suite


def _import() -> ModuleType:
    importlib.import_module("mujoco")
    return importlib.import_module("dm_control.suite")


def context_class() -> type[GLContext]:
    """The class of OpenGL contexts that MUJOCO_GL names, even if mujoco was imported before that was set."""
    if os.environ.get("MUJOCO_GL") == "egl":
        return importlib.import_module("mujoco.egl").GLContext
    found = getattr(importlib.import_module("mujoco"), "GLContext", None)
    if found is None:
        raise no_gl(_import_error or "it turns OpenGL off") from _import_error
    return found


class Renderer:
    """Draws square images of one model through one camera. To be used and closed by the thread that made it.

    Once it has drawn, dm_control's own `physics.render` in that thread draws into the wrong OpenGL context.

    `canonical` gives the pixels of `physics.render(size, size, camera_id)`. `smooth` has no shadows and reflections,
    `fast` multisampling as well: without a GPU these take nine tenths of the time.

    Raises:
      RuntimeError: no OpenGL context can be made.
    """

    def __init__(self, model: mujoco.MjModel, size: int, camera_id: int, quality: RenderQuality) -> None:
        import mujoco
        from dm_control.mujoco import wrapper  # its options and its estimate of visible geoms are those of the suite

        self._mujoco = mujoco
        self._model = model
        self._rect = mujoco.MjrRect(0, 0, size, size)
        self._image = np.empty((size, size, 3), np.uint8)
        self._option = wrapper.MjvOption()
        self._perturb = wrapper.MjvPerturb()
        self._scene = wrapper.MjvScene(wrapper.MjModel(model))
        self._camera = wrapper.MjvCamera()
        self._camera.fixedcamid = camera_id
        if camera_id == -1:
            self._camera.type = mujoco.mjtCamera.mjCAMERA_FREE
            mujoco.mjv_defaultFreeCamera(self._model, self._camera)
        else:
            self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        if quality != "canonical":
            self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
            self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        self._gl: GLContext | None
        self._gl, self._context = self._make_context(size, quality)
        # mujoco ends EGL at exit, and a context freed after that prints a traceback: be earlier (last in, first out).
        self._at_exit = functools.partial(_close, weakref.ref(self))
        atexit.register(self._at_exit)

    def _make_context(self, size: int, quality: RenderQuality) -> tuple[GLContext, mujoco.MjrContext]:
        """An OpenGL context with a size x size buffer. The model's own settings are put back: they are not ours."""
        mujoco, vis = self._mujoco, self._model.vis
        width, height, samples = vis.global_.offwidth, vis.global_.offheight, vis.quality.offsamples
        vis.global_.offwidth = vis.global_.offheight = size
        vis.quality.offsamples = 0 if quality == "fast" else samples
        try:
            with _lock:
                gl = context_class()(size, size)
                gl.make_current()
                context = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_150)
        except Exception as error:  # EGL, PyOpenGL and mujoco each raise types of their own
            raise no_gl(error) from error
        finally:
            vis.global_.offwidth, vis.global_.offheight, vis.quality.offsamples = width, height, samples
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
        return gl, context

    def upload_terrain(self) -> None:
        """Hands the model's height fields to OpenGL, which keeps a copy: needed where an episode draws new terrain."""
        self._make_current()
        for hfield in range(self._model.nhfield):
            self._mujoco.mjr_uploadHField(self._model, self._context, hfield)

    def _make_current(self) -> None:
        if self._gl is None:
            raise RuntimeError("This renderer is closed: make a new one.")
        self._gl.make_current()

    def render(self, data: mujoco.MjData) -> UInt8[np.ndarray, "size size 3"]:
        """Draws the current state, top row first, into a new array."""
        mujoco = self._mujoco
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(self._model, data, self._option, self._perturb, self._camera, everything, self._scene)
        self._make_current()
        mujoco.mjr_render(self._rect, self._scene, self._context)
        mujoco.mjr_readPixels(self._image, None, self._rect, self._context)
        return np.ascontiguousarray(self._image[::-1])

    def segment(self, data: mujoco.MjData) -> Int32[np.ndarray, "size size 2"]:
        """What each pixel shows: MuJoCo's object type and the object's number; -1 for nothing. For `fast` renderers."""
        flags = [int(self._mujoco.mjtRndFlag.mjRND_SEGMENT), int(self._mujoco.mjtRndFlag.mjRND_IDCOLOR)]
        self._scene.flags[flags] = True
        colours = self.render(data).astype(np.int32)
        self._scene.flags[flags] = False
        shown = [self._scene.geoms[i] for i in range(self._scene.ngeom)]
        labels = np.full((len(shown) + 1, 2), -1, np.int32)
        for geom in shown:
            labels[geom.segid + 1] = geom.objtype, geom.objid
        return labels[colours[..., 0] + (colours[..., 1] << 8) + (colours[..., 2] << 16)]

    def close(self) -> None:
        """Frees the OpenGL context; safe to call twice."""
        if self._gl is not None:
            self._gl.make_current()
            self._context.free()
            self._gl.free()
            self._gl = None
            atexit.unregister(self._at_exit)


def _close(reference: weakref.ref[Renderer]) -> None:
    renderer = reference()
    if renderer is not None:
        renderer.close()
