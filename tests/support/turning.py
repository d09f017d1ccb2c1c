"""Experiments whose tasks take turns, on the device and on the host; their programs are compiled once per process."""

from functools import cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np
from tiny import quiet
from tiny_device import reader
from turns import TASKS, HostTask, device_task

from agents.replay import Replay, make_replay
from envs.pools.device import DevicePool
from envs.pools.host import HostPool
from envs.pools.sequence import DeviceTurns, FittedPool, HostTurns, alike, fit_device
from experiments.train.loop import Run, make_advance, train_on_device, train_on_host
from experiments.train.schedule import Schedule
from experiments.train.step import Steps, make_steps
from experiments.train.task_loop import train_in_phases
from experiments.train.tasks import TaskSequence

SEEDS, ENVS, TOTAL = (3, 5), 2, 45
EVERY = 42  # frames, of which a step has four: phases begin at steps 11, 21, 32 and 42
SWITCHES = [11, 21, 32, 42]


class Built(NamedTuple):
    on_device: bool
    pixels: bool
    tasks: TaskSequence
    replay: Replay
    schedule: Schedule
    steps: Steps
    keys: Any
    advances: Any

    def pool(self) -> Any:
        """A pool that has not begun."""
        if self.on_device:
            keys = jax.random.split(jax.random.key(8), ENVS * len(SEEDS))
            return DeviceTurns([DevicePool(env, keys) for env in device_tasks(self.pixels)], self.tasks.order)
        streams = [(seed, lane) for seed in SEEDS for lane in range(ENVS)]
        pools = [HostPool(partial(HostTask, name, self.pixels), streams, "serial") for name in TASKS]
        return HostTurns([*map(FittedPool, pools, alike([pool.spec for pool in pools]))], self.tasks.order)

    def fresh(self, pool):
        """The run at step 0."""
        return Run(0, *self.steps.init(self.keys, pool.reset()))

    def train(self, pool=None, run=None, callback=quiet, until=None, ends=()):
        """Train in phases, in chunks that end at the steps `ends`; the run and its pool."""
        pool = pool or self.pool()
        run = run or self.fresh(pool)
        if isinstance(pool, DeviceTurns):
            train = partial(
                train_on_device, lambda *each: self.advances[pool.task](*each), self.schedule, pool, self.keys
            )
        else:

            def train(run, callback, next_due, until):
                return train_on_host(self.steps, self.schedule, pool, self.keys, run, callback, until)

        def next_due(step):
            return min((end for end in ends if end > step), default=TOTAL)

        run = train_in_phases(train, pool, self.steps.enter, self.tasks, TOTAL, run, callback, next_due, until)
        return run, pool


@cache
def device_tasks(pixels):
    envs = [device_task(name, pixels) for name in TASKS]
    return [fit_device(*each) for each in zip(envs, alike([env.spec for env in envs]), strict=True)]


@cache
def build(on_device, pixels=False, capacity=400, order=(0, 1, 2)) -> Built:
    spec, schedule = device_tasks(pixels)[0].spec, Schedule(TOTAL, 6, num_envs=ENVS)
    tasks = TaskSequence(tuple(TASKS), order, EVERY, 4, (TOTAL - 1) * 4, False)
    replay = make_replay(
        spec.scene, spec.observe, spec.action_dim, capacity=capacity, stack=2, nstep=2, discount=0.9, num_envs=ENVS
    )
    parts: dict[str, Any] = dict(batch_size=8, frames=2, how="vmap", measure=lambda *_: {})
    steps = make_steps(reader(spec.action_dim), replay, spec, schedule, **parts)
    keys = jax.vmap(jax.random.key)(np.asarray(SEEDS, np.uint32))
    advances = [make_advance(steps, schedule, env) for env in device_tasks(pixels)] if on_device else None
    return Built(on_device, pixels, tasks, replay, schedule, steps, keys, advances)
