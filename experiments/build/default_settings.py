"""The settings of a run but for those of its agent and environment, which stand beside their code.

`configs/common.py` makes configs of these, `experiments.build.checks` checks them, `docs/settings.md` lists them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from envs.relabel import RelabelSettings
from settings import group, setting


@dataclass(frozen=True)
class VarySettings:
    """Stored scenes drawn differently for each sampled transition; all 0: as they were."""

    camera: float = setting(
        0.0, "largest angle by which the camera moves around what can move", unit="degrees", least=0, below=90
    )
    colour: float = setting(0.0, "largest share by which red, green and blue of each surface change", least=0, below=1)
    light: float = setting(0.0, "largest share by which all light changes", least=0, below=1)


@dataclass(frozen=True)
class DynamicSettings:
    """A replay that forgets its oldest tenth when the policy has moved far from the one that collected it."""

    on: bool = setting(False, "whether it does")
    min_size: int = setting(10_000, "what is always kept", unit="transitions", least=1)
    threshold: float = setting(0.2, "half the mean squared difference of actions from which on it forgets", least=0)
    every: int = setting(10_000, "from one check of that difference to the next", unit="agent steps", least=1)


@dataclass(frozen=True)
class ReplaySettings:
    """What the agent learns from."""

    capacity: int = setting(100_000, "of each seed, shared by its environments", unit="scenes")
    store: Literal["auto", "scene", "frame"] = setting(
        "auto", "scenes, drawn when sampled, or frames, as they were observed; auto: frames while memory lasts"
    )
    nstep: int = setting(1, "rewards that a return sums before it bootstraps", unit="agent steps", least=1)
    nstep_from: int = setting(0, "until then, returns sum a single reward", unit="agent steps", least=0)
    discount: float = setting(0.99, "per agent step", least=0, most=1)
    vary: VarySettings = group(VarySettings)
    reward_scale: float = setting(
        1.0, "agents learn from this times the reward; best where that is about 1 per agent step", above=0
    )
    clear_on_switch: bool = setting(
        False, "where tasks take turns, each begins with an empty replay, and with seed_frames without an update"
    )
    dynamic: DynamicSettings = group(DynamicSettings)


@dataclass(frozen=True)
class ReviewSettings:
    """Experience review: updates that learn from early data, by the critic's share of active units."""

    mode: Literal["none", "slope", "gate"] = setting(
        "none", "slope: the steadier the share, the more is reviewed; gate: while the share is low"
    )
    every: int = setting(100, "from one measurement of the share to the next", unit="updates", least=1)
    fraction: float = setting(0.3, "the oldest part of the replay, which is reviewed", above=0, most=1)
    awaken: float = setting(0.4, "gate: the share below which it reviews", least=0, most=1)
    gain: float = setting(0.9, "gate: probability 1 - 1 / (1 + gain * exp(awaken - share))", above=0)
    window: int = setting(10, "slope: what it is taken over", unit="measurements", least=2)
    most: float = setting(0.5, "slope: the probability of a review while the share is steady", above=0, most=1)
    auto_batch: bool = setting(
        False, "learn from half of each batch while the share is below 0.9 * awaken; goes with any mode"
    )


@dataclass(frozen=True)
class NetworkPlasticity:
    """What one network has of its own; unset: as `plasticity.*` says for both."""

    method: str | None = setting(None, "its method")
    initial_sparsity: float | None = setting(None, "its share of absent weights at the start", least=0, below=1)
    final_sparsity: float | None = setting(None, "its share of absent weights at the end", least=0, below=1)


@dataclass(frozen=True)
class PlasticitySettings:
    """How the networks change beside what their optimiser does; docs/method.md says what each method is."""

    method: str = setting("ne", "none (dense), a method, or several joined by +, such as ne+redo")
    preset: Literal["", "paper", "released"] = setting("", "sets keys over the config file's, see docs/method.md")
    actor: NetworkPlasticity = group(NetworkPlasticity)
    critic: NetworkPlasticity = group(NetworkPlasticity)
    initial_sparsity: float = setting(
        0.8, "absent weights of actor's and critic's hidden layers; static, set and rigl stay there", least=0, below=1
    )
    final_sparsity: float = setting(
        0.25, "absent weights at the end of ne, random_grow and magnitude_prune, which begins dense", least=0, below=1
    )
    distribution: Literal["erdos_renyi", "uniform"] = setting("erdos_renyi", "of density over layers")
    first_masks: Literal["random", "largest"] = setting("random", "the weights that sparse layers begin with")
    schedule: Literal["cosine", "linear"] = setting("cosine", "of density over time")
    grow_until: float = setting(0.5, "share of all updates after which the density is final", above=0, most=1)
    growth_rate: float = setting(
        0.0, "share of the final growth that is born per round, in place of grow_until; 0: off", least=0, below=1
    )
    every: int = setting(
        1_000, "from one round of growing and pruning, or of redo and grama, to the next", unit="updates", least=1,
    )  # fmt: skip
    grad_accumulation: int = setting(1, "newest gradients whose mean a round sees", unit="updates", least=1)
    grow: Literal["gradient", "random"] = setting(
        "gradient", "where weights are born: at the largest gradients, or not"
    )
    prune: Literal["dormant", "grama", "magnitude", "none"] = setting(
        "dormant", "weights into units dormant by activity, or by gradient (grama); the smallest weights; none"
    )
    omega: float = setting(0.4, "most that is pruned, as a share of what is grown in the round", least=0, below=1)
    tau: float = setting(0.0, "a unit is dormant at or below this score", least=0)
    birth: Literal["own", "zero", "lecun"] = setting(
        "own", "value of newborn weights; own: as the method has it, lecun for set and zero for the others"
    )
    revive: Literal["none", "bias", "lecun"] = setting(
        "none", "what units without incoming weights get: a small positive bias, or a few weights (lecun)"
    )
    after: Literal["fixed", "rewire"] = setting("fixed", "the topology once grown; rewire: as rigl does")
    rewire_fraction: float = setting(
        0.3, "exchanged per round by rigl (annealed), set (always), and after=rewire", least=0, below=1
    )
    rewire_until: float = setting(0.75, "share of all updates after which rigl and after=rewire stop", above=0, most=1)
    reset_every: int = setting(20_000, "from one reset, or shrink_and_perturb, to the next", unit="updates", least=1)
    reset_layers: Literal["all", "last"] = setting("all", "of actor and critic, never the encoder; last: their heads")
    shrink: float = setting(0.8, "shrink_and_perturb: weights are so many times the old ones", least=0, most=1)
    perturb: float = setting(0.2, "shrink_and_perturb: plus so many times fresh ones", least=0, most=1)
    inject_at: float = setting(0.5, "plasticity_injection: share of all updates before it", above=0, most=1)
    l2_init: float = setting(1e-3, "regenerative_l2: strength of the pull towards the initial weights", above=0)


@dataclass(frozen=True)
class EnvSettings:
    """Which environment, and how many; the settings of each kind stand beside its code."""

    kind: str = setting("dmc", "dmc, gymnasium, dm_env, gymnax, mjx, or anyone's: package.module:KIND")
    name: str = setting("cheetah_run", "the task, as its kind names it")
    num_envs: int = setting(1, "side by side, per seed", least=1)
    frame_stack: int = setting(3, "newest observations that the agent sees side by side; 1 from states", least=1)
    workers: Literal["thread", "process", "serial", "batch"] = setting(
        "thread", "how the environments of a host kind step side by side; batch: by one call, for nine domains of dmc"
    )
    worker_timeout: float = setting(
        300.0,
        "after which a host environment that does not answer counts as hung and is started anew; not serial, batch",
        unit="seconds",
        above=0,
    )
    backend: Literal["mujoco", "mjx"] = setting("mujoco", "of kind dmc: physics on the host, or on the device")
    sequence: tuple[str, ...] = setting((), "tasks that come after env.name, in turn, and then env.name again")
    switch_every: int = setting(0, "until the next task of the sequence", unit="frames", least=0)
    relabel: RelabelSettings = group(RelabelSettings)


@dataclass(frozen=True)
class EvaluationSettings:
    """Greedy episodes in environments of their own."""

    every: int = setting(20_000, "from one evaluation to the next; 0: never", unit="frames", least=0)
    episodes: int = setting(10, "per seed", least=1)


@dataclass(frozen=True)
class VideoSettings:
    """Rollouts as mp4 files."""

    every: int = setting(
        200_000, "rounded up to the next evaluation; also the last one; 0 for none", unit="frames", least=0
    )
    size: int = setting(256, "height and width", unit="pixels", least=1)
    fps: int = setting(30, "frames per second", least=1)


@dataclass(frozen=True)
class LogSettings:
    """Where metrics go beside `metrics.jsonl` and TensorBoard's files."""

    wandb: bool = setting(False, "also to Weights & Biases, a run per seed in one group; see docs/how_to.md")


@dataclass(frozen=True)
class RunSettings:
    """The run itself."""

    exp_id: str = setting("run", "results go to {results_dir}/{exp_id}_{env.name}")
    results_dir: str = setting("results", "the folder of all results")
    resume: bool = setting(True, "go on from the newest checkpoint of the same experiment")
    overwrite: bool = setting(False, "with resume=False: delete what an earlier run left")
    preset: Literal["", "drqv2", "small"] = setting(
        "",
        "what the task env.name has of its own, over the config file, under the command line; drqv2: what was "
        "published for it (docs/method.md); small: a camera that is near enough for small pictures",
    )
    seeds: tuple[int, ...] = setting((0, 1, 2, 3), "trained side by side")
    slice: str = setting(
        "",
        "this process trains seeds[i::n]: i/n with i from 0, such as 0/4; auto: as SLURM or Open MPI number their "
        "processes; empty: all",
    )
    distributed: bool = setting(
        False,
        "processes that jax.distributed brings together, as started by SLURM, Open MPI or JAX_COORDINATOR_ADDRESS and "
        "its like, train equal parts of the seeds and save together; docs/sweeps.md",
    )
    over_seeds: Literal["auto", "vmap", "map", "shard"] = setting(
        "auto",
        "on one device, batched (vmap) or one after another in one program (map); shard: over all devices, and on each "
        "as auto has it; auto: map for pixels, vmap for states, over all accelerators if there are several",
    )
    devices: int = setting(
        0, "that seeds are spread over; on a CPU so many parts of it; 0: what over_seeds says", least=0
    )
    total_frames: int = setting(
        1_000_000, "per seed; a step takes env.action_repeat * env.num_envs", unit="environment frames", least=1
    )
    seed_frames: int = setting(4_000, "before the first update", unit="frames")
    updates_per_step: float = setting(
        1.0, "a step is one agent step of every environment; 0.5: an update every second step; 0: none", least=0
    )
    explore_on_switch: bool = setting(
        False, "where tasks take turns, what goes by agent steps (random steps, noise, replay.nstep_from) begins again"
    )
    fresh_on_switch: bool = setting(
        False, "where tasks take turns, each begins with new networks and optimisers: what can be learned of it at all"
    )
    batch_size: int = setting(256, "of each update", unit="transitions", least=1)
    log_every: int = setting(5_000, "from one line of metrics to the next", unit="frames", least=1)
    metrics_every: int = setting(
        0,
        "from one measurement of plasticity to the next, and where a task or the run ends; 0: at each log point",
        unit="updates",
        least=0,
    )
    capacity_probe: bool = setting(
        False, "with each measurement of plasticity, also how well copies of actor and critic fit random targets"
    )
    checkpoint_every: int = setting(50_000, "also at the end and when it is stopped", unit="frames", least=1)
    stop_after: str = setting(
        "", "time after which the run saves and stops, such as 3h, 90m or 1h30m; the same command goes on; empty: never"
    )
    stop_at_frame: int = setting(
        0,
        "at which the run saves and ends with status 0, cut off from the course of total_frames; the same command with "
        "a later one goes on; 0: total_frames",
        unit="frames",
        least=0,
    )
    on_divergence: Literal["freeze", "stop", "restart"] = setting(
        "freeze",
        "a seed whose losses, gradients, observations or rewards are not finite; freeze: it learns no more, the others "
        "go on; at the next log point stop: the run saves and stops; restart: it gets new networks",
    )
    deterministic: bool = setting(
        False, "on a GPU the same numbers each time, at a price in speed (docs/performance.md); a CPU always gives them"
    )
    compile_cache: bool = setting(
        True,
        "keep compiled programs in ~/.cache/ne_jax, at most 2 GiB, so that the job starts faster when it starts again",
    )
    replay: ReplaySettings = group(ReplaySettings)
    review: ReviewSettings = group(ReviewSettings)
    plasticity: PlasticitySettings = group(PlasticitySettings)
    eval: EvaluationSettings = group(EvaluationSettings)
    video: VideoSettings = group(VideoSettings)
    log: LogSettings = group(LogSettings)
