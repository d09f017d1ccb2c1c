"""MuJoCo's scenes drawn in JAX: against MuJoCo's own rays, lists of what is visible, and frames that OpenGL drew."""

import functools
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from kinds import make_dmc

from envs.mujoco.gl import import_suite
from envs.render import fidelity
from envs.render.catenary import hanging
from envs.render.fidelity import difference, overlap
from envs.render.mujoco_scene import poses
from envs.render.raycast import make_draw, make_segment
from envs.render.scenery import make_scenery
from envs.render.vary import make_vary
from ne_jax.target import made_for

REFERENCE = Path(__file__).parent / "reference" / "mujoco"
POSES = np.load(REFERENCE / "poses.npz")
EVERY_TASK = sorted(POSES.files)
FEW = ["ball_in_cup_catch", "cheetah_run"]
SIZE = 84


def loaded(name):
    """The simulation at the start of an episode, and its scenery."""
    suite = import_suite(pixels=False)
    domain, task = next(pair for pair in suite.ALL_TASKS if "_".join(pair) == name)
    env = suite.load(domain, task, task_kwargs={"random": 0})
    env.reset()
    return env, make_scenery(env.physics.model.ptr, 0, name)


def references(name):
    """Poses, and OpenGL's fast frames, canonical frames and silhouettes of them."""
    sheet = cv2.imread(str(REFERENCE / f"{name}.png"))
    assert sheet is not None
    cells = sheet[..., ::-1].reshape(-1, SIZE, 3, SIZE, 3).transpose(2, 0, 1, 3, 4)
    return POSES[name], cells[0], cells[1], cells[2, ..., 0] > 127


def test_the_reference_holds_the_benchmarking_set():
    suite = import_suite(pixels=False)
    assert sorted(EVERY_TASK) == sorted("_".join(pair) for pair in suite.BENCHMARKING)


def check_against_opengl(name, quality, limit):
    _, scenery = loaded(name)
    scenes, fast, canonical, silhouettes = references(name)
    views = fidelity.Views(scenery, scenes, {"fast": fast, "canonical": canonical}, silhouettes)
    assert difference(fidelity.draw(views, quality), views.images[quality]) <= limit
    assert overlap(fidelity.silhouettes(views), views.silhouettes) >= 0.97


@pytest.mark.parametrize("name", [pytest.param(FEW[0], marks=pytest.mark.slow), *FEW[1:]])
def test_fast_frames_are_those_of_opengl(name):
    check_against_opengl(name, "fast", 6)


@pytest.mark.slow
@pytest.mark.parametrize("quality", ["fast", "canonical"])
@pytest.mark.parametrize("name", EVERY_TASK)
def test_frames_of_every_task_are_those_of_opengl(name, quality):
    check_against_opengl(name, quality, {"fast": 6, "canonical": 10}[quality])


def test_a_wrong_picture_is_not_close():
    """The limits mean something: a black frame, a neighbour's frame and a shifted silhouette are all beyond them."""
    _, fast, _, silhouettes = references("walker_walk")
    assert difference(np.zeros_like(fast), fast) > 30
    assert difference(references("reacher_easy")[1], fast) > 6
    assert overlap(np.roll(silhouettes, 1, axis=2), silhouettes) < 0.9


@pytest.mark.parametrize("name", ["finger_spin", "humanoid_walk"])
def test_every_pixel_shows_what_mujocos_rays_hit(name):
    env, scenery = loaded(name)
    model, data, size = env.physics.model.ptr, env.physics.data.ptr, 20
    segment = jax.jit(make_segment(scenery), static_argnums=1)
    labels = np.asarray(segment(poses(scenery, data), size))
    rows = np.array([each.row for each in scenery.primitives if each.source == "geom"] + [-1])
    half = np.tan(np.radians(model.cam_fovy[0]) / 2)
    groups, found = np.array([1, 1, 1, 0, 0, 0], np.uint8), np.full((size, size), -1)
    for i in range(size):
        for j in range(size):
            ray = np.array([(2 * (j + 0.5) / size - 1) * half, (1 - 2 * (i + 0.5) / size) * half, -1])
            geom = np.zeros(1, np.int32)
            ray = data.cam_xmat[0].reshape(3, 3) @ ray
            mujoco.mj_ray(model, data, data.cam_xpos[0], ray, groups, True, -1, geom)
            found[i, j] = geom[0]
    assert (rows[labels] == found).mean() > 0.99
    assert len(np.unique(found)) > 3


def test_a_string_hangs_as_mujoco_lets_it():
    """Every point of MuJoCo's string lies on ours, to a fifth of its width."""
    env, scenery = loaded("ball_in_cup_catch")
    model, data = env.physics.model.ptr, env.physics.data.ptr
    shown, camera = mujoco.MjvScene(model, 500), mujoco.MjvCamera()
    curve = jax.jit(lambda a, b: hanging(a, b, jnp.array([0.0, 0.0, 1.0]), scenery.tendons[0].slack, 400))
    slack = 0
    for _ in range(12):
        mujoco.mjv_updateScene(model, data, mujoco.MjvOption(), mujoco.MjvPerturb(), camera, 7, shown)
        theirs = np.array([g.pos for g in shown.geoms[: shown.ngeom] if g.objtype == mujoco.mjtObj.mjOBJ_TENDON])
        ends = np.asarray(data.wrap_xpos).reshape(-1, 3)[:2].astype(np.float32)
        ours = np.asarray(curve(*ends))
        apart = np.linalg.norm(theirs[:, None] - ours, axis=-1).min(axis=1)
        assert apart.max() < 0.002, apart
        slack += len(theirs) > 2
        env.step(np.random.default_rng(slack).uniform(-1, 1, 2))
        env.step(np.zeros(2))
    assert slack >= 2


@pytest.mark.slow
def test_batches_and_vmap_give_the_frames_of_single_scenes():
    _, scenery = loaded("reacher_easy")
    draw, scenes = make_draw(scenery, "fast"), np.repeat(POSES["reacher_easy"], 2, axis=0)
    drawn = jax.jit(lambda s: draw(s, 32))
    alone = np.stack([drawn(scene) for scene in scenes])
    batch = drawn(scenes)
    mapped = jax.jit(jax.vmap(jax.vmap(lambda s: draw(s, 32))))(scenes.reshape(2, 3, -1))
    assert alone.dtype == np.uint8 and alone.std() > 10
    for other in (batch, mapped.reshape(alone.shape)):  # compilers may round a byte differently
        assert np.abs(alone.astype(int) - np.asarray(other)).max() <= 1


def test_the_code_for_accelerators_draws_the_same():
    _, scenery = loaded("reacher_easy")
    draw, scenes = make_draw(scenery, "fast"), POSES["reacher_easy"]
    here = np.asarray(jax.jit(lambda s: draw(s, 40))(scenes)).astype(int)
    with made_for("cuda"):
        there = jax.jit(lambda s: draw(s, 40))(scenes)
        assert "while" not in str(jax.make_jaxpr(lambda s: draw(s, 40))(scenes))
    assert (np.abs(here - np.asarray(there)) > 1).mean() < 1e-3  # where a ray grazes an edge


def test_qualities_and_sizes():
    _, scenery = loaded("cartpole_swingup")
    scene = POSES["cartpole_swingup"][0]
    frames = {q: np.asarray(jax.jit(make_draw(scenery, q), static_argnums=1)(scene, 42)) for q in ("fast", "smooth")}
    large = np.asarray(jax.jit(make_draw(scenery, "fast"), static_argnums=1)(scene, 84))
    halved = large.reshape(42, 2, 42, 2, 3).astype(float).mean((1, 3))
    # Four rays a pixel are those of four pixels, but for the filter of textures, which is as wide as the pixel.
    assert np.abs(frames["smooth"] - halved).mean() < 0.6 and np.abs(frames["smooth"] - halved)[:10].max() <= 1
    assert 0 < difference(frames["fast"], frames["smooth"]) < 6


@pytest.mark.parametrize(
    ("name", "what"), [("dog_run", "a mesh"), ("quadruped_escape", "a height field"), ("quadruped_fetch", "a texture")]
)
def test_what_cannot_be_drawn_is_refused(name, what):
    with pytest.raises(ValueError, match=f"{name} shows {what}.*env.renderer=gl"):
        make_dmc(name, pixels=True)
    env = make_dmc(name, pixels=False)
    assert env.reset(0).ndim == 1 and env.spec.draw is None
    with pytest.raises(ValueError, match=f"{name} shows {what}"):
        env.picture(64)


def test_what_is_behind_the_camera_is_not_drawn():
    _, scenery = loaded("pendulum_swingup")
    scene = POSES["pendulum_swingup"][0].copy()
    scene[3:9] *= np.array([-1, -1, -1, -1, -1, -1])  # turned around: all lies behind, near or far
    segment = jax.jit(make_segment(scenery), static_argnums=1)
    for away in (0, 60, 900):
        moved = scene.copy()
        moved[:3] += -away * scene[6:9]
        assert (np.asarray(segment(moved, 16)) == -1).mean() > 0.5, away


def test_variation():
    _, scenery = loaded("walker_walk")
    scene, draw = POSES["walker_walk"][0], jax.jit(make_draw(scenery), static_argnums=1)
    plain = np.asarray(draw(scene, 48)).astype(int)

    @functools.cache
    def vary_of(**shares):
        return jax.jit(make_vary(scenery, **shares))

    def varied(seed, **shares):
        return np.asarray(draw(vary_of(**shares)(jax.random.key(seed), scene), 48)).astype(int)

    assert np.abs(varied(0) - plain).max() <= 1
    np.testing.assert_array_equal(varied(1, camera=10.0, colour=0.3), varied(1, camera=10.0, colour=0.3))
    for shares in (dict(camera=10.0), dict(colour=0.3), dict(light=0.3)):
        frames = [varied(seed, **shares) for seed in range(3)]
        assert all(np.abs(frame - plain).mean() > 1 for frame in frames)
        assert np.abs(frames[0] - frames[1]).mean() > 1
    brighter = [(varied(seed, light=0.3) / np.maximum(plain, 1))[plain > 60].mean() for seed in range(8)]
    assert 0.69 < min(brighter) < 0.95 and 1.0 < max(brighter) < 1.31
    for shares, named in ((dict(camera=90.0), "camera"), (dict(colour=1.0), "colour"), (dict(light=-0.1), "light")):
        with pytest.raises(ValueError, match=f"replay.vary.{named} must lie in"):
            make_vary(scenery, **shares)
