"""Seeds over devices: as on one device, and nothing of the doubles that fill the places leaves them."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from configs.gymnax_states import get_config
from experiments.build.checks import validate
from experiments.build.devices import choose_devices
from experiments.train.devices import SeedDevices

SUPPORT = Path(__file__).parents[2] / "support"


@pytest.mark.parametrize(
    "case",
    [
        "quick",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("kept", "more", "td3", "drq", "td3_program")),
    ],
)
def test_seeds_over_devices_are_those_of_one(case):
    done = subprocess.run(
        [sys.executable, "-W", "error", str(SUPPORT / "four_devices.py"), case],
        env=os.environ | {"PYTHONPATH": str(SUPPORT.parents[1])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"{case} holds" in done.stdout


def test_one_device_has_no_doubles():
    devices, tree = SeedDevices(3), {"a": jax.numpy.arange(3)}
    assert devices.places == 3 and devices.count == 1
    assert devices.fill(tree) is tree and devices.drop(tree) is tree


def config_of(**settings):
    config = get_config("smoke")
    config.update(seeds=(0, 1, 2), **settings)
    return config


@pytest.mark.parametrize("how", ["vmap", "map"])
def test_all_on_one_device_and_several_contradict_each_other(how):
    with pytest.raises(ValueError, match=f"over_seeds={how} keeps all seeds on one device, and devices=2; set"):
        validate(config_of(over_seeds=how, devices=2))


def test_more_devices_than_there_are():
    jax.local_devices()  # jax has begun, with the one of this process
    with pytest.raises(ValueError, match=r"devices=2, and there are 1 \(cpu\): "):
        choose_devices(config_of(devices=2))


@pytest.mark.parametrize("settings", [{}, {"devices": 1}, {"over_seeds": "map"}, {"devices": 1, "over_seeds": "shard"}])
def test_one_device_where_one_is_asked_for_or_all_there_is(settings):
    assert choose_devices(config_of(**settings)) == SeedDevices(3)
