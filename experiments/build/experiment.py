"""From a config to everything a run needs. All checks happen here, before anything expensive starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key
from ml_collections import ConfigDict

from agents.replay import Replay
from agents.types import Agent, Clock
from envs.pools.device import DevicePool
from envs.pools.host import HostPool
from envs.pools.sequence import DeviceTurns, FittedPool, HostTurns, alike
from envs.types import DeviceKind, EnvSpec, HostKind
from experiments.build.checks import check_window, validate
from experiments.build.determinism import make_repeatable
from experiments.build.devices import choose_devices
from experiments.build.environment import kind_of, make_device_envs, open_host_pools
from experiments.build.lanes import check_traced, lanes_of, numbers_of, of_all_rows, with_numbers
from experiments.build.learning import make_learning
from experiments.build.processes import least
from experiments.build.replay import check_memory, choose_store, free_memory, total_memory
from experiments.build.tasks import make_tasks
from experiments.train.devices import ONE_DEVICE, SeedDevices, spread_steps
from experiments.train.evaluation import Evaluator, device_evaluator, host_evaluator
from experiments.train.loop import Advance, Callback, Run, make_advance, seed_of_lanes, train_on_device, train_on_host
from experiments.train.network_metrics import measure_plasticity
from experiments.train.parts import Learning
from experiments.train.schedule import Schedule
from experiments.train.seeds import EVALUATE, NEVER, WORLD, key_at
from experiments.train.state import Numbers
from experiments.train.step import Steps, make_steps
from experiments.train.stopwatch import Stopwatch
from experiments.train.task_loop import evaluate_in_turns, train_in_phases
from experiments.train.tasks import TaskSequence


class Parts(NamedTuple):
    """What a run consists of whatever the environments are."""

    spec: EnvSpec
    agent: Agent
    replay: Replay
    schedule: Schedule
    steps: Steps
    keys: Key[Array, " seeds"]
    store: str
    """What the replay stores, and why."""
    devices: SeedDevices
    lanes: tuple[ConfigDict, ...]
    numbers: Numbers | None


class Row(NamedTuple):
    """What trains beside others in a program: a seed of a lane."""

    lane: int
    seed: int
    name: str


class Experiment(NamedTuple):
    """All parts of a run. `train(run, callback, next_due)` is the loop for its kind of environment (`loop.py`)."""

    config: ConfigDict
    spec: EnvSpec
    agent: Agent
    replay: Replay
    schedule: Schedule
    steps: Steps
    keys: Key[Array, " seeds"]
    store: str
    pool: HostPool | DevicePool | HostTurns | DeviceTurns
    evaluator: Evaluator
    train: Callable[..., Run]
    tasks: TaskSequence | None = None
    """What takes turns; None where there is one task."""
    devices: SeedDevices = ONE_DEVICE
    """Those that the seeds are spread over. Beside the seeds, `keys` and all state may lead with doubles of some."""
    stopwatch: Stopwatch | None = None
    """Of the steps on the host; None where they are made on the device."""
    lanes: tuple[ConfigDict, ...] = ()
    """The config of each lane, or of the run that has none. `config.seeds` has the seeds once for each."""
    numbers: Numbers | None = None
    """What the rows differ in beside their seeds; doubles included, as in `keys`."""
    advance: Advance | None = None
    """The program of a chunk of the device loop, of tasks in turn that of the first; None on the host."""

    @property
    def rows(self) -> list[Row]:
        """All that trains side by side, in the order of states."""
        each = len(self.config.seeds) // max(1, len(self.lanes))
        names = [f"{lane.exp_id}, " if len(self.lanes) > 1 else "" for lane in self.lanes or (self.config,)]
        return [Row(i // each, seed, f"{names[i // each]}seed {seed}") for i, seed in enumerate(self.config.seeds)]

    def frame(self, step: int) -> int:
        """Environment frames per seed after this many steps."""
        return step * self.spec.action_repeat * self.schedule.num_envs

    def every(self, frames: int) -> int:
        """Steps nearest to this many frames, at least one."""
        return max(1, round(frames / self.frame(1)))

    def kept(self, run: Run) -> tuple[Run, Any]:
        """The run and its environments' snapshot as a checkpoint holds them, whatever the devices are."""
        envs = self.pool.snapshot()
        learner = self.devices.drop(replace(run.learner, numbers=None))
        return Run(run.step, learner, self.devices.drop(run.rollout)), self._of_envs(self.devices.drop, envs)

    def go_on(self, run: Run, envs: Any) -> Run:
        """The run from a checkpoint, on the devices of now, with its environments as they were then."""
        self.pool.restore(self._of_envs(self.devices.fill, envs))
        numbers = jax.tree.map(jnp.copy, self.numbers)  # for a learner's memory is given away as it learns
        learner = replace(self.devices.fill(run.learner), numbers=numbers)
        return Run(run.step, learner, self.devices.fill(run.rollout))

    def shapes(self, run: Run) -> tuple[Run, Any]:
        """Of `run`, or the shapes of one, and its environments' snapshot: the shapes that a checkpoint has."""
        envs = self.pool.snapshot()
        learner = self.devices.shapes(replace(run.learner, numbers=None))
        kept = Run(run.step, learner, self.devices.shapes(run.rollout))
        return kept, self._of_envs(self.devices.shapes, envs)

    def _of_envs(self, change: Callable[[Any], Any], envs: Any) -> Any:
        """A snapshot after `change`, which is for what is on the devices."""
        if isinstance(self.pool, DevicePool):
            return change(envs)
        return envs | {"tasks": change(envs["tasks"])} if isinstance(self.pool, DeviceTurns) else envs

    def close(self) -> None:
        """End the environments."""
        self.pool.close()
        self.evaluator.close()


def setup(config: ConfigDict) -> Experiment:
    """Check the config and build the run; nothing is allocated on the device yet.

    Raises:
        ValueError: a setting is out of range or unknown; the sentence names the key and the cure.
        RuntimeError: OpenGL is missing.
        MemoryError: the replay would not fit.
    """
    lanes = lanes_of(config)
    for lane in lanes:
        validate(lane)
    config = of_all_rows(lanes)
    make_repeatable(config.deterministic)
    devices = choose_devices(config)
    tasks = make_tasks(config)
    kind = kind_of(config)
    if isinstance(kind, HostKind):
        return _on_host(config, lanes, kind, tasks, devices)
    return _on_device(config, lanes, kind, tasks, devices)


def _on_device(
    config: ConfigDict, configs: list[ConfigDict], kind: DeviceKind, tasks: TaskSequence | None, devices: SeedDevices
) -> Experiment:
    envs = make_device_envs(config, kind)
    parts = _parts(config, configs, envs[0].spec, tasks, devices)

    def lane_keys(key: Key[Array, ""]) -> Key[Array, " envs"]:
        return jax.random.split(key_at(key, NEVER, WORLD), config.env.num_envs)

    lanes, seeds = jax.vmap(lane_keys)(parts.keys).reshape(-1), seed_of_lanes(parts.keys, config.env.num_envs)
    pools = [DevicePool(env, lanes, seeds if env.of else None, devices.place) for env in envs]
    evaluate = partial(
        device_evaluator,
        agent=parts.agent,
        keys=jax.vmap(lambda key: key_at(key, NEVER, EVALUATE))(parts.keys),
        episodes=config.eval.episodes,
        frame_stack=config.env.frame_stack,
        how=seeds_mode(config, parts.spec),
        seeds=parts.keys,
        devices=devices,
        numbers=parts.numbers,
        remade=lambda numbers: _remade(config, parts.spec, parts.schedule, numbers).agent,
    )
    pool = pools[0]
    if tasks and (len(envs) > 1 or tasks.ends_first):
        pool = DeviceTurns(pools, tasks.order if len(envs) > 1 else (0,), tasks.begins)
    advances = [make_advance(parts.steps, parts.schedule, env, devices) for env in envs]
    parts = parts._replace(steps=spread_steps(parts.steps, devices, config.env.num_envs))
    advance = (lambda *run: advances[pool.task](*run)) if isinstance(pool, DeviceTurns) else advances[0]
    train = partial(train_on_device, advance, parts.schedule, pool, parts.keys)
    built = _experiment(config, parts, tasks, pool, [evaluate(env) for env in envs], train)
    return built._replace(advance=advances[0])


def _on_host(
    config: ConfigDict, configs: list[ConfigDict], kind: HostKind, tasks: TaskSequence | None, devices: SeedDevices
) -> Experiment:
    with open_host_pools(config, kind) as (pools, eval_pools):
        specs = alike([each.spec for each in pools]) if tasks else [pools[0].spec]
        parts = _parts(config, configs, specs[0], tasks, devices)
    parts = parts._replace(steps=spread_steps(parts.steps, devices, config.env.num_envs))
    pool = HostTurns([*map(FittedPool, pools, specs)], tasks.order) if tasks else pools[0]
    eval_pools = [*map(FittedPool, eval_pools, specs)] if tasks else eval_pools
    stopwatch = Stopwatch()
    evaluators = [
        host_evaluator(each, parts.steps, config.seeds, config.eval.episodes, parts.numbers) for each in eval_pools
    ]

    def train(run: Run, callback: Callback, next_due: Callable[[int], int], until: int | None = None) -> Run:
        return train_on_host(parts.steps, parts.schedule, pool, parts.keys, run, callback, until, stopwatch)

    return _experiment(config, parts, tasks, pool, evaluators, train)._replace(stopwatch=stopwatch)


def _experiment(
    config: ConfigDict,
    parts: Parts,
    tasks: TaskSequence | None,
    pool: HostPool | DevicePool | HostTurns | DeviceTurns,
    evaluators: list[Evaluator],
    train: Callable[..., Run],
) -> Experiment:
    evaluator = evaluators[0]
    if isinstance(pool, HostTurns | DeviceTurns):
        assert tasks is not None
        if len(evaluators) > 1:
            evaluator = evaluate_in_turns(evaluators, tasks)
        renew = (lambda learner, task: parts.steps.renew(learner, parts.keys, task)) if parts.schedule.renews else None
        train = partial(train_in_phases, train, pool, parts.steps.enter, tasks, parts.schedule.total, renew=renew)
    return Experiment(config, **parts._asdict(), pool=pool, evaluator=evaluator, train=train, tasks=tasks)


def _parts(
    config: ConfigDict, lanes: list[ConfigDict], spec: EnvSpec, tasks: TaskSequence | None, devices: SeedDevices
) -> Parts:
    schedule = make_schedule(config, tasks)
    check_window(config, schedule.lifetime)
    free = int(least(free_memory()))
    room = min(least(total_memory()) / 2, 0.9 * free) * len(config.seeds) / devices.in_one_memory
    store, why = choose_store(config, spec, room)
    for each in (config, *lanes):
        each.replay.store = store  # what a resumed run has to go on with, whatever memory there is then
    made, *_ = [make_learning(lane, spec, schedule) for lane in lanes]  # each says what cannot be
    check_memory(made.replay.nbytes, devices.in_one_memory, config.replay.capacity, free)
    numbers = numbers_of(lanes, len(config.seeds) // len(lanes))
    remade = partial(_remade, config, spec, schedule)
    check_traced(remade, numbers)
    steps = make_steps(
        made.agent,
        made.replay,
        spec,
        schedule,
        batch_size=config.batch_size,
        frame_stack=config.env.frame_stack,
        how=seeds_mode(config, spec),
        measure=measure_plasticity,
        keep_frames=store == "frame",
        horizon=_horizon(config),
        review=made.review,
        dynamic=made.dynamic,
        fresh=made.fresh,
        learning=remade,
    )
    keys = jax.vmap(jax.random.key)(jnp.asarray(config.seeds, jnp.uint32))
    keys, numbers = devices.fill((keys, numbers))
    return Parts(spec, made.agent, made.replay, schedule, steps, keys, f"{store}s{why}", devices, tuple(lanes), numbers)


def _remade(config: ConfigDict, spec: EnvSpec, schedule: Schedule, numbers: Numbers) -> Learning:
    """What learns in one row, made inside a program that traces its numbers."""
    return make_learning(with_numbers(config, numbers), spec, schedule)


def _horizon(config: ConfigDict) -> Callable[[Clock], Any] | None:
    """Steps that returns sum: one until `replay.nstep_from` agent steps, `replay.nstep` from there on."""
    if not config.replay.nstep_from:
        return None
    return lambda step: jnp.where(jnp.asarray(step.env) < config.replay.nstep_from, 1, config.replay.nstep)


def make_schedule(config: ConfigDict, tasks: TaskSequence | None = None) -> Schedule:
    """When updates happen, in steps of the loop."""
    num_envs, rate, dynamic = config.env.num_envs, config.updates_per_step, config.replay.dynamic
    frames = config.env.action_repeat * num_envs
    total, clears = config.total_frames // frames, config.replay.clear_on_switch
    anew = clears or config.explore_on_switch or config.fresh_on_switch
    return Schedule(
        total=total,
        first_update=-(-config.seed_frames // frames) if rate else total,
        every=max(1, round(1 / rate)) if rate else 1,
        updates_each=max(1, round(rate)),
        num_envs=num_envs,
        forget_every=max(1, round(dynamic.every / num_envs)) if dynamic.on else 0,
        measure_every=config.metrics_every,
        task_steps=tasks.every // frames if tasks and anew else 0,
        clears=clears,
        explores=config.explore_on_switch,
        renews=config.fresh_on_switch,
    )


def seeds_mode(config: ConfigDict, spec: EnvSpec) -> Any:
    """How the seeds of one device run side by side: convolutions one seed after another, dense nets batched."""
    return config.over_seeds if config.over_seeds in ("vmap", "map") else ("map" if spec.pixels else "vmap")
