"""The main job: DrQ-v2 with Neuroplastic Expansion on DeepMind Control from pixels.

Variants: `--config=configs/dmc_pixels.py` for an accelerator, `:quick` learns something within minutes on two CPU
cores, `:smoke` only touches everything once. configs/common.py says what the other keys mean.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.common import base, continual, drq, with_variant


def get_config(variant: str = "") -> ConfigDict:
    """The settings of a variant: the full job, `quick` or `smoke`."""
    return with_variant(full(), "dmc_pixels", variant, {"quick": quick, "smoke": smoke})


def full() -> ConfigDict:
    """DrQ-v2's published settings for the task; the wide layers grow from 20 % to 75 % density."""
    config = base("drq_ne")
    config.preset = "drqv2"  # frames, replay, noise and what else was published for env.name; empty: as stands here
    config.updates_per_step = 0.5
    config.agent = drq()
    config.replay.nstep = 3

    env = config.env = ConfigDict()
    env.kind = "dmc"
    env.name = "cheetah_run"  # any task of the dm_control suite: domain_task
    env.num_envs = 1  # per seed
    env.pixels = True
    env.image_size = 84
    env.frame_stack = 3
    env.action_repeat = 2
    env.camera_id = placeholder(int)  # of the model; unset: 0, and 2 for the quadruped, as in DrQ-v2
    env.backend = "mujoco"  # on the host, or mjx: on the device, for the tasks that configs/mjx_pixels.py names
    env.renderer = "jax"  # draws on the device, without OpenGL; gl: MuJoCo's own renderer, on the host
    env.render_quality = "fast"  # canonical: with shadows and reflections, slow; smooth: no jagged edges
    env.workers = "thread"  # thread, process, serial or batch (one call for all): how they step side by side
    env.worker_timeout = 300.0  # seconds after which one that does not answer is started anew
    env.update(continual())
    return config


def quick() -> dict:
    """Small pictures, small nets, a task that is learned in some ten thousand steps; still every part of the job."""
    return dict(
        exp_id="drq_ne_quick",
        preset="small",  # the camera that follows the cart: in so small a picture from afar a pole hardly shows
        seeds=(0, 1),
        over_seeds="shard",  # a core for each seed
        total_frames=80_000,
        seed_frames=2_000,
        updates_per_step=2.0,
        batch_size=64,
        log_every=2_000,
        checkpoint_every=20_000,
        env=dict(name="cartpole_swingup", image_size=40, action_repeat=8, render_quality="smooth"),
        agent=dict(
            learning_rate=1e-3,
            channels=16,
            strides=(2, 2, 1, 1),
            projection=32,
            hidden=(128, 128),
            std_steps=4_000,
            noise_hold=2,
            preactivation_penalty=0.03,  # without it most policies saturate early on, and hold one action
            random_steps=250,
            shift_pad=2,
        ),
        # An agent step sums eight rewards of at most 1, and is as long as four of the full job.
        replay=dict(capacity=10_000, reward_scale=0.125, discount=0.97),
        plasticity=dict(every=100, reset_every=2_000),
        eval=dict(every=8_000, episodes=4),
        video=dict(every=40_000, size=192),
    )


def smoke() -> dict:
    """One round of everything, in seconds; nothing is learned."""
    config = ConfigDict(quick())
    config.update(
        exp_id="drq_ne_smoke",
        preset="",
        total_frames=2_400,
        seed_frames=400,
        updates_per_step=1.0,
        batch_size=8,
        log_every=800,
        checkpoint_every=1_600,
        agent=dict(hidden=(32, 32)),
        plasticity=dict(every=20, reset_every=40),
        eval=dict(every=1_200, episodes=1),
        video=dict(every=2_400, size=64),
    )
    return config.to_dict()
