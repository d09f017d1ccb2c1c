"""One suite model under MJX, MuJoCo's own JAX implementation, stepped and looked at as dm_control does it.

dm_control ends a step with `mj_step1` (its "legacy step"): what it observes of positions and velocities belongs to the
new state, what it feels of contact forces to the last substep. So a state carries the few numbers that a step starts
from, and the felt forces; everything else is derived from them, twice: by `mjx.step`, and by `kinematics`.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, Key

from envs.mujoco import gl

if TYPE_CHECKING:
    from types import ModuleType

    import mujoco
    from mujoco import mjx

# Evaluations of a line search. The suite's models allow 50, which MuJoCo leaves as soon as one is good enough, but
# under vmap every lane pays for all that are allowed. With 6, 8 or 10 next states were those of 50.
LINE_SEARCH = 8
CONTROL_STEPS = 1000  # of an episode: every time limit here over its control timestep


@struct.dataclass
class State:
    """What the next step depends on, and what cannot be derived from it. SI units and radians.

    `warmstart` is the solver's first guess at the accelerations; `felt` are the readings of the sensors that need
    forces, from the last substep; `target` is where this episode has it, in the task's own plane (empty for a task
    without one). Time is `steps`, in control steps: nothing here depends on the simulation's own clock.
    """

    qpos: Float32[Array, " nq"]
    qvel: Float32[Array, " nv"]
    warmstart: Float32[Array, " nv"]
    felt: Float32[Array, " felt"]
    target: Float32[Array, " target"]
    steps: Int32[Array, ""]


class Physics(NamedTuple):
    """A task's model. Static.

    host: the `mujoco.MjModel`, as dm_control leaves it after one reset of the task.
    model, blank: the same as `mjx.Model`, and an empty `mjx.Data`.
    substeps: physics steps per control step.
    felt: the places in `sensordata` of the sensors that need forces.
    """

    host: mujoco.MjModel
    model: mjx.Model
    blank: mjx.Data
    substeps: int
    felt: Int[np.ndarray, " felt"]

    def start(self, qpos: Float[Array, " nq"], target: Float[Array, " target"] | None = None) -> State:
        """The state at rest at these joint positions, before anything was felt."""
        still = jnp.zeros(self.host.nv, jnp.float32)
        target = jnp.zeros(0) if target is None else target
        felt = jnp.zeros(len(self.felt), jnp.float32)
        return State(jnp.asarray(qpos, jnp.float32), still, still, felt, jnp.asarray(target, jnp.float32), jnp.int32(0))


class Task(NamedTuple):
    """The rules of one task over one `Physics`. `data` is what `kinematics` gives.

    start(key): the state in which an episode starts, distributed as in the suite, with what is felt there.
    observe(data): all entries of the suite's observation, in its order, float32 [features].
    reward(data): of one control step, in [0, 1].
    place(model, target): the `mjx.Model` with the episode's target where it belongs.
    """

    start: Callable[[Key[Array, ""]], State]
    observe: Callable[[mjx.Data], Float32[Array, " features"]]
    reward: Callable[[mjx.Data], Float32[Array, ""]]
    place: Callable[[mjx.Model, Float32[Array, " target"]], mjx.Model] = lambda model, target: model


class Domain(NamedTuple):
    """A domain of the suite: its tasks, how to make one, and the geoms whose collisions are left out (see there)."""

    tasks: tuple[str, ...]
    make: Callable[[Physics, str], Task]
    untouched: tuple[str, ...] = ()


def import_mjx() -> ModuleType:
    """`mujoco.mjx`, without the lines that it prints where the optional Warp is not installed."""
    gl.import_suite(pixels=False)  # decides on OpenGL, which must be before mujoco is imported
    with contextlib.redirect_stdout(io.StringIO()):
        return importlib.import_module("mujoco.mjx")


def load(domain: str, task: str, untouched: tuple[str, ...]) -> Physics:
    """Builds the `Physics` of one task from the installed dm_control. Takes seconds."""
    suite, mjx = gl.import_suite(pixels=False), import_mjx()
    import mujoco

    env = suite.load(domain, task, task_kwargs={"random": 0})
    env.reset()  # sets sizes, colours and damping of the task
    host = env.physics.model.ptr
    host.opt.enableflags &= ~int(mujoco.mjtEnableBit.mjENBL_ENERGY)  # not in MJX, and moves nothing
    if host.opt.disableflags & int(mujoco.mjtDisableBit.mjDSBL_CONSTRAINT):  # then collisions are found for nothing
        host.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_CONTACT)
    for name in untouched:
        geom = host.geom(name).id
        host.geom_contype[geom] = host.geom_conaffinity[geom] = 0
    host.opt.ls_iterations = min(host.opt.ls_iterations, LINE_SEARCH)
    needs_forces = host.sensor_needstage == int(mujoco.mjtStage.mjSTAGE_ACC)
    spans = zip(host.sensor_adr[needs_forces], host.sensor_dim[needs_forces])
    felt = [place for first, size in spans for place in range(first, first + size)]
    return Physics(
        host=host,
        model=mjx.put_model(host, impl="jax"),
        blank=mjx.make_data(host, impl="jax"),
        substeps=env._n_sub_steps,
        felt=np.asarray(felt, np.int32),
    )


def advance(physics: Physics, state: State, control: Float[Array, " controls"], times: int | None = None) -> State:
    """The state after `times` physics steps (by default, one control step) with this control held."""
    mjx = import_mjx()

    def substep(_: int | Array, state: State) -> State:
        data = mjx.step(physics.model, _data(physics, state, control))
        return replace(
            state, qpos=data.qpos, qvel=data.qvel, warmstart=data.qacc_warmstart, felt=data.sensordata[physics.felt]
        )

    times = physics.substeps if times is None else times
    return substep(0, state) if times == 1 else jax.lax.fori_loop(0, times, substep, state)


def kinematics(physics: Physics, task: Task, state: State, control: Float[Array, " controls"]) -> mjx.Data:
    """The `mjx.Data` of a state with everything that its position and velocity decide about what can be seen.

    These are the poses of bodies, geoms, sites, cameras and lights, the tendons' paths, and the sensors. XLA drops what
    is not used of them.
    """
    mjx = import_mjx()
    model = task.place(physics.model, state.target)
    data = _data(physics, state, control)
    data = data.replace(sensordata=data.sensordata.at[physics.felt].set(state.felt))
    for stage in (mjx.kinematics, mjx.com_pos, mjx.camlight, mjx.tendon, mjx.sensor_pos, mjx.com_vel, mjx.sensor_vel):
        data = stage(model, data)
    return data


def feel(physics: Physics, state: State) -> State:
    """The same state with what its force sensors read when nothing is controlled, as after a reset of dm_control."""
    data = import_mjx().forward(physics.model, _data(physics, state, jnp.zeros(physics.host.nu)))
    return replace(state, felt=data.sensordata[physics.felt])


def touching(physics: Physics, qpos: Float32[Array, " nq"]) -> Bool[Array, ""]:
    """Whether any two geoms touch at these joint positions."""
    mjx = import_mjx()
    data = mjx.collision(physics.model, mjx.kinematics(physics.model, physics.blank.replace(qpos=qpos)))
    contact = data._impl.contact
    return jnp.any(contact.dist < contact.includemargin)


def untouching(
    physics: Physics, draw: Callable[[Key[Array, ""]], Float32[Array, " nq"]], key: Key[Array, ""]
) -> Float32[Array, " nq"]:
    """The first of the joint positions drawn at which nothing touches; the thousandth, if that is not found before."""

    def again(tried: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        count, key, _ = tried
        key, use = jax.random.split(key)
        return count + 1, key, draw(use)

    def unlucky(tried: tuple[Array, Array, Array]) -> Array:
        return touching(physics, tried[2]) & (tried[0] < 1000)

    return jax.lax.while_loop(unlucky, again, again((jnp.int32(0), key, jnp.zeros(physics.host.nq))))[2]


def random_joints(physics: Physics, *, unlimited: bool = True) -> Callable[[Key[Array, ""]], Float32[Array, " nq"]]:
    """Draws joint positions as the suite does: uniform within limits, and over the circle for hinges without any.

    Slides without limits, and with `unlimited=False` hinges without, stay where the model has them. The models here
    have no ball and no free joints.
    """
    import mujoco

    host = physics.host
    assert host.nq == host.njnt
    limited = host.jnt_limited.astype(bool)
    turns = ~limited & (host.jnt_type == int(mujoco.mjtJoint.mjJNT_HINGE)) & unlimited
    low = np.where(limited, host.jnt_range[:, 0], np.where(turns, -math.pi, host.qpos0)).astype(np.float32)
    high = np.where(limited, host.jnt_range[:, 1], np.where(turns, math.pi, host.qpos0)).astype(np.float32)

    def draw(key: Key[Array, ""]) -> Float32[Array, " nq"]:
        return jnp.asarray(low) + (high - low) * jax.random.uniform(key, low.shape, jnp.float32)

    return draw


def _data(physics: Physics, state: State, control: Float[Array, " controls"]) -> mjx.Data:
    return physics.blank.replace(
        qpos=state.qpos, qvel=state.qvel, qacc_warmstart=state.warmstart, ctrl=jnp.asarray(control, jnp.float32)
    )
