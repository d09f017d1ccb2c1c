"""The same pendulum behind other labels, task after task: what of the ability to learn is left?

TD3 from states; every 4,000 frames come another order, other signs and offsets of the features, and another sign of the
action. The replay is emptied then and exploration begins again, so that a task differs from the first one in nothing
but the networks that meet it. Dense as it is, which loses all of it; `--config.plasticity.method` sets a method, and
`--config.fresh_on_switch=True` shows what new networks reach. Variants: `:pixels` is DrQ-v2 from little pictures that
are mirrored, turned and coloured otherwise, `:smoke` and `:pixels_smoke` only touch everything once. configs/common.py
says what the other keys mean.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import gymnax_pixels, gymnax_states
from configs.common import drq, td3, with_variant


def get_config(variant: str = "") -> ConfigDict:
    """The settings of a variant: the full job from states, `pixels`, `smoke` or `pixels_smoke`."""
    config = pixels() if variant.startswith("pixels") else states()
    variants = {"pixels": dict, "smoke": smoke, "pixels_smoke": pixels_smoke}
    return with_variant(config, "relabelled", variant, variants)


def states() -> ConfigDict:
    """Five tasks of 3,500 steps with four updates each, after 500 random ones."""
    return _relabelled(
        gymnax_states.full("td3_relabelled", td3()),
        tasks=5,
        over_seeds="vmap",  # networks so small are twice as fast side by side
        every=4_000,
        seed_frames=500,
        updates_per_step=4.0,
        batch_size=32,
        log_every=400,  # two episodes
        agent=dict(learning_rate=1e-3, hidden=(64, 64), random_steps=500),
        replay=dict(capacity=4_100, discount=0.98, reward_scale=0.1),
        plasticity=dict(every=200, reset_every=2_000),
    )


def pixels() -> ConfigDict:
    """Eight tasks of 500 steps with eight updates each, after 100 random ones; an episode has 50 steps.

    A pendulum so strong and slow that a single little picture says what to do; torque costs reward. The networks are
    just large enough for it: wider ones lose half of their units and learn all the same.
    """
    return _relabelled(
        gymnax_pixels.full("drq_relabelled", drq()),
        tasks=8,
        every=2_400,
        over_seeds="vmap",  # matrix products, which these convolutions are on a CPU, do not become grouped convolutions
        seed_frames=400,
        updates_per_step=8.0,
        batch_size=32,
        log_every=400,  # two episodes
        env=dict(image_size=16, frame_stack=1, action_repeat=4, physics=dict(max_torque=(50.0,), max_speed=(2.0,))),
        agent=dict(
            learning_rate=4e-3,
            channels=4,
            strides=(2, 2),
            projection=8,
            hidden=(16, 16),
            tau=0.01,
            std_steps=400,
            random_steps=100,
            shift_pad=0,
        ),
        replay=dict(capacity=700, store="frame", nstep=1, discount=0.97, reward_scale=0.1),
        plasticity=dict(every=200, reset_every=1_600),
    )


def _relabelled(config: ConfigDict, tasks: int, every: int, **changes: Any) -> ConfigDict:
    """Ten seeds on so many tasks of `every` frames; nothing is measured but where a task ends, and nothing filmed."""
    config.seeds = tuple(range(10))
    config.plasticity.method = "none"
    config.env.relabel.every = every
    config.total_frames = tasks * every
    config.replay.clear_on_switch = config.explore_on_switch = True
    config.metrics_every = config.checkpoint_every = 1_000_000
    config.eval.every = config.video.every = 0
    config.update(changes)
    return config


def smoke() -> dict:
    """Three tasks, in seconds; nothing is learned."""
    return dict(
        exp_id="td3_relabelled_smoke",
        seeds=(0, 1),
        total_frames=600,
        seed_frames=50,
        updates_per_step=1.0,
        batch_size=8,
        log_every=100,
        env=dict(relabel=dict(every=200)),
        agent=dict(hidden=(32, 32), random_steps=50),
        replay=dict(capacity=300),
        plasticity=dict(every=20, reset_every=40),
    )


def pixels_smoke() -> dict:
    """Two tasks, in seconds; nothing is learned."""
    return dict(
        exp_id="drq_relabelled_smoke",
        seeds=(0, 1),
        total_frames=800,
        seed_frames=100,
        batch_size=8,
        log_every=200,
        env=dict(relabel=dict(every=400)),
        agent=dict(hidden=(32, 32), random_steps=10),
        replay=dict(capacity=300),
        plasticity=dict(every=20, reset_every=40),
    )
