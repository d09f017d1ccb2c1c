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
        self._batch, self.task = batch, env.task
        self.named, self.model = env.physics.named.model, env.physics.model
        self.constant: dict[str, Any] = vars(sys.modules[type(env.task).__module__])

    def bind(self, *names: str) -> list[np.ndarray]:
        """Fields of all simulations, each [lanes, ...], that are always as the newest step left them."""
        return [self._batch.bind(name) for name in names]

    def sensors(self, *names: str) -> Callable[[], np.ndarray]:
        """Reads sensors, side by side."""
        (readings,), found = self.bind("sensordata"), [self.model.sensor(name) for name in names]
        places = [place for each in found for place in range(each.adr[0], each.adr[0] + each.dim[0])]
        return lambda: readings[:, places]


def make_rules(batch: Batch, env: Environment, domain: str) -> Rules:
    """The rules of a task of one of `DOMAINS`; `env` was reset, for tasks set sizes of their targets then."""
    return DOMAINS[domain](Parts(batch, env))


def _cheetah(parts: Parts) -> Rules:
    qpos, qvel = parts.bind("qpos", "qvel")
    velocity, fastest = parts.sensors("torso_subtreelinvel"), parts.constant["_RUN_SPEED"]

    def reward() -> np.ndarray:
        return _linear(velocity()[:, 0], fastest, margin=fastest, value_at_margin=0)

    return Rules(lambda: [qpos[:, 1:], qvel], reward)


def _walker(parts: Parts) -> Rules:
    xpos, xmat, qvel = parts.bind("xpos", "xmat", "qvel")
    torso, velocity = parts.model.body("torso").id, parts.sensors("torso_subtreelinvel")
    high, wanted = parts.constant["_STAND_HEIGHT"], parts.task._move_speed

    def reward() -> np.ndarray:
        standing = _gaussian(xpos[:, torso, 2], high, np.inf, margin=high / 2)
        stand = (3 * standing + (1 + xmat[:, torso, ZZ]) / 2) / 4
        if wanted == 0:
            return stand
        return stand * (5 * _linear(velocity()[:, 0], wanted, margin=wanted / 2, value_at_margin=0.5) + 1) / 6

    return Rules(lambda: [xmat[:, 1:, [XX, XZ]], xpos[:, torso, 2], qvel], reward)


def _cartpole(parts: Parts) -> Rules:
    qpos, qvel, xmat, ctrl = parts.bind("qpos", "qvel", "xmat", "ctrl")
    task, tolerance = parts.task, _tolerance()

    def sparse() -> np.ndarray:
        upright = tolerance(xmat[:, 2:, ZZ], task._ANGLE_COSINE_RANGE).prod(axis=1)
        return tolerance(qpos[:, 0], task._CART_RANGE) * upright

    def smooth() -> np.ndarray:
        upright = (xmat[:, 2:, ZZ] + 1) / 2
        centred = (1 + _gaussian(qpos[:, 0], 0.0, 0.0, margin=2)) / 2
        gentle = (4 + tolerance(ctrl, margin=1, value_at_margin=0, sigmoid="quadratic")[:, 0]) / 5
        slow = (1 + tolerance(qvel[:, 1:], margin=5).min(axis=1)) / 2
        return upright.mean(axis=1) * gentle * slow * centred

    return Rules(lambda: [qpos[:, 0], xmat[:, 2:, [ZZ, XZ]], qvel], sparse if task._sparse else smooth)


def _reacher(parts: Parts) -> Rules:
    qpos, qvel, places = parts.bind("qpos", "qvel", "geom_xpos")
    target, finger = parts.model.geom("target").id, parts.model.geom("finger").id
    touch, tolerance = parts.named.geom_size[["target", "finger"], 0].sum(), _tolerance()

    def to_target() -> np.ndarray:
        return places[:, target, :2] - places[:, finger, :2]

    return Rules(lambda: [qpos, to_target(), qvel], lambda: tolerance(_length(to_target()), (0, touch)))


def _finger(parts: Parts) -> Rules:
    turn, fast = hasattr(parts.task, "_target_radius"), parts.constant["_SPIN_VELOCITY"]
    size = parts.named.site_size["target", 0]
    hinge, tip, target = (parts.sensors(name) for name in ("spinner", "tip", "target"))
    angles, touch = parts.sensors("proximal", "distal"), parts.sensors("touchtop", "touchbottom")
    speeds = parts.sensors("proximal_velocity", "distal_velocity", "hinge_velocity")

    def from_hinge(place: Callable[[], np.ndarray]) -> np.ndarray:
        return place()[:, SIDE] - hinge()[:, SIDE]

    def to_surface() -> np.ndarray:
        return _length(from_hinge(target) - from_hinge(tip)) - size

    def observe() -> list[np.ndarray]:
        entries = [angles(), from_hinge(tip), speeds(), np.log1p(touch())]
        return [*entries, from_hinge(target), to_surface()] if turn else entries

    def reward() -> np.ndarray:
        return (to_surface() <= 0 if turn else speeds()[:, 2] <= -fast).astype(np.float64)

    return Rules(observe, reward)


def _hopper(parts: Parts) -> Rules:
    qpos, qvel, xipos, ctrl = parts.bind("qpos", "qvel", "xipos", "ctrl")
    torso, foot = parts.model.body("torso").id, parts.model.body("foot").id
    velocity, touch = parts.sensors("torso_subtreelinvel"), parts.sensors("touch_toe", "touch_heel")
    high, fast, tolerance = parts.constant["_STAND_HEIGHT"], parts.constant["_HOP_SPEED"], _tolerance()

    def reward() -> np.ndarray:
        standing = tolerance(xipos[:, torso, 2] - xipos[:, foot, 2], (high, 2))
        if parts.task._hopping:
            return standing * _linear(velocity()[:, 0], fast, margin=fast / 2, value_at_margin=0.5)
        gentle = tolerance(ctrl, margin=1, value_at_margin=0, sigmoid="quadratic").mean(axis=1)
        return standing * ((gentle + 4) / 5)

    return Rules(lambda: [qpos[:, 1:], qvel, np.log1p(touch())], reward)


def _pendulum(parts: Parts) -> Rules:
    (xmat, qvel), pole = parts.bind("xmat", "qvel"), parts.model.body("pole").id
    upright, tolerance = parts.constant["_COSINE_BOUND"], _tolerance()
    return Rules(lambda: [xmat[:, pole, [ZZ, XZ]], qvel], lambda: tolerance(xmat[:, pole, ZZ], (upright, 1)))


def _acrobot(parts: Parts) -> Rules:
    xmat, qvel, places = parts.bind("xmat", "qvel", "site_xpos")
    target, tip = parts.model.site("target").id, parts.model.site("tip").id
    arms = [parts.model.body(name).id for name in ("upper_arm", "lower_arm")]
    radius, tolerance = parts.named.site_size["target", 0], _tolerance()

    def reward() -> np.ndarray:
        away = _length(places[:, target] - places[:, tip])
        return tolerance(away, (0, radius)) if parts.task._sparse else _gaussian(away, 0, radius, margin=1)

    return Rules(lambda: [xmat[:, arms, XZ], xmat[:, arms, ZZ], qvel], reward)


def _ball_in_cup(parts: Parts) -> Rules:
    qpos, qvel, sites, bodies = parts.bind("qpos", "qvel", "site_xpos", "xpos")
    target, ball = parts.model.site("target").id, parts.model.body("ball").id
    room = parts.named.site_size["target", SIDE] - parts.named.geom_size["ball", 0]

    def reward() -> np.ndarray:
        return (abs(sites[:, target, SIDE] - bodies[:, ball, SIDE]) < room).all(axis=1).astype(np.float64)

    return Rules(lambda: [qpos, qvel], reward)


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
    x = np.ascontiguousarray(x)
    return np.sqrt(np.vecdot(x, x))
