"""Reading a `Scenery` off a MuJoCo model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from envs.render.mujoco_scene import (
    DIRECTIONAL,
    KINDS,
    RGB_ROLE,
    SKYBOX,
    SOURCES,
    SPOT,
    UNSUPPORTED,
    WRAP_SITE,
    Checker,
    Light,
    Mount,
    Primitive,
    Scenery,
    Surface,
    Tendon,
)

if TYPE_CHECKING:
    import mujoco

SKY_DEGREE = 6
TRACKS: dict[int, Literal["", "xpos", "subtree_com"]] = {0: "", 1: "xpos", 2: "subtree_com"}


def make_scenery(model: mujoco.MjModel, camera: int, task: str = "this model") -> Scenery:
    """What a model looks like through one of its cameras, or -1, the free one. Needs no OpenGL.

    Args:
        model: a `mujoco.MjModel`.
        task: what error messages call it.

    Raises:
        ValueError: it shows something that is not drawn here: meshes, skins, height fields, textured bodies, wrapped
            tendons, surfaces of different shininess, other lights than MuJoCo's usual two.
    """
    import mujoco

    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    view, shown = mujoco.MjvCamera(), mujoco.MjvScene(model, 2000)
    if camera >= 0:
        view.type, view.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, camera
    else:
        mujoco.mjv_defaultFreeCamera(model, view)
    option = mujoco.MjvOption()
    option.flags[mujoco.mjtVisFlag.mjVIS_RANGEFINDER] = False
    everything = mujoco.mjtCatBit.mjCAT_ALL
    mujoco.mjv_updateScene(model, data, option, mujoco.MjvPerturb(), view, everything, shown)
    surfaces: list[Surface] = []
    geoms = [shown.geoms[i] for i in range(shown.ngeom)]
    primitives = tuple(_primitives(model, geoms, surfaces, task))
    tendons = tuple(_tendons(model, geoms, surfaces, task))
    if len({surface.shininess for surface in surfaces}) > 1:
        raise _cannot(task, "surfaces of different shininess")
    eye = mujoco.mjv_averageCamera(*shown.camera)
    if eye.orthographic:
        raise _cannot(task, "an orthographic camera")
    right = np.cross(eye.forward, eye.up)
    gravity = np.array(model.opt.gravity)
    return Scenery(
        task=task,
        primitives=primitives,
        tendons=tendons,
        surfaces=tuple(surfaces),
        lights=tuple(_lights(model, shown, task)),
        sky=_sky(model),
        camera=camera,
        free=_floats(eye.pos, right, -eye.forward) if camera < 0 else (),
        fovy=float(model.cam_fovy[camera] if camera >= 0 else model.vis.global_.fovy),
        near=float(eye.frustum_near),
        up=_floats(-gravity / max(float(np.linalg.norm(gravity)), 1e-9)),
    )


def _cannot(task: str, what: str) -> ValueError:
    return ValueError(
        f"{task} shows {what}, which env.renderer='jax' does not draw; set --config.env.renderer=gl (it needs OpenGL)."
    )


def _floats(*arrays: ArrayLike) -> Any:
    """All numbers as one tuple; as long as the caller knows it to be, which no type can say."""
    return tuple(float(number) for array in arrays for number in np.ravel(array))


def _primitives(
    model: mujoco.MjModel, geoms: list[mujoco.MjvGeom], surfaces: list[Surface], task: str
) -> Iterator[Primitive]:
    for shown in geoms:
        if int(shown.type) in UNSUPPORTED:
            raise _cannot(task, UNSUPPORTED[int(shown.type)])
        source = SOURCES.get(int(shown.objtype))
        if source is None or int(shown.type) not in KINDS:
            raise _cannot(task, f"a decoration of MuJoCo's type {int(shown.type)}")
        if source == "tendon":
            continue
        index = int(shown.objid)
        kind = KINDS[int(shown.type)]
        body = int((model.geom_bodyid if source == "geom" else model.site_bodyid)[index])
        moves = bool(model.body_weldid[body] != 0 or model.body_mocapid[body] >= 0)
        size = (model.geom_size if source == "geom" else model.site_size)[index]
        surface = _surface(model, shown, kind, surfaces, task)
        yield Primitive(kind, source, index, _floats(size), surface, moves)


def _surface(model: mujoco.MjModel, shown: mujoco.MjvGeom, kind: str, surfaces: list[Surface], task: str) -> int:
    texture = None
    found = int(model.mat_texid[shown.matid, RGB_ROLE]) if shown.matid >= 0 else -1
    if found >= 0:
        if kind != "plane":
            raise _cannot(task, f"a texture on a {kind}")
        texture = _checker(model, int(shown.matid), found, shown.size, task)
    surface = Surface(
        rgba=_floats(shown.rgba),
        specular=float(shown.specular),
        shininess=128 * float(shown.shininess),  # OpenGL's exponent
        emission=float(shown.emission),
        reflectance=float(shown.reflectance),
        texture=texture,
    )
    return _add(surfaces, surface)


def _add(surfaces: list[Surface], surface: Surface) -> int:
    if surface not in surfaces:
        surfaces.append(surface)
    return surfaces.index(surface)


def _checker(model: mujoco.MjModel, material: int, texture: int, size: np.ndarray, task: str) -> Checker:
    """Two colours, each the mean of two opposite quarters, which covers marks on the edges and scattered ones too."""
    height, width, channels = (int(of[texture]) for of in (model.tex_height, model.tex_width, model.tex_nchannel))
    start = int(model.tex_adr[texture])
    texels = model.tex_data[start : start + height * width * channels].reshape(height, width, channels)[..., :3] / 255
    h, w = height // 2, width // 2
    quarters = [texels[:h, :w], texels[h:, w:], texels[:h, w:], texels[h:, :w]]
    middles = [np.median(each.reshape(-1, 3), axis=0) for each in quarters]
    same = [np.mean(np.abs(each - middle).max(axis=-1) < 0.02) for each, middle in zip(quarters, middles)]
    if min(same) < 0.9 or np.abs(middles[0] - middles[1]).max() > 0.02 or np.abs(middles[2] - middles[3]).max() > 0.02:
        raise _cannot(task, "a texture that is neither flat nor a checkerboard")
    means = [_floats((quarters[i].mean((0, 1)) + quarters[i + 1].mean((0, 1))) / 2) for i in (0, 2)]
    if not model.mat_texuniform[material]:
        raise _cannot(task, "a texture that is stretched over its plane")
    # One repeat is two metres; counted from a corner of the plane, or from its middle where it has no end.
    x, y = _floats(model.mat_texrepeat[material] / 2)
    return Checker((means[0], means[1]), (x * float(size[0]), y * float(size[1])), (x, -y), 1 / width)


def _tendons(
    model: mujoco.MjModel, geoms: list[mujoco.MjvGeom], surfaces: list[Surface], task: str
) -> Iterator[Tendon]:
    import mujoco

    seen: set[int] = set()
    for shown in geoms:
        index = int(shown.objid)
        if SOURCES.get(int(shown.objtype)) != "tendon" or index in seen:
            continue
        seen.add(index)
        start, points = int(model.tendon_adr[index]), int(model.tendon_num[index])
        if (model.wrap_type[start : start + points] != WRAP_SITE).any():
            raise _cannot(task, "a tendon that wraps around a geom or runs over a pulley")
        # MuJoCo lets a string hang: two points, a greatest length and nothing that pushes.
        limited, (shortest, longest) = bool(model.tendon_limited[index]), model.tendon_range[index]
        stiff = model.tendon_stiffness[index] or model.tendon_damping[index] or model.tendon_frictionloss[index]
        driven = (model.actuator_trntype == mujoco.mjtTrn.mjTRN_TENDON) & (model.actuator_trnid[:, 0] == index)
        hangs = points == 2 and limited and shortest == 0 and not stiff and not driven.any()
        surface = _surface(model, shown, "capsule", surfaces, task)
        slack = float(longest) if hangs and np.any(model.opt.gravity) else 0.0
        # What pulls at its limit takes on the colour of constraints, in the measure of the constraint's impedance.
        limit, share = np.array(model.vis.rgba.constraint), float(model.tendon_solimp_lim[index][1])
        mixed = share * limit + (1 - share) * np.array(surfaces[surface].rgba)
        taut = _add(surfaces, surfaces[surface]._replace(rgba=_floats(mixed[:3], surfaces[surface].rgba[3])))
        yield Tendon(index, points, float(model.tendon_width[index]), surface, taut if slack else surface, slack)


def _lights(model: mujoco.MjModel, shown: mujoco.MjvScene, task: str) -> Iterator[Light]:
    for light in [shown.lights[i] for i in range(shown.nlight)]:
        index, kind = int(light.id), int(light.type)
        if kind not in (SPOT, DIRECTIONAL):
            raise _cannot(task, "a light that is neither a spot nor directional")
        mount = None
        mode = 0 if light.headlight else int(model.light_mode[index])
        if not light.headlight and mode in TRACKS:
            offsets = {0: model.light_pos, 1: model.light_pos0, 2: model.light_poscom0}[mode][index]
            direction = (model.light_dir if mode == 0 else model.light_dir0)[index]
            mount = Mount(int(model.light_bodyid[index]), TRACKS[mode], _floats(offsets), _floats(direction))
        yield Light(
            row=-1 if light.headlight else index,
            directional=kind == DIRECTIONAL,
            ambient=_floats(light.ambient),
            diffuse=_floats(light.diffuse),
            specular=_floats(light.specular),
            attenuation=_floats(light.attenuation) if kind == SPOT else (1.0, 0.0, 0.0),
            cutoff=float(light.cutoff) if kind == SPOT else 180.0,
            exponent=float(light.exponent) if kind == SPOT else 0.0,
            shadows=bool(light.castshadow),
            mount=mount,
        )


def _sky(model: mujoco.MjModel) -> tuple[tuple[float, ...], ...]:
    """Fits the skybox, a gradient from below to above, by polynomials in the sine of the elevation; stars are dropped.

    Texels of the six faces are taken along the lines through their middles. The fit is within 2/255 for the suite.
    """
    for texture in np.flatnonzero(model.tex_type == SKYBOX):
        width, channels = int(model.tex_width[texture]), int(model.tex_nchannel[texture])
        start = int(model.tex_adr[texture])
        texels = model.tex_data[start : start + 6 * width * width * channels]
        faces = texels.reshape(6, width, width, channels)[..., :3] / 255.0
        # Faces: right, left, up, down, front, back; rows of the upright ones run downwards. Stars vanish in the median.
        sides = np.median(faces[[0, 1, 4, 5]][:, :, width // 2 - 40 : width // 2 + 40], axis=(0, 2))
        height = 1 - 2 * (np.arange(width) + 0.5) / width
        middle = slice(width // 2 - 2, width // 2 + 2)
        caps = np.median(faces[2:4, :, middle], axis=2)  # from one edge through the pole to the other
        pole = 1 / np.sqrt(1 + height**2)
        sines = np.concatenate([height / np.sqrt(1 + height**2), pole, -pole])
        colours = np.concatenate([sides, caps[0], caps[1]])
        return tuple(_floats(np.polyfit(sines, colours[:, channel], SKY_DEGREE)) for channel in range(3))
    return ()
