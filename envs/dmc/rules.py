"""Observations and rewards of many simulations at once, as the suite's own tasks compute them of one, bit for bit.

Every formula is the suite's in the suite's order. numpy rounds alike for one number and for many, but for two things:
the square of a single number is `pow`, and the length of a vector is a BLAS dot product (`_squared`, `_length`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from dm_control.rl.control import Environment
    from mujoco.batch import Batch

XX, XZ, ZZ = 0, 2, 8  # places in a rotation matrix of nine numbers
SIDE = [0, 2]  # x and z, of tasks in a plane


class Rules(NamedTuple):
    """What a task makes of a batch of its simulations.

    observe(): the entries of the suite's observation, in its order, each [lanes, ...].
    reward(): of one control step, float64 [lanes].
    """

    observe: Callable[[], list[np.ndarray]]
    reward: Callable[[], np.ndarray]


class Parts:
    """What the formulas read: a batch, the model and task of one of its environments, and the domain's constants."""

    def __init__(self, batch: Batch, env: Environment) -> None:
        self.batch, self.task = batch, env.task
        self.named, self.model = env.physics.named.model, env.physics.model
        self.constant: dict[str, Any] = vars(sys.modules[type(env.task).__module__])

    def sensor(self, name: str) -> slice:
        """The places of a sensor's readings."""
        first, size = self.model.sensor(name).adr[0], self.model.sensor(name).dim[0]
        return slice(int(first), int(first + size))

    def read(self, *names: str) -> np.ndarray:
        """What these sensors read, side by side."""
        return np.concatenate([self.batch.sensordata[:, self.sensor(name)] for name in names], axis=1)


def make_rules(batch: Batch, env: Environment, domain: str) -> Rules:
    """The rules of a task of one of `DOMAINS`; `env` was reset, for tasks set sizes of their targets then."""
    return DOMAINS[domain](Parts(batch, env))


def _cheetah(parts: Parts) -> Rules:
    batch, fastest = parts.batch, parts.constant["_RUN_SPEED"]
    forward = parts.sensor("torso_subtreelinvel").start

    def reward() -> np.ndarray:
        return _linear(batch.sensordata[:, forward], fastest, margin=fastest, value_at_margin=0)

    return Rules(lambda: [batch.qpos[:, 1:], batch.qvel], reward)


def _walker(parts: Parts) -> Rules:
    batch, torso = parts.batch, parts.model.body("torso").id
    forward, wanted, high = (
        parts.sensor("torso_subtreelinvel").start,
        parts.task._move_speed,
        parts.constant["_STAND_HEIGHT"],
    )

    def observe() -> list[np.ndarray]:
        return [batch.xmat[:, 1:, [XX, XZ]], batch.xpos[:, torso, 2], batch.qvel]

    def reward() -> np.ndarray:
        standing = _gaussian(batch.xpos[:, torso, 2], high, np.inf, margin=high / 2)
        stand = (3 * standing + (1 + batch.xmat[:, torso, ZZ]) / 2) / 4
        if wanted == 0:
            return stand
        return stand * (5 * _linear(batch.sensordata[:, forward], wanted, wanted / 2, value_at_margin=0.5) + 1) / 6

    return Rules(observe, reward)


def _cartpole(parts: Parts) -> Rules:
    batch, task = parts.batch, parts.task
    tolerance = _tolerance()

    def observe() -> list[np.ndarray]:
        return [batch.qpos[:, 0], batch.xmat[:, 2:, [ZZ, XZ]], batch.qvel]

    def sparse() -> np.ndarray:
        upright = tolerance(batch.xmat[:, 2:, ZZ], task._ANGLE_COSINE_RANGE).prod(axis=1)
        return tolerance(batch.qpos[:, 0], task._CART_RANGE) * upright

    def smooth() -> np.ndarray:
        upright = (batch.xmat[:, 2:, ZZ] + 1) / 2
        centred = (1 + _gaussian(batch.qpos[:, 0], 0.0, 0.0, margin=2)) / 2
        gentle = (4 + tolerance(batch.ctrl, margin=1, value_at_margin=0, sigmoid="quadratic")[:, 0]) / 5
        slow = (1 + tolerance(batch.qvel[:, 1:], margin=5).min(axis=1)) / 2
        return upright.mean(axis=1) * gentle * slow * centred

    return Rules(observe, sparse if task._sparse else smooth)


def _reacher(parts: Parts) -> Rules:
    batch, target, finger = parts.batch, parts.model.geom("target").id, parts.model.geom("finger").id
    touch = parts.named.geom_size[["target", "finger"], 0].sum()
    tolerance = _tolerance()

    def to_target() -> np.ndarray:
        return batch.geom_xpos[:, target, :2] - batch.geom_xpos[:, finger, :2]

    def reward() -> np.ndarray:
        return tolerance(_length(to_target()), (0, touch))

    return Rules(lambda: [batch.qpos, to_target(), batch.qvel], reward)


def _finger(parts: Parts) -> Rules:
    read, turn = parts.read, hasattr(parts.task, "_target_radius")
    size, fast = parts.named.site_size["target", 0], parts.constant["_SPIN_VELOCITY"]

    def from_hinge(name: str) -> np.ndarray:
        return read(name)[:, SIDE] - read("spinner")[:, SIDE]

    def to_surface() -> np.ndarray:
        return _length(from_hinge("target") - from_hinge("tip")) - size

    def observe() -> list[np.ndarray]:
        speeds = read("proximal_velocity", "distal_velocity", "hinge_velocity")
        entries = [read("proximal", "distal"), from_hinge("tip"), speeds, np.log1p(read("touchtop", "touchbottom"))]
        return [*entries, from_hinge("target"), to_surface()] if turn else entries

    def reward() -> np.ndarray:
        return (to_surface() <= 0 if turn else read("hinge_velocity")[:, 0] <= -fast).astype(np.float64)

    return Rules(observe, reward)


def _hopper(parts: Parts) -> Rules:
    batch, torso, foot = parts.batch, parts.model.body("torso").id, parts.model.body("foot").id
    forward = parts.sensor("torso_subtreelinvel").start
    high, fast = parts.constant["_STAND_HEIGHT"], parts.constant["_HOP_SPEED"]
    tolerance = _tolerance()

    def observe() -> list[np.ndarray]:
        return [batch.qpos[:, 1:], batch.qvel, np.log1p(parts.read("touch_toe", "touch_heel"))]

    def reward() -> np.ndarray:
        standing = tolerance(batch.xipos[:, torso, 2] - batch.xipos[:, foot, 2], (high, 2))
        if parts.task._hopping:
            return standing * _linear(batch.sensordata[:, forward], fast, fast / 2, value_at_margin=0.5)
        gentle = tolerance(batch.ctrl, margin=1, value_at_margin=0, sigmoid="quadratic").mean(axis=1)
        return standing * ((gentle + 4) / 5)

    return Rules(observe, reward)


def _pendulum(parts: Parts) -> Rules:
    batch, pole = parts.batch, parts.model.body("pole").id
    upright, tolerance = parts.constant["_COSINE_BOUND"], _tolerance()

    def observe() -> list[np.ndarray]:
        return [batch.xmat[:, pole, [ZZ, XZ]], batch.qvel]

    return Rules(observe, lambda: tolerance(batch.xmat[:, pole, ZZ], (upright, 1)))


def _acrobot(parts: Parts) -> Rules:
    batch, target, tip = parts.batch, parts.model.site("target").id, parts.model.site("tip").id
    arms = [parts.model.body(name).id for name in ("upper_arm", "lower_arm")]
    radius, tolerance = parts.named.site_size["target", 0], _tolerance()

    def observe() -> list[np.ndarray]:
        return [batch.xmat[:, arms, XZ], batch.xmat[:, arms, ZZ], batch.qvel]

    def reward() -> np.ndarray:
        away = _length(batch.site_xpos[:, target] - batch.site_xpos[:, tip])
        return tolerance(away, (0, radius)) if parts.task._sparse else _gaussian(away, 0, radius, margin=1)

    return Rules(observe, reward)


def _ball_in_cup(parts: Parts) -> Rules:
    batch, target, ball = parts.batch, parts.model.site("target").id, parts.model.body("ball").id
    room = parts.named.site_size["target", SIDE] - parts.named.geom_size["ball", 0]

    def reward() -> np.ndarray:
        away = abs(batch.site_xpos[:, target, SIDE] - batch.xpos[:, ball, SIDE])
        return (away < room).all(axis=1).astype(np.float64)

    return Rules(lambda: [batch.qpos, batch.qvel], reward)


DOMAINS: dict[str, Callable[[Parts], Rules]] = {
    "acrobot": _acrobot,
    "ball_in_cup": _ball_in_cup,
    "cartpole": _cartpole,
    "cheetah": _cheetah,
    "finger": _finger,
    "hopper": _hopper,
    "pendulum": _pendulum,
    "reacher": _reacher,
    "walker": _walker,
}
"""The domains whose rules stand here. None of their tasks ends before its time limit."""


def _tolerance() -> Callable[..., np.ndarray]:
    """The suite's own. It takes arrays, and is exact for them but for squares of what the suite has one by one."""
    from dm_control.utils.rewards import tolerance

    return tolerance


def _linear(x: np.ndarray, low: float, margin: float, value_at_margin: float) -> np.ndarray:
    """The suite's tolerance without an upper end, which falls off evenly."""
    return _tolerance()(x, (low, np.inf), margin, "linear", value_at_margin)


def _gaussian(x: np.ndarray, low: float, high: float, margin: float) -> np.ndarray:
    """The suite's tolerance with its usual sigmoid, of numbers that the suite has one by one."""
    away = np.where(x < low, low - x, x - high) / margin
    falling = np.exp(-0.5 * _squared(away * np.sqrt(-2 * np.log(0.1))))
    return np.where(np.logical_and(low <= x, x <= high), 1.0, falling)


def _squared(x: np.ndarray) -> np.ndarray:
    """Each number's square as numpy has it of that number alone: sometimes another last bit than in an array."""
    return np.array([each**2 for each in x.tolist()])


def _length(x: np.ndarray) -> np.ndarray:
    """Each vector's length as `np.linalg.norm` has it of that vector alone."""
    return np.sqrt(np.vecdot(x, x))
