"""DrQ-v2 with Neuroplastic Expansion on Gymnax tasks, from pixels that are drawn on the device.

Environment, renderer, replay, updates and rounds of growth are one program; any number of seeds and environments per
seed train side by side. Variants: `:td3` and `:sac` have these agents with the same encoder, `:quick` learns something
within minutes on two CPU cores, `:smoke` only touches everything once. configs/common.py says what the other keys mean.
"""

from ml_collections import ConfigDict

from configs.common import base, continual, drq, sac, td3, with_variant


def get_config(variant: str = "") -> ConfigDict:
    """The settings of a variant: the full job, `td3`, `sac`, `quick` or `smoke`."""
    if variant == "td3":
        return full("td3_ne", td3(pixels=True))
    if variant == "sac":
        return full("sac_ne", sac(pixels=True))
    variants = {"td3": dict, "sac": dict, "quick": quick, "smoke": smoke}
    return with_variant(full("drq_ne", drq()), "gymnax_pixels", variant, variants)


def full(exp_id: str, agent: ConfigDict) -> ConfigDict:
    """The agent at its usual size, and a budget for tasks that are learned within 200,000 frames."""
    config = base(exp_id)
    config.total_frames = 200_000
    config.updates_per_step = 0.5
    config.agent = agent
    if "std_steps" in agent:
        agent.std_steps = 50_000
    config.replay.nstep = 3
    config.replay.reward_scale = 0.1  # for Pendulum, whose rewards go down to -16; set 1 for the other tasks

    env = config.env = ConfigDict()
    env.kind = "gymnax"
    env.name = "Pendulum-v1"  # MountainCarContinuous-v0, Reacher-misc, Swimmer-misc, PointRobot-misc
    env.num_envs = 1  # per seed
    env.pixels = True
    env.image_size = 84
    env.frame_stack = 3
    env.action_repeat = 2
    env.update(continual(physics=True))

    config.eval.every = 10_000
    config.video.every = 50_000
    return config


def quick() -> dict:
    """Small pictures and small nets."""
    return dict(
        exp_id="drq_ne_quick",
        seeds=(0, 1),
        total_frames=30_000,
        seed_frames=1_000,
        updates_per_step=1.0,
        batch_size=64,
        log_every=1_000,
        checkpoint_every=10_000,
        env=dict(image_size=32),
        agent=dict(
            learning_rate=5e-4,
            channels=16,
            strides=(2, 2, 1),
            projection=32,
            hidden=(128, 128),
            tau=0.02,
            std_steps=3_000,
            random_steps=500,
            shift_pad=1,
        ),
        replay=dict(discount=0.95),
        plasticity=dict(every=100, reset_every=2_000),
        eval=dict(every=3_000, episodes=5),
        video=dict(every=15_000, size=192),
    )


def smoke() -> dict:
    """One round of everything, in seconds; nothing is learned."""
    config = ConfigDict(quick())
    config.update(
        exp_id="drq_ne_smoke",
        total_frames=800,
        seed_frames=400,
        batch_size=8,
        log_every=200,
        checkpoint_every=400,
        agent=dict(hidden=(32, 32)),
        replay=dict(capacity=1_000),
        plasticity=dict(every=20, reset_every=40),
        eval=dict(every=400, episodes=1),
        video=dict(every=800, size=64),
    )
    return config.to_dict()
