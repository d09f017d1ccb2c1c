"""Rendering: the canonical picture is dm_control's own, the fast one is close, and a missing OpenGL is explained."""

import os
import subprocess
import sys

import numpy as np
import pytest
from kinds import make_dmc

from envs.dmc.env import task_names
from envs.mujoco.gl import import_suite

# Each of these makes OpenGL unavailable in its own way; the first line of a child process.
NO_GL = {
    "no libEGL": """
import ctypes, ctypes.util
find, load = ctypes.util.find_library, ctypes.CDLL.__init__
def refuse(self, name, *args, **kwargs):
    if "EGL" in str(name):
        raise OSError("no such library")
    load(self, name, *args, **kwargs)
ctypes.CDLL.__init__ = refuse
ctypes.util.find_library = lambda name: None if "EGL" in name else find(name)
""",
    "no driver": "import os; os.environ['__EGL_VENDOR_LIBRARY_FILENAMES'] = '/nonexistent.json'\n",
    "disabled": "import os; os.environ['MUJOCO_GL'] = 'disable'\n",
}
STATES = """
from envs.registry import host_env
for name in ("cartpole_swingup", "quadruped_escape"):
    env = host_env("dmc", name, pixels=False, renderer="gl")()
    env.reset(0)
    print(name, env.step([0.0] * env.spec.action_dim).scene.shape)
try:
    env.picture(64)
except RuntimeError as error:
    print(error)
"""
PIXELS = """
from envs.registry import host_env
try:
    host_env("dmc", "cartpole_swingup", pixels=True, renderer="gl")
except RuntimeError as error:
    print(error)
"""

DRAWN = """
import numpy as np
from envs.registry import host_env
env = host_env("dmc", "cartpole_swingup", pixels=True, image_size=40)()
frame = np.asarray(env.spec.observe(env.reset(0)))
print(frame.shape, frame.dtype, frame.std() > 10)
"""
MAIN = """
from absl import app, flags
from experiments import run
flags.mark_flag_as_required("config")
app.run(run.main, flags_parser=run.parse)
"""


def frames(name, quality, size=84, steps=3):
    """Frames of one short episode, and the same episode drawn by `physics.render`."""
    env = make_dmc(name, pixels=False, action_repeat=1)
    middle, reach = env._middle, env._reach  # float64
    actions = np.random.default_rng(0).uniform(-1, 1, (steps, env.spec.action_dim)).astype(np.float32)

    # First all of dm_control's: it does not notice when another context than its own has become the current one.
    (domain, task) = next(pair for pair in import_suite(pixels=True).ALL_TASKS if "_".join(pair) == name)
    hand = import_suite(pixels=True).load(domain, task, task_kwargs={"random": 0})
    camera = 2 if domain == "quadruped" else 0
    hand.task.random.seed(9)
    hand.reset()
    reference = [hand.physics.render(size, size, camera_id=camera).copy()]
    for action in actions:
        hand.step(middle + reach * action.astype(np.float64))
        reference.append(hand.physics.render(size, size, camera_id=camera).copy())
    hand.physics.free()

    env = make_dmc(name, pixels=True, renderer="gl", image_size=size, action_repeat=1, render_quality=quality)
    drawn = [env.reset(9), *(env.step(action).scene for action in actions)]
    env.close()
    return np.stack(drawn), np.stack(reference)


@pytest.mark.parametrize("name", ["cartpole_swingup", "finger_turn_easy", "quadruped_escape"])
def test_canonical_is_the_picture_of_dm_control(name):
    drawn, reference = frames(name, "canonical")
    np.testing.assert_array_equal(drawn, reference)


@pytest.mark.slow
@pytest.mark.parametrize("name", task_names())
def test_canonical_is_the_picture_of_dm_control_for_every_task(name):
    drawn, reference = frames(name, "canonical", size=64, steps=1)
    np.testing.assert_array_equal(drawn, reference)


@pytest.mark.parametrize(("name", "most"), [("cartpole_swingup", 3), ("cheetah_run", 3), ("walker_walk", 9)])
def test_fast_is_close_to_canonical(name, most):
    drawn, reference = frames(name, "fast", steps=1)
    difference = np.abs(drawn.astype(np.int32) - reference).mean()
    assert 0 < difference < most
    assert drawn.std() > 10


def test_terrain_of_a_new_episode_is_drawn():
    env = make_dmc("quadruped_escape", pixels=True, renderer="gl")
    first, second = env.reset(1), env.reset(2)
    fresh = make_dmc("quadruped_escape", pixels=True, renderer="gl")
    np.testing.assert_array_equal(fresh.reset(2), second)
    assert (first != second).any()
    env.close()
    fresh.close()


def test_render_for_videos_leaves_the_scenes_alone():
    env = make_dmc("walker_walk", pixels=True, renderer="gl")
    first = env.reset(0)
    large = env.picture(700)  # more than the 640 x 480 buffer that the models ask for
    assert (large.shape, large.dtype) == ((700, 700, 3), np.uint8)
    np.testing.assert_array_equal(env.picture(84), first)
    np.testing.assert_array_equal(env.reset(0), first)
    env.close()


def child(code):
    environment = {key: value for key, value in os.environ.items() if key != "MUJOCO_GL"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize("way", NO_GL)
def test_states_need_no_opengl(way):
    out = child(NO_GL[way] + STATES)
    assert "cartpole_swingup (5,)" in out
    assert "quadruped_escape" in out
    assert "apt-get install libegl1 libgl1-mesa-dri" in out  # from render


@pytest.mark.parametrize("way", NO_GL)
def test_pixels_without_opengl_say_what_to_do(way):
    out = child(NO_GL[way] + PIXELS)
    assert out.count("\n") == 1
    assert "apt-get install libegl1 libgl1-mesa-dri" in out
    assert "--config.env.renderer=jax" in out
    assert "--config.env.pixels=False" in out
    assert f"MUJOCO_GL={'disable' if way == 'disabled' else 'egl'}" in out


@pytest.mark.parametrize(
    "way", [way if way == "no libEGL" else pytest.param(way, marks=pytest.mark.slow) for way in NO_GL]
)
def test_the_ray_caster_needs_no_opengl(way):
    out = child(NO_GL[way] + DRAWN)
    assert out.split() == ["(40,", "40,", "3)", "uint8", "True"]


@pytest.mark.slow
def test_the_main_job_needs_no_opengl(tmp_path):
    settings = ["--config=configs/dmc_pixels.py:smoke", f"--config.results_dir={tmp_path}"]
    child(NO_GL["no libEGL"] + f"import sys; sys.argv = ['run', *{settings}]\n" + MAIN)
    assert (tmp_path / "drq_ne_smoke_cartpole_swingup" / "grid.mp4").stat().st_size > 1000


def test_a_context_that_cannot_be_made_is_explained(monkeypatch):
    import mujoco.egl

    monkeypatch.setattr(mujoco.egl, "EGL_DISPLAY", None)
    monkeypatch.setattr(mujoco.egl, "create_initialized_egl_device_display", lambda: mujoco.egl.EGL.EGL_NO_DISPLAY)
    with pytest.raises(RuntimeError, match=r"apt-get install libegl1 libgl1-mesa-dri"):
        make_dmc("cartpole_swingup", pixels=True, renderer="gl")
