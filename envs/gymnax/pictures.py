"""Pictures of gymnax's tasks with continuous actions: what to keep of a state, and how to draw it.

Each task has a `picture(state, params)`, the few floats that its picture needs, and a `draw(picture, size)`, an image
uint8 [size, size, 3]. They show all that a task needs but its velocities, which take two images to see, and are made
for 84 by 84 pixels and still readable at 32 by 32. What params can change, but gymnax's tasks do not change, is drawn
as it is by default.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, UInt8

from envs.render import raster
from envs.render.raster import Canvas, Distance, Scalar, maximum, minimum

WHITE, BLACK, GREY = (255, 255, 255), (0, 0, 0), (128, 128, 128)
ROD = (204, 77, 77)
FLAG = (204, 204, 0)
UPPER_ARM, FOREARM, HAND, TARGET = (0, 77, 115), (51, 153, 204), (20, 20, 40), (230, 51, 51)
WATER, URCHIN, SWIMMER, BUOY = (188, 222, 240), (64, 32, 80), (255, 120, 0), (0, 130, 60)
GOAL_DISC, ROBOT = (120, 180, 225), (220, 0, 0)


class TaskPicture(NamedTuple):
    """How one task is drawn. `floats` is the length of its picture."""

    floats: int
    picture: Callable[[Any, Any], Float32[Array, " floats"]]
    draw: Callable[[Float32[Array, " floats"], int], UInt8[Array, "size size 3"]]


def _floats(*parts: Any) -> Float32[Array, " floats"]:
    return jnp.concatenate([jnp.ravel(jnp.asarray(part, jnp.float32)) for part in parts])


def _inside(position: Any, center: tuple[float, float], reach: float) -> tuple[Array, Array]:
    """The point of the square around `center` that is nearest to `position`, so that a wanderer stays in sight."""
    x = minimum(maximum(position[0], center[0] - reach), center[0] + reach)
    y = minimum(maximum(position[1], center[1] - reach), center[1] + reach)
    return x, y


def pendulum_picture(state: Any, params: Any) -> Float32[Array, " 2"]:
    """The angle in radians, 0 upright and growing counterclockwise, and the last torque as a share of the greatest."""
    return _floats(state.theta, state.last_u / params.max_torque)


def draw_pendulum(picture: Float32[Array, " 2"], size: int) -> UInt8[Array, "size size 3"]:
    """A rod on an axle, with an arrow that turns as the torque does and grows with it; as gymnasium draws it."""
    canvas = raster.canvas(size, width=4.4)
    angle, torque = picture[0], picture[1]
    rod = raster.capsule(canvas, (0.0, 0.0), (-jnp.sin(angle), jnp.cos(angle)), 0.1)
    axle = raster.circle(canvas, (0.0, 0.0), canvas.at_least(0.05))
    return raster.paint(canvas, WHITE, [(rod, ROD), (minimum(axle, _torque_arrow(canvas, torque)), BLACK)])


def _torque_arrow(canvas: Canvas, torque: Scalar) -> Distance:
    """Three quarters of a ring, ending in a head at the bottom that points counterclockwise if the torque does so."""
    turn = jnp.where(torque < 0, -1.0, 1.0)
    radius = 0.5 * jnp.abs(torque)
    x, y = canvas.x * turn, canvas.y
    arc = raster.ring(canvas, (0.0, 0.0), radius, canvas.at_least(0.03))
    arc = maximum(arc, minimum(x, -y))
    # A triangle with its tip to the right of the arc's lower end, that shrinks as the ring does.
    head = maximum(-x, 0.6 * (x - 0.5 * radius) + 0.8 * jnp.abs(y + radius))
    return minimum(arc, head)


def car_picture(state: Any, params: Any) -> Float32[Array, " 4"]:
    """The position along the valley, in -1.2..0.6, the height there, and cosine and sine of the slope's angle.

    The last three follow from the first, but only the same floats give the same image to the last bit.
    """
    slope = 1.35 * jnp.cos(3 * state.position)
    cos = 1 / jnp.sqrt(1 + slope * slope)
    return _floats(state.position, _height(state.position), cos, slope * cos)


def draw_car(picture: Float32[Array, " 4"], size: int) -> UInt8[Array, "size size 3"]:
    """A car on the curve sin(3x) * 0.45 + 0.55, tilted by its slope, and a flag at 0.45. The car is twice as big as
    in gymnasium, so that little images show it too."""
    canvas = _valley_canvas(size)
    x, y, cos, sin = picture

    def on_car(along: float, up: float) -> tuple[Array, Array]:
        return x + along * cos - up * sin, y + along * sin + up * cos

    body = raster.box(canvas, on_car(0.0, 0.12), (0.12, 0.06), (cos, sin))
    wheels = minimum(*(raster.circle(canvas, on_car(along, 0.055), 0.05) for along in (-0.065, 0.065)))
    return raster.paint(canvas, _valley(size), [(body, BLACK), (wheels, GREY)])


def _height(x: Any) -> Any:
    return 0.45 * jnp.sin(3 * x) + 0.55


def _valley_canvas(size: int) -> Canvas:
    return raster.canvas(size, width=2.1, center=(-0.3, 0.65))


@functools.cache
def _valley(size: int) -> UInt8[np.ndarray, "size size 3"]:
    """What never moves: the curve and the flag."""
    canvas = _valley_canvas(size)
    line = canvas.at_least(0.008)
    with jax.ensure_compile_time_eval():
        xs = np.linspace(-1.2, 0.6, 37)
        curve = raster.polyline(canvas, [(float(x), float(_height(x))) for x in xs], line)
        foot = float(_height(0.45))
        pole = raster.capsule(canvas, (0.45, foot), (0.45, foot + 0.3), line)
        flag = raster.box(canvas, (0.51, foot + 0.26), (0.06, 0.05))
        return np.asarray(raster.paint(canvas, WHITE, [(curve, BLACK), (pole, BLACK), (flag, FLAG)]))


def reacher_picture(state: Any, params: Any) -> Float32[Array, " 4"]:
    """The angles of both links in radians, each measured from the x axis, and the goal's x and y, in -2..2."""
    return _floats(state.angles, state.goal_xy)


def draw_reacher(picture: Float32[Array, " 4"], size: int) -> UInt8[Array, "size size 3"]:
    """Two links of length 1 on a hub in the middle. The goal lies on top, smaller than the hand, so both are seen."""
    canvas = raster.canvas(size, width=4.5)
    cos, sin = jnp.cos(picture[:2]), jnp.sin(picture[:2])
    elbow, hand = (cos[0], sin[0]), (cos[0] + cos[1], sin[0] + sin[1])
    layers = [
        (raster.capsule(canvas, (0.0, 0.0), elbow, 0.11), UPPER_ARM),
        (raster.capsule(canvas, elbow, hand, 0.09), FOREARM),
        (raster.circle(canvas, hand, 0.18), HAND),
        (raster.circle(canvas, picture[2:], 0.12), TARGET),
    ]
    return raster.paint(canvas, WHITE, layers)


def swimmer_picture(state: Any, params: Any) -> Float32[Array, " 14"]:
    """x and y of the swimmer, of the goal and of the five urchins. All but the swimmer's lie in -1..1."""
    return _floats(state.xy, state.goal_xy, state.urchin_xys)


def draw_swimmer(picture: Float32[Array, " 14"], size: int) -> UInt8[Array, "size size 3"]:
    """Five urchins, a ring for the goal, and the swimmer. A swimmer that left the picture is drawn at its border."""
    canvas = raster.canvas(size, width=3.0)
    xy, goal, urchins = picture[:2], picture[2:4], picture[4:].reshape(-1, 2)
    layers = [
        (functools.reduce(minimum, [_urchin(canvas, urchin) for urchin in urchins]), URCHIN),
        (raster.ring(canvas, goal, 0.15, canvas.at_least(0.04)), BUOY),
        (raster.circle(canvas, _inside(xy, (0.0, 0.0), 1.4), 0.09), SWIMMER),
    ]
    return raster.paint(canvas, WATER, layers)


def _urchin(canvas: Canvas, center: Any) -> Distance:
    """A star of eight spikes: a square and one that stands on its corner."""
    x, y = jnp.abs(canvas.x - center[0]), jnp.abs(canvas.y - center[1])
    return minimum(maximum(x, y), (x + y) * 0.7071) - 0.1


def robot_picture(state: Any, params: Any) -> Float32[Array, " 4"]:
    """x and y of the robot and of the goal, which lies on the half circle of radius 1."""
    return _floats(state.pos, state.goal)


def draw_robot(picture: Float32[Array, " 4"], size: int) -> UInt8[Array, "size size 3"]:
    """The half circle that holds all goals, the goal's disc and the robot. gymnax's observation hides the goal, this
    picture does not. A robot that left the picture is drawn at its border."""
    center = (0.0, 0.5)
    canvas = raster.canvas(size, width=2.8, center=center)
    robot = _inside(picture[:2], center, 1.32)
    half_circle = raster.ring(canvas, (0.0, 0.0), 1.0, canvas.at_least(0.015))
    half_circle = maximum(half_circle, raster.half_plane(canvas, (0.0, 0.0), (0.0, -1.0)))
    layers = [
        (raster.circle(canvas, picture[2:], 0.2), GOAL_DISC),
        (half_circle, BLACK),
        (raster.circle(canvas, robot, 0.08), ROBOT),
    ]
    return raster.paint(canvas, WHITE, layers)


PICTURES: dict[str, TaskPicture] = {
    "Pendulum-v1": TaskPicture(2, pendulum_picture, draw_pendulum),
    "MountainCarContinuous-v0": TaskPicture(4, car_picture, draw_car),
    "Reacher-misc": TaskPicture(4, reacher_picture, draw_reacher),
    "Swimmer-misc": TaskPicture(14, swimmer_picture, draw_swimmer),
    "PointRobot-misc": TaskPicture(4, robot_picture, draw_robot),
}
