"""From `config.env` to a kind and its settings: what a kind takes, what may stand idle, and kinds from outside."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from configs import dmc_pixels, dmc_states, gymnax_pixels, gymnax_states, mjx_pixels, mujoco_states
from envs.dmc.env import DmcSettings
from envs.mjx.env import MjxSettings
from envs.pools.batch import BatchPool
from envs.pools.host import HostPool
from experiments.build.environment import env_settings, kind_of
from experiments.build.experiment import setup

ROOT = Path(__file__).parents[3]


def config_of(module=gymnax_states, **env):
    config = module.get_config("smoke")
    with config.unlocked():
        config.env.update(env)
    return config


def settings_of_config(config):
    return env_settings(config, kind_of(config))


@pytest.mark.parametrize(
    ("module", "kind"),
    [(dmc_pixels, "dmc"), (dmc_states, "dmc"), (mujoco_states, "gymnasium"), (gymnax_pixels, "gymnax")],
)
def test_the_config_names_its_kind(module, kind):
    assert kind_of(module.get_config()).name == kind


def test_settings_are_those_of_the_config_and_else_the_kinds():
    assert settings_of_config(dmc_pixels.get_config("quick")) == DmcSettings(True, 40, 8, None, "smooth", "jax")
    assert settings_of_config(dmc_states.get_config()) == DmcSettings(False, 84, 1, None, "fast", "jax")
    assert kind_of(mjx_pixels.get_config()).name == "mjx"
    assert settings_of_config(mjx_pixels.get_config()) == MjxSettings(True, 84, 2, None, "fast", "jax")
    physics = settings_of_config(config_of(physics=dict(m=(1.0, 2.0)), physics_every=100)).schedule()
    assert physics.values == {"m": (1.0, 2.0)} and physics.every == 100


@pytest.mark.parametrize("module", [dmc_pixels, dmc_states, mujoco_states])
@pytest.mark.parametrize("kind", ["dmc", "gymnasium", "dm_env", "own_kinds:HOST"])
def test_keys_of_other_kinds_may_stand_idle(module, kind):
    config = config_of(module, kind=kind)
    if "render_quality" in config.env:
        config.env.render_quality = "fast"
    assert isinstance(settings_of_config(config), kind_of(config).settings)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (config_of(kind="own_kinds:DEVICE", physics=dict(m=(2.0,))), r"env.physics=.* is no setting of kind point"),
        (config_of(kind="own_kinds:DEVICE", physics_every=5), "env.physics_every=5 .* of kind point; leave it at 0"),
        (config_of(dmc_pixels, kind="gymnasium", renderer="gl"), "env.renderer='gl' .* leave it at jax"),
        (config_of(kind="own_kinds:DEVICE", gravity=9.8), "env.gravity=9.8 .* leave it out of the config"),
        (config_of(kind="own_kinds:HOST"), "env.kind='own_kinds:HOST' needs another config; .* mujoco_"),
        (config_of(dmc_states, kind="own_kinds:DEVICE"), "needs another config; take one of configs/gymnax_"),
    ],
)
def test_keys_of_other_kinds_that_ask_for_something_are_refused(config, sentence):
    with pytest.raises(ValueError, match=sentence):
        settings_of_config(config)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (dict(pixels=True), "env.pixels=True is no setting of kind own_kinds:DEVICE, .* set --config.env.pixels=False"),
        (dict(action_repeat=2), "env.action_repeat=2 .* whose right has 1; set --config.env.action_repeat=1"),
        (dict(name="rihgt"), "env.name: unknown task 'rihgt' of kind point; did you mean right"),
        (dict(name="right", sequence=("centr",), switch_every=100), "env.sequence: unknown task 'centr'"),
    ],
)
def test_what_the_environment_is_not_is_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        setup(config_of(kind="own_kinds:DEVICE", **{"name": "right", **changes}))


@pytest.mark.parametrize(
    ("kind", "name", "sentence"),
    [
        ("own_kinds:HOST", "anywhere", "env.workers='batch' is for kind dmc, not for line; .*workers=thread"),
        (
            "dmc",
            "humanoid_run",
            "env.workers='batch' steps the domains acrobot, .*, not humanoid_run; .*workers=thread",
        ),
        ("dmc", "chetah_run", "env.name: unknown task 'chetah_run' of kind dmc; did you mean cheetah_run"),
    ],
)
def test_what_does_not_step_by_one_call_is_refused(kind, name, sentence):
    with pytest.raises(ValueError, match=sentence):
        setup(config_of(mujoco_states, kind=kind, name=name, workers="batch"))


def test_a_pool_that_steps_by_one_call_is_built():
    experiment = setup(config_of(mujoco_states, kind="dmc", name="pendulum_swingup", workers="batch"))
    try:
        assert isinstance(experiment.pool, BatchPool)
        assert experiment.pool.reset().shape == (2, 3)
    finally:
        experiment.close()


def test_a_host_kind_from_outside_is_built():
    config = config_of(mujoco_states, kind="own_kinds:HOST", name="anywhere", speed=0.5, workers="process")
    experiment = setup(config)
    try:
        assert isinstance(experiment.pool, HostPool)
        scenes = experiment.pool.reset()
        assert scenes.shape == (2, 2)
        moved = experiment.pool.step(np.ones((2, 1), np.float32)).step.scene
        np.testing.assert_allclose(moved, scenes + np.array([0.5, 1]))
    finally:
        experiment.close()


def command(*arguments):
    line = [sys.executable, "-m", "experiments.run", *arguments]
    path = os.pathsep.join([str(ROOT / "tests/support"), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})


def test_the_command_line_knows_the_keys_of_the_kind(tmp_path):
    config = ["--config=configs/mujoco_states.py:smoke", f"--config.results_dir={tmp_path}"]
    own = ["--config.env.kind=own_kinds:HOST", "--config.env.name=left"]
    done = command(*config, *own, "--config.env.speed=0.25", "--config.env.goal=1")
    assert (done.returncode, done.stderr) == (2, "error: env.name='left' is not to be had\n")
    done = command(*config, *own, "--config.env.sped=0.25")
    assert (done.returncode, done.stderr) == (2, "error: the config has no key env.sped; did you mean speed?\n")
    done = command(*config, *own, "--config.env.speed=-1")
    assert (done.returncode, done.stderr) == (2, "error: env.speed must be positive, got -1.0\n")
    done = command(*config, "--config.env.kind=own_kinds:HOAST")
    assert done.returncode == 2 and done.stderr.startswith("error: env.kind='own_kinds:HOAST': the module own_kinds")
