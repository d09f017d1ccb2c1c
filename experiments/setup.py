"""From a config to everything a run needs. All checks happen here, before anything expensive starts."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import psutil
from jaxtyping import Array, Key
from ml_collections import ConfigDict

import ne_jax
from agents.drq import DrQConfig, make_drq
from agents.learn import Model
from agents.replay import Replay, make_replay
from agents.types import Agent, AgentState, Metrics
from envs import host_env
from envs.pool import HostPool
from envs.types import EnvSpec
from experiments.loop import Schedule, Steps, make_steps
from experiments.optimisers import SPARSE, density_schedule, make_optimisers

TRAIN_STREAM, EVAL_STREAM = range(2)


class Experiment(NamedTuple):
    """All parts of a run. `pool` holds the training environments, `eval_pool` those for evaluation."""

    config: ConfigDict
    spec: EnvSpec
    agent: Agent
    replay: Replay
    schedule: Schedule
    steps: Steps
    keys: Key[Array, " seeds"]
    pool: HostPool
    eval_pool: HostPool

    def frame(self, step: int) -> int:
        """Environment frames per seed after this many agent steps."""
        return step * self.spec.action_repeat

    def every(self, frames: int) -> int:
        """Agent steps nearest to this many frames, at least one."""
        return max(1, round(frames / self.spec.action_repeat))

    def close(self) -> None:
        """End the environments."""
        self.pool.close()
        self.eval_pool.close()


def setup(config: ConfigDict) -> Experiment:
    """Check the config and build the run; nothing is allocated on the device yet.

    Raises:
        ValueError: a setting is out of range or unknown; the sentence names the key and the cure.
        RuntimeError: OpenGL is missing.
        MemoryError: the replay would not fit.
    """
    _validate(config)
    settings = {
        key: value for key, value in config.env.items() if key not in ("kind", "name", "frame_stack", "workers")
    }
    make = host_env(config.env.kind, config.env.name, **settings)
    pools = []
    try:
        for stream in (TRAIN_STREAM, EVAL_STREAM):
            pools.append(HostPool(make, [(seed, stream) for seed in config.seeds], config.env.workers))
        spec = pools[0].spec
        schedule = make_schedule(config)
        optimisers = make_optimisers(config, schedule.updates(schedule.total))
        agent = _agent(config, spec, optimisers)
        replay = make_replay(
            spec.scene,
            spec.observe,
            spec.action_dim,
            capacity=config.replay.capacity,
            stack=config.env.frame_stack,
            nstep=config.replay.nstep,
            discount=config.replay.discount,
        )
        check_memory(replay.nbytes, len(config.seeds), config.replay.capacity, free_memory())
        steps = make_steps(
            agent,
            replay,
            spec,
            batch_size=config.batch_size,
            frames=config.env.frame_stack,
            how=seeds_mode(config, spec),
            measure=measure_plasticity,
        )
    except BaseException:
        for pool in pools:
            pool.close()
        raise
    keys = jax.vmap(jax.random.key)(jnp.asarray(config.seeds, jnp.uint32))
    return Experiment(config, spec, agent, replay, schedule, steps, keys, *pools)


def make_schedule(config: ConfigDict) -> Schedule:
    """When updates happen, in agent steps."""
    repeat = config.env.action_repeat
    return Schedule(config.total_frames // repeat, -(-config.seed_frames // repeat), config.update_every)


def measure_plasticity(state: AgentState, activations: dict[str, Array]) -> Metrics:
    """Density of each sparse layer; FAU and dormant ratio (tau 0) over the hidden layers of actor and critic."""
    values = {"fau": ne_jax.fau(activations), "dormant_ratio": ne_jax.dormant_ratio(activations)}
    masks = all_masks(state)
    density = ne_jax.density(masks) if masks else {"all": jnp.ones(())}
    values["density"] = density.pop("all")
    return values | {f"density/{path}": value for path, value in density.items()}


def models(state: AgentState) -> dict[str, Model]:
    """The trained networks of an agent's state, by name."""
    return {name: part for name, part in vars(state).items() if isinstance(part, Model)}


def all_masks(state: AgentState) -> dict[str, Array]:
    """The masks of all trained networks, their paths led by the network's name."""
    return {f"{name}/{path}": mask for name, model in models(state).items() for path, mask in _masks(model).items()}


def sparse_layers(experiment: Experiment) -> list[tuple[str, int, int, int]]:
    """Path, size, initial and final number of weights of each sparse layer."""
    config, total = experiment.config, experiment.schedule.updates(experiment.schedule.total)
    if config.plasticity.method == "none":
        return []
    density, rows = density_schedule(config, total), []
    for name, model in models(jax.eval_shape(experiment.agent.init, experiment.keys[0])).items():
        if _masks(model):
            shapes = ne_jax.sparse_shapes(model.params, SPARSE)
            first, last = (ne_jax.counts(d, shapes) for d in (density.initial, density.final))
            rows += [(f"{name}/{path}", leaf_size(shapes[path]), first[path], last[path]) for path in sorted(shapes)]
    return rows


def check_masks(experiment: Experiment, state: AgentState) -> None:
    """ValueError unless each sparse layer of each fresh network holds as many weights as the schedule starts with.

    It would not if its initialiser gives zeros, which cannot be seen while `init` is traced.
    """
    masks = all_masks(state)
    for path, size, first, _ in sparse_layers(experiment):
        for held in masks[path].reshape(len(experiment.config.seeds), size).sum(axis=1):
            if int(held) != first:
                raise ValueError(
                    f"the sparse layer {path} begins with {int(held)} weights in place of {first}: its initialiser "
                    "gives zeros, so that its zero pattern cannot be its mask; give it another one"
                )


def leaf_size(shape: tuple[int, ...]) -> int:
    """Number of weights."""
    return math.prod(shape)


def seeds_mode(config: ConfigDict, spec: EnvSpec) -> Any:
    """How seeds run side by side: convolutions one seed after another, dense nets batched."""
    return ("map" if spec.pixels else "vmap") if config.over_seeds == "auto" else config.over_seeds


def free_memory() -> int:
    """Bytes free on the device, or in the machine where that is the device; what files fill as cache counts as free."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    free, container = psutil.virtual_memory().available, Path("/sys/fs/cgroup/memory.max")
    limit = container.read_text().strip() if container.exists() else "max"
    return free if limit == "max" else min(free, int(limit))


def check_memory(nbytes: int, seeds: int, capacity: int, free: int) -> None:
    """MemoryError if `seeds` replays of `nbytes` each do not fit into nine tenths of the `free` bytes."""
    if nbytes * seeds > 0.9 * free:
        most = int(0.9 * free / seeds / (nbytes / capacity))
        raise MemoryError(
            f"replay.capacity={capacity} needs {nbytes * seeds / 1e9:.1f} GB for {seeds} seeds and {free / 1e9:.1f} GB "
            f"are free; set --config.replay.capacity={most} or train fewer seeds"
        )


def _masks(model: Model) -> dict[str, Any]:
    return ne_jax.masks(model.opt_state)


def _agent(config: ConfigDict, spec: EnvSpec, optimisers: Any) -> Agent:
    if config.agent.name not in AGENTS:
        raise ValueError(f"agent.name must be one of {', '.join(AGENTS)}, got {config.agent.name!r}")
    return AGENTS[config.agent.name](config, spec, optimisers)


def _drq(config: ConfigDict, spec: EnvSpec, optimisers: Any) -> Agent:
    if not spec.pixels:
        raise ValueError("agent.name=drq learns from pixels; set --config.env.pixels=True")
    if config.agent.conv not in ("auto", "xla", "im2col"):
        raise ValueError(f"agent.conv must be auto, xla or im2col, got {config.agent.conv!r}")
    im2col = jax.default_backend() == "cpu" if config.agent.conv == "auto" else config.agent.conv == "im2col"
    known = {key: value for key, value in config.agent.items() if key in DrQConfig._fields}
    height, width, channels = jax.eval_shape(spec.observe, spec.scene).shape
    obs_shape = (height, width, channels * config.env.frame_stack)
    return make_drq(DrQConfig(**known, im2col=im2col), obs_shape, spec.action_dim, optimisers)


AGENTS: dict[str, Callable[[ConfigDict, EnvSpec, Any], Agent]] = {"drq": _drq}


def _validate(config: ConfigDict) -> None:
    seeds = config.seeds
    whole = all(isinstance(seed, int) and 0 <= seed < 2**32 for seed in seeds)
    if not seeds or len(set(seeds)) != len(seeds) or not whole:
        raise ValueError(f"seeds must be different whole numbers from 0 to 2**32 - 1, at least one, got {tuple(seeds)}")
    if config.over_seeds not in ("auto", "vmap", "map"):
        raise ValueError(f"over_seeds must be auto, vmap or map, got {config.over_seeds!r}")
    positive = ("total_frames", "update_every", "batch_size", "log_every", "checkpoint_every")
    for key in positive:
        if config[key] < 1:
            raise ValueError(f"{key} must be positive, got {config[key]}")
    for key in ("every", "episodes"):
        if config.eval[key] < 1:
            raise ValueError(f"eval.{key} must be positive, got {config.eval[key]}")
    for key in ("every", "size", "fps"):
        if config.video[key] < (key != "every"):
            raise ValueError(f"video.{key} must be positive (every=0 means none), got {config.video[key]}")
    if config.env.action_repeat < 1:
        raise ValueError(f"env.action_repeat must be positive, got {config.env.action_repeat}")
    if not config.env.action_repeat <= config.seed_frames < config.total_frames:
        raise ValueError(
            f"seed_frames={config.seed_frames} must be at least one agent step ({config.env.action_repeat} frames) "
            f"and less than total_frames={config.total_frames}"
        )
    if config.total_frames >= 2**31:
        raise ValueError(f"total_frames={config.total_frames} does not fit into the 32-bit step counter")
