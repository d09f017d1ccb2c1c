"""Kinds of environments are found by name, also from outside; settings and tasks are checked before making anything."""

import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.registry import KINDS, device_env, find_kind, host_env, make_settings
from envs.types import HostKind
from settings import settings_of


def test_maker_pickles():
    make = pickle.loads(pickle.dumps(host_env("dmc", "cartpole_balance", pixels=False, action_repeat=4)))
    env = make()
    assert env.spec.episode_steps == 250
    assert env.reset(0).shape == env.spec.scene.shape


@pytest.mark.parametrize(
    ("kind", "name", "settings", "message"),
    [
        ("dmcontrol", "walker_walk", {"pixels": False}, "env.kind must be one of dmc, .* got 'dmcontrol'"),
        ("dmc", "walker_wlak", {"pixels": False}, "env.name: unknown task 'walker_wlak' .* did you mean walker_walk"),
        ("dmc", "walker_walk", {"pixels": False, "image_sise": 64}, "env.image_sise is no setting .* image_size"),
        ("dmc", "walker_walk", {"pixels": False, "action_repeat": 0}, "env.action_repeat"),
        ("gymnax", "Pendulum-v1", {}, "env.kind='gymnax' lives on the device"),
        ("own_kindz:HOST", "x", {}, "env.kind='own_kindz:HOST': there is no module 'own_kindz' on Python's path"),
        ("own_kinds.deep:HOST", "x", {}, "there is no module 'own_kinds.deep'"),
        (":HOST", "x", {}, "env.kind=':HOST' must have a module's full name before the colon, got ''"),
        (".own_kinds:HOST", "x", {}, "must have a module's full name before the colon, got '.own_kinds'"),
        ("own_kinds:HOAST", "x", {}, "module own_kinds has no 'HOAST'; did you mean HOST, DEVICE"),
        ("own_kinds:NO_KIND", "x", {}, "must name a HostKind or a DeviceKind of envs.types, got .* LineSettings"),
        ("own_kinds:HOST", "left", {}, "env.name='left' is not to be had"),
        ("own_kinds:HOST", "x", {"speed": 0}, "env.speed must be positive, got 0"),
        ("own_kinds:HOST", "x", {"sped": 1.0}, "env.sped is no setting of kind line; did you mean speed"),
    ],
)
def test_mistakes_are_named_at_once(kind, name, settings, message):
    with pytest.raises(ValueError, match=message):
        host_env(kind, name, **settings)


def test_a_host_kind_is_no_device_kind():
    with pytest.raises(ValueError, match=r"env\.kind='dmc' lives on the host"):
        device_env("dmc", "walker_walk")
    with pytest.raises(ValueError, match=r"env\.name: unknown task 'center' of kind point; did you mean centre"):
        device_env("own_kinds:DEVICE", "center")


def test_kinds_from_outside():
    make = pickle.loads(pickle.dumps(host_env("own_kinds:HOST", "anywhere", speed=0.5)))
    env = make()
    first = env.reset(3)
    np.testing.assert_allclose(env.step(np.ones(1, np.float32)).scene, first + np.array([0.5, 1]))
    env = device_env("own_kinds:DEVICE", "centre")
    state, scene = env.reset(jax.random.key(0))
    np.testing.assert_allclose(env.step(state, jnp.ones(1), jax.random.key(1))[1].scene, scene + np.array([0.1, 1]))


def test_a_module_that_cannot_import_something_says_so_itself(tmp_path, monkeypatch):
    (tmp_path / "broken_kind.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        find_kind("broken_kind:KIND")


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_whole(name):
    kind = find_kind(name)
    assert kind.name == name
    assert {"pixels", "image_size", "action_repeat"} <= {each.key for each in settings_of(kind.settings)}
    assert isinstance(make_settings(kind, {}), kind.settings)
    assert kind.packages


@pytest.mark.parametrize("name", [name for name in KINDS if isinstance(find_kind(name), HostKind)])
def test_workers_import_no_jax(name):
    code = f"import sys; from envs.registry import find_kind; find_kind({name!r}); assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_finding_a_kind_loads_no_simulator():
    code = "from envs.registry import KINDS, find_kind; import sys; [find_kind(name) for name in KINDS];"
    code += "assert not {'mujoco', 'gymnax', 'gymnasium', 'dm_control', 'cv2'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
