"""The dm_control suite (Tassa et al. 2018, arXiv:1801.00690) behind the host environment contract.

Episodes last 1000 control steps and are truncated, never terminated (but for the LQR). Actions are in [-1, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from envs.dmc.together import DmcTogether, check_together
from envs.episodes import action_limits
from envs.mujoco import gl
from envs.mujoco.base import MujocoEnv, MujocoSettings, RendererName
from envs.render.drawing import Drawing
from envs.render.scenery import make_scenery
from envs.types import ArraySpec, EnvSpec, HostKind, MakeTogether, observe
from settings import setting

if TYPE_CHECKING:
    import dm_env
    import dm_env.specs
    import mujoco
    from jaxtyping import Float, Float32

ENDLESS_STEPS = 1000  # control steps for the tasks that the suite gives no time limit (lqr): what all others have


@dataclass(frozen=True)
class DmcSettings(MujocoSettings):
    """How a task of the suite is seen. States are all entries of its observation, in the suite's order.

    The usual camera is 0, and 2 for the quadruped, as in DrQ-v2. Images of `canonical` quality look like dm_control's
    own, with `gl` bit for bit.
    """

    action_repeat: int = setting(2, "control steps for which an action is held", least=1)
    renderer: RendererName = setting(
        "jax", "jax: draws on the device, without OpenGL, but no meshes; gl: MuJoCo's own, on the host"
    )


def check(name: str, settings: DmcSettings) -> None:
    """RuntimeError for pixels with `gl` where there is no OpenGL."""
    gl.import_suite(pixels=settings.pixels and settings.renderer == "gl")


def task_names() -> list[str]:
    """The names of all tasks of the suite: domain and task, joined by an underscore, such as `ball_in_cup_catch`."""
    return list(_tasks())


def _tasks() -> dict[str, tuple[str, str]]:
    """(domain, task) of each name, from the suite's own list: both parts may hold underscores themselves."""
    return {f"{domain}_{task}": (domain, task) for domain, task in gl.import_suite(pixels=False).ALL_TASKS}


class DmcEnv(MujocoEnv["dm_env.TimeStep"]):
    """One task of the suite. An episode is a function of its seed and its actions alone.

    `begun`: an episode was started since `DmcTogether`, if there is one, last took over.

    Raises:
      ValueError: a camera that the model does not have, or pixels of a task that `jax` does not draw.
      RuntimeError: pixels with `gl`, and no OpenGL.
    """

    def __init__(self, name: str, settings: DmcSettings) -> None:
        suite = gl.import_suite(pixels=settings.pixels and settings.renderer == "gl")
        domain, task = _tasks()[name]
        self.domain, self.begun = domain, False
        # The LQR draws its masses and springs when it is loaded: a fixed seed gives every lane the same system.
        self._env = suite.load(domain, task, task_kwargs={"random": 0})
        self._physics = self._env.physics
        self._keep_out_contexts()
        if self._env._step_limit == math.inf:
            self._env._step_limit = ENDLESS_STEPS
        camera = (2 if domain == "quadruped" else 0) if settings.camera_id is None else settings.camera_id
        if camera >= self._physics.model.ncam:
            last = self._physics.model.ncam - 1
            raise ValueError(f"env.camera_id must be a camera of {name}, from -1 to {last}, got {camera}")
        drawing = self._make_drawing(name, camera, settings) if settings.renderer == "jax" else None
        self._draw_with(settings, camera, drawing)
        actions: dm_env.specs.BoundedArray = self._env.action_spec()
        self._act_within(*action_limits(name, actions.minimum, actions.maximum))
        spec = self._describe(name, settings)
        self.spec = self._with_pixels(spec) if settings.pixels else spec
        if settings.pixels and drawing is None:
            self._renderer(self._size)

    def _make_drawing(self, name: str, camera: int, settings: DmcSettings) -> Drawing | None:
        self._env.reset()  # tasks set sizes and colours of their targets when an episode starts
        try:
            return Drawing(make_scenery(self._physics.model.ptr, camera, name), settings.render_quality)
        except ValueError as error:
            if settings.pixels:
                raise
            self._no_picture = error  # states need none, unless for a video
            return None

    def _keep_out_contexts(self) -> None:
        """Stops `quadruped_escape` from opening dm_control's own renderer, to which it would upload its terrain."""
        self._physics._make_rendering_contexts = lambda: None

    def _describe(self, name: str, settings: DmcSettings) -> EnvSpec:
        shapes = [entry.shape for entry in self._env.observation_spec().values()]
        return EnvSpec(
            name=name,
            scene=ArraySpec((sum(math.prod(shape) for shape in shapes),), np.dtype(np.float32)),
            observe=observe,
            draw=self._drawing,
            action_dim=self._env.action_spec().shape[0],
            action_repeat=settings.action_repeat,
            episode_steps=math.ceil(math.ceil(self._env._step_limit) / settings.action_repeat),
            pixels=settings.pixels,
        )

    def _model(self) -> mujoco.MjModel:
        return self._physics.model.ptr

    def _simulation(self) -> mujoco.MjData:
        return self._physics.data.ptr

    def _states(self) -> Float32[np.ndarray, " features"]:
        assert self._observation is not None
        entries = self._observation.observation.values()
        return np.concatenate([np.ravel(entry) for entry in entries]).astype(np.float32)

    def _start(self, seed: int) -> None:
        self.begun = True
        self._env.task.random.seed(seed)
        self._observation = self._env.reset()
        for renderer in self._renderers.values():
            renderer.upload_terrain()

    def _refuse_infinite(self, action: Float32[np.ndarray, " actions"]) -> None:
        """Leaves it to dm_control, which raises a PhysicsError."""

    def _frame(self, control: Float[np.ndarray, " actions"]) -> tuple[float, bool, bool]:
        self._observation = step = self._env.step(control)
        return float(step.reward), step.last() and step.discount == 0, step.last() and step.discount != 0


def together(name: str) -> MakeTogether:
    """What steps many environments of this task at once. ValueError for a task whose rules stand for one alone."""
    check_together(name, _tasks()[name][0])
    return DmcTogether


KIND = HostKind(
    "dmc",
    DmcEnv,
    DmcSettings,
    check=check,
    together=together,
    tasks=task_names,
    packages=("mujoco", "dm_control"),
    backends=(("mujoco", "dmc"), ("mjx", "mjx")),
)
