"""`host_env`: makers that pickle, and settings that are checked before anything is made."""

import pickle

import pytest

from envs.registry import host_env


def test_maker_pickles():
    make = pickle.loads(pickle.dumps(host_env("dmc", "cartpole_balance", pixels=False, action_repeat=4)))
    env = make()
    assert env.spec.episode_steps == 250
    assert env.reset(0).shape == env.spec.scene.shape


@pytest.mark.parametrize(
    ("kind", "name", "settings", "message"),
    [
        ("dmcontrol", "walker_walk", {"pixels": False}, "env.kind='dmcontrol' is no kind .* choose from dmc"),
        ("dmc", "walker_wlak", {"pixels": False}, "walker_walk"),
        ("dmc", "walker_walk", {"pixels": False, "image_sise": 64}, "env.image_sise is no setting .* image_size"),
        ("dmc", "walker_walk", {"pixels": False, "action_repeat": 0}, "env.action_repeat"),
    ],
)
def test_mistakes_are_named_at_once(kind, name, settings, message):
    with pytest.raises(ValueError, match=message):
        host_env(kind, name, **settings)
