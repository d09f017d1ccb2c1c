"""TD3 with Neuroplastic Expansion on Gymnax tasks, from states; environments, replay and updates in one program.

`:sac` has SAC in TD3's place, `:smoke` only touches everything once. configs/common.py says what the other keys mean.
"""

from ml_collections import ConfigDict

from configs.common import base, continual, sac, td3, with_variant


def get_config(variant: str = "") -> ConfigDict:
    """The settings of a variant: the full job, `sac` or `smoke`."""
    if variant == "sac":
        return full("sac_ne", sac())
    return with_variant(full("td3_ne", td3()), "gymnax_states", variant, {"sac": dict, "smoke": smoke})


def full(exp_id: str, agent: ConfigDict) -> ConfigDict:
    """Small nets for small tasks: five seeds learn Pendulum-v1 within minutes on two CPU cores."""
    config = base(exp_id)
    config.seeds = (0, 1, 2, 3, 4)
    config.total_frames = 20_000
    config.seed_frames = 1_000
    config.batch_size = 128
    config.log_every = 1_000
    config.checkpoint_every = 10_000
    config.agent = agent
    config.agent.update(learning_rate=1e-3, hidden=(128, 128), random_steps=1_000)
    config.replay.capacity = 100_000
    config.plasticity.every = 200
    config.plasticity.reset_every = 5_000

    env = config.env = ConfigDict()
    env.kind = "gymnax"
    env.name = "Pendulum-v1"  # MountainCarContinuous-v0, Reacher-misc, Swimmer-misc, PointRobot-misc
    env.num_envs = 1  # per seed
    env.pixels = False
    env.frame_stack = 1
    env.action_repeat = 1
    env.update(continual(physics=True))

    config.eval.every = 2_000
    config.video.every = 10_000
    config.video.size = 128
    return config


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
        agent=dict(hidden=(32, 32), random_steps=100),
        replay=dict(capacity=1_000),
        plasticity=dict(every=20, reset_every=40),
        eval=dict(every=200, episodes=1),
        video=dict(every=400, size=64),
    )
