"""TD3 on the same pendulum behind other labels, task after task: what of the ability to learn is left?"""

from ml_collections import ConfigDict

from configs import gymnax_states
from configs.common import with_variant


def get_config(variant: str = "") -> ConfigDict:
    return with_variant(full(), "relabelled", variant, {})


def full() -> ConfigDict:
    config = gymnax_states.get_config()
    config.exp_id = "td3_relabelled"
    config.seeds = tuple(range(10))
    config.env.relabel.every = 4_000
    config.total_frames = 20_000
    config.seed_frames = 500
    config.updates_per_step = 4.0
    config.batch_size = 64
    config.agent.update(hidden=(64, 64), random_steps=500)
    config.replay.update(capacity=4_100, discount=0.98, reward_scale=0.1, clear_on_switch=True)
    config.explore_on_switch = True
    config.log_every = 400
    config.metrics_every = 1_000_000_000
    config.checkpoint_every = 1_000_000_000
    config.eval.every = 0
    config.video.every = 0
    return config
