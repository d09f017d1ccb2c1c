"""What a MuJoCo picture is made of: the part that never changes, `Scenery`, and the few numbers that do, `poses`.

MuJoCo's own list of what is visible (`mjv_updateScene`, which needs no OpenGL) decides what a scenery holds, so groups,
invisible sites, materials and lights are those of its renderer. Importing this module imports neither jax nor mujoco.

A scene is one float32 vector, metres and unit vectors in world coordinates, in the order of `Layout`: the camera's
position, right and backward axis; positions and directions of lights; positions of geoms, then their axes (none for a
sphere, z for capsules and cylinders, x and z for the rest); the same of sites; the points of tendons.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Array, Float32

RenderQuality = Literal["fast", "smooth", "canonical"]
"""Plain; with several rays a pixel; with shadows and reflections too. Of OpenGL and of the ray caster."""
Kind = Literal["plane", "sphere", "capsule", "ellipsoid", "cylinder", "box"]
Source = Literal["geom", "site", "tendon"]

# MuJoCo's numbers (mjtGeom, mjtObj, mjtWrap, mjtLightType), which are part of its file format.
KINDS: dict[int, Kind] = {0: "plane", 2: "sphere", 3: "capsule", 4: "ellipsoid", 5: "cylinder", 6: "box"}
SOURCES: dict[int, Source] = {5: "geom", 6: "site", 18: "tendon"}
UNSUPPORTED = {1: "a height field", 7: "a mesh", 103: "a skin", 106: "a mesh"}
AXES: dict[Kind, str] = {"plane": "xz", "sphere": "", "capsule": "z", "ellipsoid": "xz", "cylinder": "z", "box": "xz"}
WRAP_SITE, SPOT, DIRECTIONAL, RGB_ROLE, SKYBOX = 3, 0, 1, 1, 2
CATENARY_POINTS = 15


class Checker(NamedTuple):
    """A texture of two colours on a plane, 0..1: `colours[0]` where both coordinates are in the same half of a tile.

    A point (x, y) of the plane, in metres, has the texture coordinates (a + b x, c + d y), in tiles, with `at` = (a, c)
    and `scale` = (b, d). `texel` is the width of a texel in tiles.
    """

    colours: tuple[tuple[float, float, float], tuple[float, float, float]]
    at: tuple[float, float]
    scale: tuple[float, float]
    texel: float


class Surface(NamedTuple):
    """How light leaves a primitive; colours 0..1, `shininess` as an exponent. A texture multiplies `rgba`."""

    rgba: tuple[float, float, float, float]
    specular: float
    shininess: float
    emission: float
    reflectance: float
    texture: Checker | None


class Primitive(NamedTuple):
    """A visible thing of a simple shape. `row` is that of MuJoCo's arrays of its source.

    size: half sides, radii, or radius and half length, in metres, as MuJoCo has them for the kind.
    moves: it hangs on a body that can move.
    """

    kind: Kind
    source: Source
    row: int
    size: tuple[float, float, float]
    surface: int
    moves: bool


class Tendon(NamedTuple):
    """A tendon through `points` sites. `slack` is its length, in metres, if it is a string that hangs; else zero.

    A string whose ends are farther apart than that is drawn straight, in the colour of the surface `taut`.
    """

    row: int
    points: int
    radius: float
    surface: int
    taut: int
    slack: float


class Light(NamedTuple):
    """A light, as OpenGL's fixed pipeline has them. `row` -1 is the headlight, which shines along the view.

    Colours 0..1; `cutoff` in degrees; `attenuation` of distance: constant, linear, quadratic.
    """

    row: int
    directional: bool
    ambient: tuple[float, float, float]
    diffuse: tuple[float, float, float]
    specular: tuple[float, float, float]
    attenuation: tuple[float, float, float]
    cutoff: float
    exponent: float
    shadows: bool
    mount: Mount | None


class Mount(NamedTuple):
    """Where a light hangs: `offset` and `direction` in the frame of `body`, or, if it tracks, in world axes.

    tracks: "" for a light fixed to the body, else what its position follows: the body's `xpos` or its `subtree_com`.
    """

    body: int
    tracks: Literal["", "xpos", "subtree_com"]
    offset: tuple[float, float, float]
    direction: tuple[float, float, float]


class Scenery(NamedTuple):
    """All of a picture that never changes; hashable.

    sky: for red, green and blue the coefficients of a polynomial in the sine of the elevation, highest power first,
      0..1; or none, for black.
    fovy: vertical field of view, degrees. near: nearest visible depth, metres.
    camera: the model's camera, or -1 with its pose in `free`.
    up: against gravity.
    """

    task: str
    primitives: tuple[Primitive, ...]
    tendons: tuple[Tendon, ...]
    surfaces: tuple[Surface, ...]
    lights: tuple[Light, ...]
    sky: tuple[tuple[float, ...], ...]
    camera: int
    free: tuple[float, ...]
    fovy: float
    near: float
    up: tuple[float, float, float]

    @property
    def floats(self) -> int:
        """Length of a scene."""
        return 3 * (layout(self).tendons + sum(each.points for each in self.tendons))


class Layout(NamedTuple):
    """Which rows of a scene, taken as [rows, 3], hold what. `axes`: the first one of each primitive."""

    light_positions: tuple[int, ...]
    light_directions: tuple[int, ...]
    positions: dict[int, int]
    axes: dict[int, int]
    tendons: int


def layout(scenery: Scenery) -> Layout:
    """Where the parts of a scene stand."""
    lights = sum(light.row >= 0 for light in scenery.lights)
    row, positions, axes = 3 + 2 * lights, {}, {}
    for source in ("geom", "site"):
        of_source = [i for i, each in enumerate(scenery.primitives) if each.source == source]
        for i in of_source:
            positions[i], row = row, row + 1
        for i in of_source:
            axes[i], row = row, row + len(AXES[scenery.primitives[i].kind])
    return Layout(tuple(range(3, 3 + lights)), tuple(range(3 + lights, 3 + 2 * lights)), positions, axes, row)


class _Gather(NamedTuple):
    """Where in MuJoCo's arrays, flattened, the numbers of a scene stand."""

    lights: np.ndarray
    geom_positions: np.ndarray
    geom_axes: np.ndarray
    site_positions: np.ndarray
    site_axes: np.ndarray
    tendons: tuple[tuple[int, int], ...]


@functools.lru_cache(maxsize=64)
def _gather(scenery: Scenery) -> _Gather:
    def positions(source: Source) -> np.ndarray:
        rows = [each.row for each in scenery.primitives if each.source == source]
        return (3 * np.array(rows, int)[:, None] + np.arange(3)).reshape(-1)

    def axes(source: Source) -> np.ndarray:
        columns = [
            9 * each.row + "xyz".index(axis) + np.array([0, 3, 6])
            for each in scenery.primitives
            if each.source == source
            for axis in AXES[each.kind]
        ]
        return np.array(columns, int).reshape(-1)

    lights = np.array([light.row for light in scenery.lights if light.row >= 0], int)
    tendons = tuple((each.row, each.points) for each in scenery.tendons)
    return _Gather(lights, positions("geom"), axes("geom"), positions("site"), axes("site"), tendons)


def poses(scenery: Scenery, data: Any) -> Float32[Array | np.ndarray, " floats"]:
    """The scene of a simulation's current state, whose kinematics must be up to date.

    Args:
        data: a `mujoco.MjData`, which gives a numpy array, or an `mjx.Data`, which gives a JAX array.
    """
    if isinstance(data.geom_xpos, np.ndarray):
        import numpy as xp

        lights = data.light_xpos, data.light_xdir
    else:
        import jax.numpy as xp

        lights = _hang(scenery, data)
    index = _gather(scenery)

    def pick(array: Any, rows: np.ndarray) -> Any:
        return xp.reshape(array, -1)[rows]

    camera: list[Any] = [np.array(scenery.free)]
    if scenery.camera >= 0:
        axes = xp.reshape(data.cam_xmat[scenery.camera], (3, 3))
        camera = [data.cam_xpos[scenery.camera], axes[:, 0], axes[:, 2]]
    parts = [
        *camera,
        *(xp.reshape(array[index.lights], -1) for array in lights),
        pick(data.geom_xpos, index.geom_positions),
        pick(data.geom_xmat, index.geom_axes),
        pick(data.site_xpos, index.site_positions),
        pick(data.site_xmat, index.site_axes),
    ]
    for tendon, points in index.tendons:
        wraps = data if hasattr(data, "wrap_xpos") else data._impl
        start = wraps.ten_wrapadr[tendon]
        parts.append(xp.reshape(xp.reshape(wraps.wrap_xpos, (-1, 3))[start + np.arange(points)], -1))
    return xp.concatenate(parts).astype(np.float32)


def _hang(scenery: Scenery, data: Any) -> tuple[Any, Any]:
    """Positions and directions of the model's lights, which MJX leaves out. Float [lights, 3] each."""
    import jax.numpy as jnp

    positions, directions = [], []
    for light in scenery.lights:
        if light.row < 0:
            continue
        if light.mount is None:
            raise ValueError(f"{scenery.task} has a light that aims at a body, which env.backend=mjx cannot draw.")
        mount, turn = light.mount, jnp.reshape(data.xmat[light.mount.body], (3, 3))
        offset, direction = jnp.asarray(mount.offset), jnp.asarray(mount.direction)
        if mount.tracks:
            positions.append(getattr(data, mount.tracks)[mount.body] + offset)
            directions.append(direction)
        else:
            positions.append(data.xpos[mount.body] + turn @ offset)
            directions.append(turn @ direction)
    rows = max(light.row for light in scenery.lights) + 1
    assert rows == len(positions)  # all of a model's lights are active
    return jnp.stack(positions), jnp.stack(directions)
