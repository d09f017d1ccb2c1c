"""DrQ-v2 with Neuroplastic Expansion on DeepMind Control from pixels, physics and pictures both on the device.

As configs/dmc_pixels.py, but with MJX physics, so that environment, renderer, replay and updates are one program.
Tasks: cartpole_balance, cartpole_balance_sparse, cartpole_swingup, cartpole_swingup_sparse, pendulum_swingup,
acrobot_swingup, acrobot_swingup_sparse, ball_in_cup_catch, reacher_easy, reacher_hard, finger_spin, finger_turn_easy,
finger_turn_hard, cheetah_run, walker_stand, walker_walk, walker_run, hopper_stand, hopper_hop. Needs `mujoco-mjx`.

Variants: `:quick` learns something within minutes on two CPU cores, `:smoke` only touches everything once.
"""

from ml_collections import ConfigDict

from configs import dmc_pixels
from configs.common import with_variant


def get_config(variant: str = "") -> ConfigDict:
    """The settings of a variant: the full job, `quick` or `smoke`."""
    return with_variant(full(), "mjx_pixels", variant, {"quick": quick, "smoke": smoke})


def full() -> ConfigDict:
    """The main job's settings; more environments per seed make more of an accelerator."""
    config = dmc_pixels.full()
    config.env.backend = "mjx"
    return config


def quick() -> dict:
    """Small pictures, whose smooth edges show small movements; small nets."""
    return dict(
        exp_id="drq_ne_mjx_quick",
        seeds=(0,),
        total_frames=80_000,
        seed_frames=2_000,
        updates_per_step=1.0,
        batch_size=128,
        log_every=2_000,
        checkpoint_every=20_000,
        env=dict(name="cartpole_balance", image_size=40, action_repeat=8, render_quality="smooth"),
        agent=dict(
            learning_rate=3e-4,
            channels=16,
            strides=(2, 2, 1, 1),
            projection=32,
            hidden=(128, 128),
            std_steps=4_000,
            random_steps=250,
            shift_pad=2,
        ),
        replay=dict(capacity=10_000, reward_scale=0.125),  # an agent step sums eight rewards of at most 1
        plasticity=dict(every=100),
        eval=dict(every=6_000, episodes=4),
        video=dict(every=30_000, size=192),
    )


def smoke() -> dict:
    """One round of everything, in seconds; nothing is learned."""
    config = ConfigDict(quick())
    config.update(
        exp_id="drq_ne_mjx_smoke",
        total_frames=2_400,
        seed_frames=400,
        batch_size=8,
        log_every=800,
        checkpoint_every=1_600,
        agent=dict(hidden=(32, 32)),
        plasticity=dict(every=20),
        eval=dict(every=1_200, episodes=1),
        video=dict(every=2_400, size=64),
    )
    return config.to_dict()
