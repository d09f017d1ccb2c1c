"""Settings that all configs share, with their meaning. Any key can be set on the command line: `--config.KEY=VALUE`.

Each config file starts from `base`, adds an agent and an environment, and names its variants. What an agent's keys mean
is said in its file, agents/NAME.py; those of what sees pixels in agents/encoder.py.
"""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from agents.drq import DrQSettings
from agents.encoder import VisionSettings
from agents.sac import SACSettings
from agents.td3 import TD3Settings
from settings import settings_of


def base(exp_id: str) -> ConfigDict:
    """Everything but the agent and the environment; budgets are those of the full-size pixel job."""
    config = ConfigDict()
    config.exp_id = exp_id  # results go to {results_dir}/{exp_id}_{env.name}
    config.results_dir = "results"
    config.resume = True  # go on from the newest checkpoint of the same experiment
    config.overwrite = False  # with resume=False: delete what an earlier run left
    config.seeds = (0, 1, 2, 3)  # trained side by side
    config.over_seeds = "auto"  # vmap, map (one seed after another in one program), or auto: map for pixels
    config.total_frames = 1_000_000  # environment frames per seed; a step takes env.action_repeat * env.num_envs
    config.seed_frames = 4_000  # frames before the first update
    config.updates_per_step = 1.0  # a step is one agent step of every environment; 0.5: an update every second step
    config.batch_size = 256
    config.log_every = 5_000  # frames
    config.metrics_every = 0  # updates from one measurement of plasticity to the next; 0: at each log point
    config.checkpoint_every = 50_000  # frames; also at the end and on Ctrl-C

    replay = config.replay = ConfigDict()
    replay.capacity = 100_000  # scenes per seed, shared by its environments
    replay.store = "auto"  # scene (drawn when sampled), frame (what was observed), or auto: frame while memory lasts
    replay.nstep = 1
    replay.nstep_from = 0  # agent steps before which returns sum a single step
    replay.discount = 0.99  # per agent step
    vary = replay.vary = ConfigDict()  # stored scenes drawn differently for each sampled transition; 0: as they were
    vary.camera = 0.0  # degrees, at most, that the camera moves around what can move
    vary.colour = 0.0  # share, at most, by which red, green and blue of each surface change
    vary.light = 0.0  # share, at most, by which all light changes
    replay.reward_scale = 1.0  # what agents learn from is this times the reward; make it about 1 per agent step
    dynamic = replay.dynamic = ConfigDict()  # forgets its oldest tenth when the policy has moved far from it
    dynamic.on = False
    dynamic.min_size = 10_000  # transitions that are always kept
    dynamic.threshold = 0.2  # half the mean squared difference of actions, in [-1, 1], from which on it forgets
    dynamic.every = 10_000  # agent steps from one look at the distance to the next

    review = config.review = ConfigDict()  # updates that learn from early data, by the critic's share of active units
    review.mode = "none"  # slope (the steadier the share, the more), gate (while it is low), none
    review.every = 100  # updates from one measurement of the share to the next
    review.fraction = 0.3  # the oldest part of the replay, which is reviewed
    review.awaken = 0.4  # gate: share below which it reviews
    review.gain = 0.9  # gate: how often it does; probability 1 - 1 / (1 + gain * exp(awaken - share))
    review.window = 10  # slope: measurements that it is taken over
    review.most = 0.5  # slope: probability while the share is steady
    review.auto_batch = False  # learn from half of each batch while the share is below 0.9 * awaken; goes with any mode

    plasticity = config.plasticity = ConfigDict()
    # none (dense), ne, static, set, rigl, random_grow, magnitude_prune, redo, grama, reset, shrink_and_perturb,
    # plasticity_injection, regenerative_l2; docs/method.md says what each is. Some go together: ne+redo
    plasticity.method = "ne"
    plasticity.preset = ""  # paper or released: sets keys over the config file's, see docs/method.md
    for name in ("actor", "critic"):  # unset: as for both
        own = plasticity[name] = ConfigDict()
        own.method = placeholder(str)
        own.initial_sparsity = placeholder(float)
        own.final_sparsity = placeholder(float)
    plasticity.initial_sparsity = 0.8  # of the hidden layers of actor and critic; static, set and rigl stay there
    plasticity.final_sparsity = 0.25  # of ne, random_grow and magnitude_prune, which begins dense
    plasticity.distribution = "erdos_renyi"  # of density over layers; or uniform
    plasticity.schedule = "cosine"  # of density over time; or linear
    plasticity.grow_until = 0.5  # share of all updates after which the density is final
    plasticity.growth_rate = 0.0  # share of the final growth that is born per round, in place of grow_until; 0: off
    plasticity.every = 1_000  # updates per round of growing and pruning, or of redo and grama
    plasticity.grad_accumulation = 1  # a round sees the mean gradient of so many updates
    plasticity.grow = "gradient"  # where weights are born: at the largest gradients, or random
    plasticity.prune = "dormant"  # weights into dormant units, by activity or by gradient (grama); magnitude; none
    plasticity.omega = 0.4  # pruned at most, as a share of what is grown in the round
    plasticity.tau = 0.0  # a unit is dormant at or below this score
    plasticity.birth = "zero"  # value of newborn weights: zero or lecun
    plasticity.revive = "none"  # units without incoming weights: none, bias (small, positive), lecun (a few weights)
    plasticity.after = "fixed"  # the topology once grown; or rewire, as rigl does
    plasticity.rewire_fraction = 0.3  # exchanged per round by rigl (annealed), set (always), and after=rewire
    plasticity.rewire_until = 0.75  # share of all updates after which rigl and after=rewire stop
    plasticity.reset_tau = 0.1  # redo and grama recycle units at or below this score
    plasticity.reset_every = 20_000  # updates from one reset, or shrink_and_perturb, to the next
    plasticity.reset_layers = "all"  # of actor and critic, never the encoder; or last: their heads
    plasticity.shrink = 0.8  # shrink_and_perturb: weights are so many times the old ones ...
    plasticity.perturb = 0.2  # ... plus so many times fresh ones
    plasticity.inject_at = 0.5  # plasticity_injection: share of all updates before it
    plasticity.l2_init = 1e-3  # regenerative_l2: strength of the pull towards the initial weights

    evaluation = config.eval = ConfigDict()
    evaluation.every = 20_000  # frames
    evaluation.episodes = 10  # per seed

    video = config.video = ConfigDict()
    video.every = 200_000  # frames, rounded up to the next evaluation; also the last one; 0 for none
    video.size = 256  # pixels
    video.fps = 30
    return config


def drq() -> ConfigDict:
    """DrQ-v2's published settings for tasks of medium difficulty."""
    return agent("drq", DrQSettings, pixels=True)


def td3(pixels: bool = False) -> ConfigDict:
    """TD3's published settings for MuJoCo; from pixels with DrQ-v2's encoder."""
    return agent("td3", TD3Settings, pixels)


def sac(pixels: bool = False) -> ConfigDict:
    """SAC's published settings for MuJoCo; from pixels with DrQ-v2's encoder."""
    return agent("sac", SACSettings, pixels)


def agent(name: str, settings: type, pixels: bool) -> ConfigDict:
    """An agent with its default settings, and those of DrQ-v2's encoder and augmentation if it sees pixels."""
    parts = (settings, VisionSettings) if pixels else (settings,)
    defaults = {each.key: each.default for part in parts for each in settings_of(part)}
    return ConfigDict({"name": name} | defaults)


def continual(physics: bool = False) -> ConfigDict:
    """Settings of an environment that changes during a run; as they are here, nothing changes."""
    env = ConfigDict()
    env.sequence = ()  # tasks that come after env.name, in turn, and then env.name again: ("Ant-v5", "Hopper-v5")
    env.switch_every = 0  # frames until the next of them
    if physics:
        # Parameters of the task, each with the values that it takes in turn, as many of each, such as m=(1.0, 2.0); a
        # single value stays, and () is the task's own. A config file may add others of gymnax's EnvParams. What a
        # picture shows does not change with them: from pixels, a longer pendulum looks like any other.
        env.physics = ConfigDict()
        for name in ("g", "m", "l", "max_torque", "max_speed", "dt"):  # Pendulum-v1; Reacher-misc and Swimmer-misc: dt
            env.physics[name] = ()
        for name in ("power", "gravity", "torque_scale", "max_force"):  # the car's two, Reacher-misc, PointRobot-misc
            env.physics[name] = ()
        env.physics_every = 0  # frames until the next value; after the last one comes the first again
        env.physics_change = "switch"  # at once, or drift: evenly from one value to the next
    return env


def with_variant(config: ConfigDict, file: str, variant: str, variants: dict[str, Callable[[], dict[str, Any]]]) -> Any:
    """`config` with the changes of one of its `variants`, which follows the file name and a colon; none if empty."""
    if variant and variant not in variants:
        known = ", ".join(f":{name}" for name in variants)
        raise ValueError(f"configs/{file}.py has no variant {variant!r}; take {known} or none")
    if variant:
        config.update(variants[variant]())
    return config
