"""A config file of the smallest runs: `--config=tests/support/tiny_config.py:KIND-VIEW-AGENT`, such as
`gymnax-states-td3`. Fifty steps with updates, rounds and, unless something is set otherwise, no evaluation."""

from agents.encoder import VisionSettings
from configs.common import base, continual, defaults
from envs.registry import find_kind
from experiments.build.agent import AGENTS
from experiments.build.default_settings import EnvSettings
from settings import settings_of

NAMES = {
    "dmc": "cartpole_swingup",
    "gymnasium": "InvertedPendulum-v5",
    "dm_env": "dm_worlds:world",
    "gymnax": "Pendulum-v1",
    "mjx": "cartpole_balance",
    "own_kinds:HOST": "right",
    "own_kinds:DEVICE": "right",
}
"""A task of each kind, two from outside among them."""
STEPS = 50
ON_HOST = ("dmc", "gymnasium", "dm_env", "own_kinds:HOST")


def get_config(variant):
    kind, view, agent = variant.rsplit("-", 2)
    config, pixels = base("tiny"), view == "pixels"
    config.agent = defaults(
        each for part in (AGENTS[agent].settings, VisionSettings)[: 1 + pixels] for each in settings_of(part)
    )
    config.agent.name = agent
    config.agent.hidden = (8, 8)
    config.agent.random_steps = 5
    if pixels:
        config.agent.update(channels=4, strides=(2, 2), projection=6, shift_pad=1)
    _set_env(config, kind, pixels)
    frames = config.env.action_repeat
    config.update(seeds=(0,), total_frames=STEPS * frames, seed_frames=10 * frames, batch_size=4, log_every=20 * frames)
    config.update(checkpoint_every=10**6, compile_cache=False, replay=dict(capacity=100))
    config.update(
        plasticity=dict(every=6, reset_every=12), eval=dict(every=0, episodes=1), video=dict(every=0, size=16)
    )
    return config


def _set_env(config, kind, pixels):
    found = find_kind(kind)
    config.env = defaults(each for each in settings_of(found.settings) if each.key != "physics")
    config.env.update(kind=kind, name=NAMES[kind], num_envs=1, frame_stack=1, **continual(physics=kind == "gymnax"))
    if pixels:
        config.env.update(pixels=True, image_size=16)
    elif "action_repeat" not in config.env:  # a kind without such settings
        config.env.update(action_repeat=1, pixels=False)
    if kind in ON_HOST:
        own = ("workers", "worker_timeout")
        config.env.update({each.key: each.default for each in settings_of(EnvSettings) if each.key in own})
