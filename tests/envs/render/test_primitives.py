"""The ray caster's closed forms against MuJoCo's own rays, in float64, and against gradients."""

import mujoco
import numpy as np
import pytest

from envs.render.primitives import FAR
from envs.render.trace import Body, Rays, meet

GEOMS = {"plane": 0, "sphere": 2, "capsule": 3, "ellipsoid": 4, "cylinder": 5, "box": 6}
SIZES = {
    "plane": [(1.0, 0.7, 0.1), (0.0, 0.0, 0.1), (0.6, 0.0, 0.1)],
    "sphere": [(0.5, 0.0, 0.0), (0.008, 0.0, 0.0)],
    "capsule": [(0.3, 0.6, 0.0), (0.046, 0.5, 0.0), (0.3, 0.01, 0.0)],
    "ellipsoid": [(0.5, 0.2, 0.8), (0.4, 0.3, 0.02)],
    "cylinder": [(0.3, 0.6, 0.0), (0.5, 0.02, 0.0)],
    "box": [(0.4, 0.2, 0.3), (0.5, 0.5, 0.01)],
}
CASES = [(kind, size) for kind, sizes in SIZES.items() for size in sizes]


def random_case(kind, size, count, from_camera, seed=0):
    """A pose, and rays of which about half hit it: from the origin with depth -1, or from anywhere."""
    random = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(random.normal(size=(3, 3)))
    turn *= np.sign(np.linalg.det(turn))
    centre = np.array([0, 0, -4]) + random.uniform(-0.3, 0.3, 3)
    if kind == "plane" and turn[:, 2] @ centre > 0:  # only its front is drawn
        turn[:, [0, 2]] *= -1
    extent = 1.2 * (max(size) if kind != "capsule" else size[0] + size[1]) or 2.0
    targets = centre + random.uniform(-extent, extent, (count, 3))
    if from_camera:
        origins = np.zeros((count, 3))
        d = targets / -targets[:, 2:]
    else:
        origins = centre + random.normal(size=(count, 3)) * 3
        d = targets - origins
    return centre, turn, origins.astype(np.float32), d.astype(np.float32)


def traced(kind, size, centre, turn, origins, d, near=0.0):
    body = Body(kind, vector(centre), vector(turn[:, 0]), vector(turn[:, 2]), size)
    camera = not origins.any()
    rays = Rays(
        (0.0, 0.0, 0.0) if camera else vector(origins.T),
        (d[:, 0], d[:, 1], -1.0 if camera else d[:, 2]),
        (d * d).sum(axis=1),
        np.float32(near),
        0.01,
    )
    hit = meet(body, rays)
    shape = len(d)
    return np.asarray(hit.t), np.stack([np.broadcast_to(np.asarray(part), shape) for part in hit.normal], axis=1)


def vector(array):
    x, y, z = (np.float32(part) if np.ndim(part) == 0 else part for part in array)
    return x, y, z


def mujoco_rays(kind, size, centre, turn, origins, d):
    """Multiples of d, in float64; -1 for none."""
    size = np.array(size)
    if kind == "plane":
        z = (origins - centre) @ turn[:, 2]
        along = d @ turn[:, 2]
        t = -z / along
        local = (origins + t[:, None] * d - centre) @ turn
        inside = (along < 0) & (t > 0)
        for k in range(2):
            inside &= (np.abs(local[:, k]) <= size[k]) | (size[k] == 0)
        return np.where(inside, t, -1)
    normal = np.zeros(3)
    return np.array(
        [
            mujoco.mju_rayGeom(centre, turn.ravel(), size, o.astype(float), v.astype(float), GEOMS[kind], normal)
            for o, v in zip(origins, d)
        ]
    )


@pytest.mark.parametrize("from_camera", [True, False])
@pytest.mark.parametrize(("kind", "size"), CASES)
def test_depths_are_those_of_mujoco(kind, size, from_camera):
    case = random_case(kind, size, 3000, from_camera)
    t, _ = traced(kind, size, *case)
    expected = mujoco_rays(kind, size, *(np.asarray(part, float) for part in case))
    inside = expected_inside(kind, size, *case[:3])
    hit = t < FAR / 2
    # Rays that graze an edge may go either way in float32; there must be few of them.
    differing = (hit != (expected >= 0)) & ~inside
    assert differing.mean() < 2e-3
    both = hit & (expected >= 0) & ~inside
    assert both.mean() > 0.02
    assert (~hit).mean() > 0.02 or (kind == "plane" and not any(size[:2]))
    reach = np.linalg.norm(case[3][both], axis=1)
    error = np.abs(t[both] - expected[both]) * reach
    assert np.quantile(error, 0.99) < 2e-5 and np.quantile(error, 0.9) < 5e-6


def expected_inside(kind, size, centre, turn, origins):
    """Rays that start inside: MuJoCo gives the way out, we draw nothing."""
    local = np.abs((origins - centre) @ turn)
    if kind == "plane":
        return np.zeros(len(local), bool)
    reach = max(size) + (size[0] if kind == "capsule" else 0)
    return np.linalg.norm(local, axis=1) < 1.8 * reach if kind == "box" else np.linalg.norm(local, axis=1) < 1.5 * reach


def implicit(kind, size, p):
    """A function whose gradient is along the surface's normal, in the primitive's own frame, float64."""
    x, y, z = p.T
    if kind == "plane":
        return z
    if kind == "sphere":
        return np.linalg.norm(p, axis=1)
    if kind == "capsule":
        return np.linalg.norm(p - np.stack([0 * x, 0 * x, np.clip(z, -size[1], size[1])], axis=1), axis=1)
    if kind == "ellipsoid":
        return np.linalg.norm(p / size, axis=1)
    if kind == "cylinder":
        return np.maximum(np.hypot(x, y) - size[0], np.abs(z) - size[1])
    return np.max(np.abs(p) - size, axis=1)


@pytest.mark.parametrize(("kind", "size"), CASES)
def test_normals_are_gradients(kind, size):
    centre, turn, origins, d = random_case(kind, size, 2000, True)
    t, normal = traced(kind, size, centre, turn, origins, d)
    hit = t < FAR / 2
    p = (t[hit, None] * d[hit].astype(float) - centre) @ turn
    step = 1e-5 * max(size)
    gradient = np.stack(
        [implicit(kind, size, p + step * axis) - implicit(kind, size, p - step * axis) for axis in np.eye(3)], axis=1
    )
    expected = gradient / np.linalg.norm(gradient, axis=1, keepdims=True) @ turn.T
    found = normal[hit] / np.linalg.norm(normal[hit], axis=1, keepdims=True)
    assert np.quantile(np.sum(found * expected, axis=1), 0.02) > 0.9999  # edges have no gradient


@pytest.mark.parametrize("kind", ["capsule", "cylinder"])
def test_no_holes_where_a_ray_runs_along_the_axis(kind):
    random = np.random.default_rng(1)
    for axis in (np.array([0.0, 0.0, 1.0]), np.array([1e-4, 0.0, 1.0])):
        turn = np.stack([np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), axis], axis=1)
        d = np.stack([*(1e-4 * random.normal(size=(2, 4000))), -np.ones(4000)], axis=1).astype(np.float32)
        t, _ = traced(kind, (0.3, 0.5, 0.0), np.array([0, 0, -4.0]), turn, np.zeros((4000, 3), np.float32), d)
        assert (np.abs(t - (3.2 if kind == "capsule" else 3.5)) < 1e-3).all()


def test_nothing_nearer_than_near_counts():
    case = random_case("sphere", (0.5, 0.0, 0.0), 500, True)
    t, _ = traced("sphere", (0.5, 0.0, 0.0), *case)
    cut, _ = traced("sphere", (0.5, 0.0, 0.0), *case, near=3.8)
    np.testing.assert_array_equal(cut, np.where(t > np.float32(3.8), t, FAR))
    assert (cut < FAR).any() and (cut != t).any()
