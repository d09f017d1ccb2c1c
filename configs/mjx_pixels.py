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
    """The main job's small variant on another task; the settings that learn it within 80,000 frames."""
    config = ConfigDict(dmc_pixels.quick())
    config.update(
        exp_id="drq_ne_mjx_quick",
        preset="",
        seeds=(0,),
        over_seeds="auto",
        updates_per_step=1.0,
        batch_size=128,
        env=dict(name="cartpole_balance"),
        agent=dict(learning_rate=3e-4),
        replay=dict(discount=0.99),
    )
    return config.to_dict()


def smoke() -> dict:
    """One round of everything, in seconds; nothing is learned."""
    config = ConfigDict(dmc_pixels.smoke())
    mine = quick()
    config.update(exp_id="drq_ne_mjx_smoke", preset=mine["preset"], seeds=mine["seeds"], env=mine["env"])
    config.over_seeds = mine["over_seeds"]
    config.agent.learning_rate = mine["agent"]["learning_rate"]
    return config.to_dict()
