"""TD3 with Neuroplastic Expansion on Gymnasium's MuJoCo tasks, from states; needs the `gymnasium` extra.

`--config.plasticity.method=none` is TD3 as published. Variants: `:halfcheetah_100k` is the run whose curve is in
docs/, `:smoke` only touches everything once. configs/common.py says what the other keys mean.
"""

from ml_collections import ConfigDict

from configs.common import base, continual, td3, with_variant


def get_config(variant: str = "") -> ConfigDict:
    """The settings of a variant: the full job, `halfcheetah_100k` or `smoke`."""
    return with_variant(full(), "mujoco_states", variant, {"halfcheetah_100k": halfcheetah_100k, "smoke": smoke})


def full() -> ConfigDict:
    """TD3's published settings; the hidden layers grow from 20 % to 75 % density."""
    config = base("td3_ne")
    config.seed_frames = 25_000
    config.agent = td3()
    config.replay.capacity = 1_000_000

    env = config.env = ConfigDict()
    env.kind = "gymnasium"
    env.name = "HalfCheetah-v5"  # Hopper-v5, Walker2d-v5, Ant-v5, Humanoid-v5, ...
    env.num_envs = 1  # per seed
    env.pixels = False
    env.frame_stack = 1
    env.action_repeat = 1
    env.workers = "serial"  # or thread, process: how environments step side by side; a step is shorter than a hand-over
    env.worker_timeout = 300.0  # seconds after which one that does not answer is started anew
    env.update(continual())

    config.video.every = 0  # videos of these tasks need OpenGL
    return config


def halfcheetah_100k() -> dict:
    """Dense TD3, the first 100,000 of the usual 1M steps."""
    return dict(
        exp_id="td3_100k",
        seeds=(0, 1, 2),
        total_frames=100_000,
        replay=dict(capacity=101_000),
        plasticity=dict(method="none"),
        eval=dict(every=10_000, episodes=5),
    )


def smoke() -> dict:
    """One round of everything, in seconds; nothing is learned."""
    return dict(
        exp_id="td3_ne_smoke",
        seeds=(0, 1),
        total_frames=400,
        seed_frames=200,
        batch_size=8,
        log_every=100,
        checkpoint_every=200,
        env=dict(name="Hopper-v5"),
        agent=dict(hidden=(32, 32), random_steps=100),
        replay=dict(capacity=1_000),
        plasticity=dict(every=20, reset_every=40),
        eval=dict(every=200, episodes=1),
    )
