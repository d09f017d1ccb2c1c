"""TD3 with Neuroplastic Expansion on the DeepMind Control suite, from states.

`:smoke` only touches everything once. configs/common.py says what the other keys mean.
"""

from ml_collections import ConfigDict

from configs.common import base, continual, td3, with_variant


def get_config(variant: str = "") -> ConfigDict:
    """The settings of a variant: the full job or `smoke`."""
    return with_variant(full(), "dmc_states", variant, {"smoke": smoke})


def full() -> ConfigDict:
    """TD3's published settings; the hidden layers grow from 20 % to 75 % density."""
    config = base("td3_ne")
    config.seed_frames = 25_000
    config.agent = td3()
    config.replay.capacity = 1_000_000

    env = config.env = ConfigDict()
    env.kind = "dmc"
    env.name = "cheetah_run"  # any task of the dm_control suite: domain_task
    env.num_envs = 1  # per seed
    env.pixels = False
    env.frame_stack = 1
    env.action_repeat = 1
    env.backend = "mujoco"  # on the host, or mjx: on the device, for the tasks that configs/mjx_pixels.py names
    env.renderer = "jax"  # of videos, without OpenGL; gl: MuJoCo's own renderer
    env.workers = "serial"  # a step is shorter than a hand-over to thread or process; batch: one call for many of them
    env.worker_timeout = 300.0  # seconds after which one that does not answer is started anew
    env.update(continual())
    return config


def smoke() -> dict:
    """One round of everything, in seconds; nothing is learned."""
    return dict(
        exp_id="td3_ne_smoke",
        seeds=(0, 1),
        total_frames=2_400,
        seed_frames=1_200,
        batch_size=8,
        log_every=800,
        checkpoint_every=1_600,
        env=dict(name="cartpole_swingup", action_repeat=8),
        agent=dict(hidden=(32, 32), random_steps=100),
        replay=dict(capacity=1_000),
        plasticity=dict(every=20, reset_every=40),
        eval=dict(every=1_200, episodes=1),
    )
