"""The main job: DrQ-v2 with Neuroplastic Expansion on DeepMind Control from pixels.

Variants: `--config=configs/dmc_pixels.py` for an accelerator, `:quick` learns something within minutes on two CPU
cores, `:smoke` only touches everything once. Any key can be set on the command line: `--config.env.name=walker_walk`.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(variant: str = "") -> ConfigDict:
    """The settings of a variant: the full job, `quick` or `smoke`."""
    config = full()
    if variant == "quick":
        config.update(quick())
    elif variant == "smoke":
        config.update(quick())
        config.update(smoke())
    elif variant:
        raise ValueError(f"configs/dmc_pixels.py has no variant {variant!r}; take :quick, :smoke or none")
    return config


def full() -> ConfigDict:
    """DrQ-v2's published settings for tasks of medium difficulty; the wide layers grow from 20 % to 75 % density."""
    config = ConfigDict()
    config.exp_id = "drq_ne"  # results go to {results_dir}/{exp_id}_{env.name}
    config.results_dir = "results"
    config.resume = True  # go on from the newest checkpoint of the same experiment
    config.overwrite = False  # with resume=False: delete what an earlier run left
    config.seeds = (0, 1, 2, 3)  # trained side by side
    config.over_seeds = "auto"  # vmap, map (one seed after another in one program), or auto: map for pixels
    config.total_frames = 1_000_000  # environment frames per seed; an agent step is env.action_repeat of them
    config.seed_frames = 4_000  # frames before the first update
    config.update_every = 2  # agent steps per update
    config.batch_size = 256
    config.log_every = 5_000  # frames
    config.checkpoint_every = 50_000  # frames; also at the end and on Ctrl-C

    env = config.env = ConfigDict()
    env.kind = "dmc"
    env.name = "cheetah_run"  # any task of the dm_control suite: domain_task
    env.pixels = True
    env.image_size = 84
    env.frame_stack = 3
    env.action_repeat = 2
    env.camera_id = placeholder(int)  # of the model; unset: 0, and 2 for the quadruped, as in DrQ-v2
    env.render_quality = "fast"  # canonical: dm_control's own picture, with shadows and reflections; slow without a GPU
    env.workers = "thread"  # thread, process or serial: how the seeds' environments step side by side

    agent = config.agent = ConfigDict()
    agent.name = "drq"
    agent.learning_rate = 1e-4
    agent.channels = 32  # of each convolution
    agent.strides = (2, 1, 1, 1)  # one convolution each
    agent.projection = 50  # features after the encoder
    agent.hidden = (1024, 1024)  # widths of actor and critic
    agent.tau = 0.01  # target networks' rate
    agent.std_initial = 1.0  # exploration noise at the start ...
    agent.std_final = 0.1  # ... and after std_steps agent steps
    agent.std_steps = 500_000
    agent.std_clip = 0.3  # of the noise in the losses
    agent.random_steps = 2_000  # agent steps of uniformly random actions
    agent.shift_pad = 4  # largest random shift, pixels
    agent.conv = "auto"  # xla, im2col (convolution as a matrix product), or auto: im2col on a CPU

    replay = config.replay = ConfigDict()
    replay.capacity = 100_000  # scenes per seed; 21 KB each at 84x84
    replay.nstep = 3
    replay.discount = 0.99  # per agent step

    plasticity = config.plasticity = ConfigDict()
    plasticity.method = "ne"  # ne, static (sparse, never changes), none (dense: DrQ-v2 and nothing else)
    plasticity.initial_sparsity = 0.8  # of the hidden layers of actor and critic
    plasticity.final_sparsity = 0.25
    plasticity.distribution = "erdos_renyi"  # of density over layers; or uniform
    plasticity.schedule = "cosine"  # of density over time; or linear
    plasticity.grow_until = 0.5  # share of all updates after which the density is final
    plasticity.every = 1_000  # updates per round of growing and pruning
    plasticity.prune = "dormant"  # or none
    plasticity.omega = 0.4  # pruned at most, as a share of what is grown in the round
    plasticity.tau = 0.0  # a unit is dormant at or below this score
    plasticity.birth = "zero"  # value of newborn weights: zero or lecun

    evaluation = config.eval = ConfigDict()
    evaluation.every = 20_000  # frames
    evaluation.episodes = 10  # per seed

    video = config.video = ConfigDict()
    video.every = 200_000  # frames, rounded up to the next evaluation; also the last one; 0 for none
    video.size = 256  # pixels
    video.fps = 30
    return config


def quick() -> dict:
    """Small pictures, small nets, a task that is learned in some ten thousand steps; still every part of the job."""
    return dict(
        exp_id="drq_ne_quick",
        seeds=(0, 1),
        total_frames=60_000,
        seed_frames=2_000,
        update_every=1,
        batch_size=64,
        log_every=2_000,
        checkpoint_every=20_000,
        env=dict(name="cartpole_swingup", image_size=40, action_repeat=8),
        agent=dict(
            learning_rate=5e-4,
            channels=16,
            strides=(2, 2, 1, 1),
            projection=32,
            hidden=(128, 128),
            std_steps=4_000,
            random_steps=250,
            shift_pad=2,
        ),
        replay=dict(capacity=10_000),
        plasticity=dict(every=100),
        eval=dict(every=6_000, episodes=4),
        video=dict(every=30_000, size=192),
    )


def smoke() -> dict:
    """One round of everything, in seconds; nothing is learned."""
    return dict(
        exp_id="drq_ne_smoke",
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
