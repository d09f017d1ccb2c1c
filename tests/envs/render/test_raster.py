"""The rasteriser against areas counted point by point, and the tasks' pictures against reference images.

`python -m tests.envs.test_raster` writes the reference images anew: look at them before you commit them.
"""

import itertools
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.gymnax.pictures import PICTURES
from envs.render import raster

REFERENCE = Path(__file__).parent / "reference"


def car(x: float) -> tuple[float, ...]:
    """The picture of a car at x: where it is, and cosine and sine of the slope there."""
    angle = float(np.arctan(1.35 * np.cos(3 * x)))
    return x, 0.45 * float(np.sin(3 * x)) + 0.55, float(np.cos(angle)), float(np.sin(angle))


SAMPLES = {
    "Pendulum-v1": [(2.5, 0.9), (-0.4, -0.5)],
    "MountainCarContinuous-v0": [car(-1.0), car(0.4)],
    "Reacher-misc": [(0.3, 2.0, -1.5, 0.8), (-2.0, -1.2, 1.7, 1.9)],
    "Swimmer-misc": [
        (0.2, -0.5, -0.7, 0.6, 0.9, 0.9, -0.3, 0.1, 0.5, -0.8, -0.9, -0.9, -0.6, 0.5),
        (-4.0, 1.0, 0.3, -0.2, 0.7, 0.1, -0.3, 0.8, 0.5, -0.1, 0.9, -0.9, 0.1, 0.5),
    ],
    "PointRobot-misc": [(0.1, 0.4, 0.8, 0.6), (3.0, -0.2, -1.0, 0.0)],
}


def away(x, y, start, end):
    """Distance of points from a segment, by projecting on it."""
    start, along = np.asarray(start), np.subtract(end, start)
    t = np.clip(((x - start[0]) * along[0] + (y - start[1]) * along[1]) / (along @ along), 0, 1)
    return np.hypot(x - start[0] - t * along[0], y - start[1] - t * along[1])


LINE = [(-0.8, -0.6), (-0.1, 0.7), (0.3, -0.4), (0.8, 0.5)]
TILT = (float(np.cos(0.5)), float(np.sin(0.5)))
# A shape as the rasteriser draws it, and which points belong to it.
SHAPES = {
    "circle": (
        lambda c: raster.circle(c, (0.1, -0.2), 0.6),
        lambda x, y: np.hypot(x - 0.1, y + 0.2) < 0.6,
    ),
    "ring": (
        lambda c: raster.ring(c, (0.1, 0.0), 0.6, 0.1),
        lambda x, y: np.abs(np.hypot(x - 0.1, y) - 0.6) < 0.1,
    ),
    "capsule": (
        lambda c: raster.capsule(c, (-0.5, -0.3), (0.6, 0.4), 0.15),
        lambda x, y: away(x, y, (-0.5, -0.3), (0.6, 0.4)) < 0.15,
    ),
    "point": (
        lambda c: raster.capsule(c, (0.2, 0.3), (0.2, 0.3), 0.3),
        lambda x, y: np.hypot(x - 0.2, y - 0.3) < 0.3,
    ),
    "upright box": (
        lambda c: raster.box(c, (0.13, 0.07), (0.5, 0.31)),
        lambda x, y: (np.abs(x - 0.13) < 0.5) & (np.abs(y - 0.07) < 0.31),
    ),
    "box": (
        lambda c: raster.box(c, (0.1, 0.0), (0.7, 0.25), TILT),
        lambda x, y: (
            (np.abs((x - 0.1) * TILT[0] + y * TILT[1]) < 0.7) & (np.abs(y * TILT[0] - (x - 0.1) * TILT[1]) < 0.25)
        ),
    ),
    "half plane": (
        lambda c: raster.half_plane(c, (0.1, 0.2), (0.6, -0.8)),
        lambda x, y: (x - 0.1) * 0.6 - (y - 0.2) * 0.8 < 0,
    ),
    "polyline": (
        lambda c: raster.polyline(c, LINE, 0.1),
        lambda x, y: np.min([away(x, y, a, b) for a, b in itertools.pairwise(LINE)], axis=0) < 0.1,
    ),
    "half disc": (
        lambda c: raster.maximum(raster.circle(c, (0.0, 0.0), 0.7), raster.half_plane(c, (0.0, 0.0), (0.0, -1.0))),
        lambda x, y: (np.hypot(x, y) < 0.7) & (y > 0),
    ),
}
CORNERS = {"box": 4, "upright box": 4, "polyline": 4}  # pixels


def counted_area(inside, size, points=16):
    """The share of each pixel that a shape covers, in a view of -1..1, from `points` squared points per pixel."""
    ticks = (np.arange(size * points) + 0.5) / (size * points) * 2 - 1
    x, y = np.meshgrid(ticks, -ticks)
    return inside(x, y).reshape(size, points, size, points).mean(axis=(1, 3))


def white_on_black(shape, size):
    def draw():
        canvas = raster.canvas(size, width=2.0)
        return raster.paint(canvas, (0, 0, 0), [(shape(canvas), (255, 255, 255))])

    return np.asarray(jax.jit(draw)())


@pytest.mark.parametrize("size", [48, 33])
@pytest.mark.parametrize("name", SHAPES)
def test_coverage_is_the_area_within_the_pixel(name, size):
    """Edges are off by 0.065 at most (slant and curvature), the pixels of sharp corners by 0.25. Counting is exact to
    some 0.01 itself."""
    shape, inside = SHAPES[name]
    frame = white_on_black(shape, size)
    assert frame.shape == (size, size, 3) and frame.dtype == np.uint8
    assert (frame == frame[..., :1]).all()
    off = np.abs(frame[..., 0] / 255 - counted_area(inside, size))
    assert (off > 0.065).sum() <= CORNERS.get(name, 0)
    assert off.max() < 0.25
    assert off[off > 0.004].mean() < 0.035


def test_later_layers_cover_earlier_ones():
    canvas = raster.canvas(16, width=2.0)
    wide, narrow = raster.circle(canvas, (0.0, 0.0), 0.9), raster.circle(canvas, (0.0, 0.0), 0.5)
    frame = np.asarray(raster.paint(canvas, (1, 2, 3), [(wide, (10, 20, 30)), (narrow, (200, 100, 0))]))
    assert frame[8, 8].tolist() == [200, 100, 0]
    assert frame[8, 13].tolist() == [10, 20, 30]
    assert frame[0, 0].tolist() == [1, 2, 3]
    again = raster.paint(canvas, frame, [])
    np.testing.assert_array_equal(again, frame)


def test_y_points_up_and_x_to_the_right():
    frame = white_on_black(lambda canvas: raster.circle(canvas, (0.5, 0.5), 0.2), 20)[..., 0]
    assert frame[5, 15] == 255 and frame.sum() == frame[:10, 10:].sum()


@pytest.mark.parametrize("name", PICTURES)
def test_the_same_under_jit_vmap_and_scan(name):
    pictures = jnp.asarray(SAMPLES[name], jnp.float32)

    def draw(picture):
        return PICTURES[name].draw(picture, 32)

    alone = np.stack([jax.jit(draw)(picture) for picture in pictures])
    side_by_side = jax.jit(jax.vmap(draw))(pictures)
    in_turn = jax.jit(lambda p: jax.lax.scan(lambda _, picture: (None, draw(picture)), None, p)[1])(pictures)
    # Compilers may round differently in the last bit of a float, which can move a byte by one.
    for other in (side_by_side, in_turn):
        assert np.abs(alone.astype(int) - np.asarray(other)).max() <= 1


def drawn(name, size):
    """The task's two pictures, next to each other."""
    draw = jax.jit(PICTURES[name].draw, static_argnums=1)
    return np.concatenate([draw(jnp.asarray(picture, jnp.float32), size) for picture in SAMPLES[name]], axis=1)


@pytest.mark.parametrize("size", [84, 32])
@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_the_reference(name, size):
    expected = cv2.imread(str(REFERENCE / f"{name}_{size}.png"))
    assert expected is not None
    expected = cv2.cvtColor(expected, cv2.COLOR_BGR2RGB)
    assert np.abs(drawn(name, size).astype(int) - expected).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", PICTURES)
def test_any_size_shows_the_same(name):
    """Halving a picture gives about the picture of half the size, but for fine lines: they are a pixel wide in both."""
    small, large = drawn(name, 64), drawn(name, 128)
    halved = cv2.resize(large, (128, 64), interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(float) - halved).mean() < 3


if __name__ == "__main__":
    REFERENCE.mkdir(exist_ok=True)
    for name in PICTURES:
        for size in (84, 32):
            cv2.imwrite(str(REFERENCE / f"{name}_{size}.png"), cv2.cvtColor(drawn(name, size), cv2.COLOR_RGB2BGR))
