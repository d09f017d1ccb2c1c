"""TD3 with Neuroplastic Expansion on a task that changes while it learns: what plasticity is for.

The default is Pendulum-v1 from states, whose mass and length change; environments, replay and updates are one program.
This shows what it is like; what a method keeps of the ability to learn, beside a fresh network, is measured by
`python -m experiments.plasticity` (docs/plasticity.md).
Variants: `:mujoco` is a cycle of four MuJoCo tasks (needs the `gymnasium` extra), `:smoke` and `:mujoco_smoke` only
touch everything once. configs/common.py says what the other keys mean.
"""

from ml_collections import ConfigDict

from configs import gymnax_states, mujoco_states
from configs.common import with_variant


def get_config(variant: str = "") -> ConfigDict:
    """The settings of a variant: the full job, `smoke`, `mujoco` or `mujoco_smoke`."""
    config = mujoco() if variant.startswith("mujoco") else full()
    variants = {"smoke": smoke, "mujoco": dict, "mujoco_smoke": mujoco_smoke}
    return with_variant(config, "continual", variant, variants)


def full() -> ConfigDict:
    """Small nets, whose plasticity is soon used up, and pendulums that want different actions."""
    config = gymnax_states.get_config()
    config.exp_id = "td3_continual"
    config.total_frames = 40_000
    config.batch_size = 64
    config.agent.hidden = (64, 64)
    config.plasticity.every = 100

    physics = config.env.physics
    physics.m = (1.0, 0.3)
    physics.l = (1.0, 0.5)
    config.env.physics_every = 8_000

    config.eval.every = 1_000
    config.eval.episodes = 5
    config.video.every = 0
    return config


def mujoco() -> ConfigDict:
    """Four bodies in turn, a million frames each, twice; what one body's weights are good for, the next must undo."""
    config = mujoco_states.full()
    config.exp_id = "td3_continual"
    config.total_frames = 8_000_000
    config.env.sequence = ("Humanoid-v5", "Ant-v5", "Hopper-v5")
    config.env.switch_every = 1_000_000
    config.eval.every = 50_000
    config.eval.episodes = 3  # on each of the four tasks
    config.checkpoint_every = 250_000
    return config


def smoke() -> dict:
    """One round of everything, in seconds; nothing is learned."""
    return gymnax_states.smoke() | dict(
        exp_id="td3_continual_smoke",
        total_frames=600,
        env=dict(physics_every=150),
        video=dict(every=0),
    )


def mujoco_smoke() -> dict:
    """One round of everything, in seconds, with three of the tasks; nothing is learned."""
    return mujoco_states.smoke() | dict(
        exp_id="td3_continual_smoke",
        env=dict(name="HalfCheetah-v5", sequence=("Ant-v5", "Hopper-v5"), switch_every=120),
    )
