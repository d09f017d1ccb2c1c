"""The blob of `tiny.py` as a device environment, experiments around it, and the same blob stepped from the host."""

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from tiny import quiet

from agents.drq import DrQSettings, make_drq
from agents.encoder import VisionSettings
from agents.replay import Replay, make_replay
from agents.td3 import TD3Settings, make_td3
from agents.types import Agent
from configs.gymnax_states import get_config
from envs.pools.device import DevicePool, auto_reset_step
from envs.types import ArraySpec, DeviceEnv, EnvSpec, TimeStep
from experiments.build.optimisers import make_optimisers
from experiments.train.loop import Run, make_advance, train_on_device
from experiments.train.network_metrics import measure_plasticity
from experiments.train.schedule import Schedule
from experiments.train.seeds import NEVER, WORLD, key_at
from experiments.train.step import Steps, make_steps

SIZE, EPISODE = 8, 9


class World(NamedTuple):
    row: Any
    x: Any
    episode_step: Any


def blob(pixels) -> DeviceEnv:
    """A bright square that the action pushes sideways. Truncated after nine steps, terminated at the right edge."""

    def scene(world):
        return jnp.stack([world.row, world.x, world.episode_step.astype(jnp.float32)])

    def draw(scene, size):
        row, x, episode_step = scene * jnp.array([size / SIZE, size / SIZE, 1])
        i, j = jnp.arange(size)[:, None], jnp.arange(size)
        inside = (i >= row) & (i < row + size / 4) & (j >= x) & (j < x + size / 4)
        return jnp.where(inside, 255, 10 * episode_step).astype(jnp.uint8)[..., None].repeat(3, axis=-1)

    def reset(key):
        row, x = jax.random.uniform(key, (2,), maxval=4.0)
        world = World(row, x, jnp.int32(0))
        return world, scene(world)

    def step(world, action, key):
        push = 3 * jnp.clip(action[0], -1, 1) + jax.random.uniform(key, maxval=0.5)
        world = World(world.row, jnp.clip(world.x + push, 0, SIZE - 2), world.episode_step + 1)
        terminated = world.x >= SIZE - 2
        truncated = (world.episode_step == EPISODE) & ~terminated
        return world, TimeStep(scene(world), world.x / SIZE, terminated, truncated)

    observe = (lambda each: draw(each, SIZE)) if pixels else (lambda each: each)
    spec = EnvSpec("blob", ArraySpec((3,), np.dtype(np.float32)), observe, 1, 2, EPISODE, pixels)
    return DeviceEnv(spec, reset, step, scene, draw)


@struct.dataclass
class Seen:
    values: Any


def reader(actions=1) -> Agent:
    """An agent that learns nothing, but whose state and actions hold something of all it has ever seen."""

    def init(key):
        return Seen(jax.random.normal(key, (4,)))

    def act(state, obs, key, step):
        mean = jnp.full((actions,), jnp.sin(state.values.sum() + obs.astype(jnp.float32).sum()))
        return mean if step is None else 0.5 * mean + 0.5 * jax.random.uniform(key, (actions,), minval=-1.0)

    def update(state, batch, key, step):
        told = [batch.reward.mean(), batch.discount.mean(), batch.obs.mean(), batch.next_obs.mean()]
        seen = 0.9 * state.values + jnp.stack(told) + 0.01 * jax.random.normal(key, (4,))
        return Seen(seen), {"reward": told[0], "env": jnp.float32(step.env), "update": jnp.float32(step.update)}

    return Agent(init, act, update, lambda state, batch: {}, lambda *_: {})


class Built(NamedTuple):
    env: DeviceEnv
    agent: Agent
    replay: Replay
    schedule: Schedule
    steps: Steps
    keys: Any
    advance: Any


@cache
def build(
    kind="td3",
    *,
    method="ne",
    seeds=(3, 5),
    how: Any = "vmap",
    num_envs=1,
    every=1,
    each=1,
    store="scene",
    capacity=60,
    total=40,
    nstep=2,
    nstep_from=0,
    review=None,
    dynamic=None,
    forget_every=0,
) -> Built:
    """An experiment whose programs are compiled once per process; `kind` is td3, drq (from pixels) or reader."""
    env = blob(kind == "drq")
    spec, frames = env.spec, 2 if kind == "drq" else 1
    schedule = Schedule(total, 6, every, each, num_envs, forget_every)
    config = get_config("smoke")
    config.plasticity.update(dict(method=method, every=4, reset_every=8))
    parts: tuple[str, ...] = ("actor", "critic") if "injection" in method else ()
    form: Any = dict(hidden=(12, 12), random_steps=4, layer_norm="normalise" in method)
    optimisers, rate = make_optimisers(config, schedule.updates(total)), config.agent.learning_rate
    if kind == "drq":
        vision = VisionSettings(channels=3, strides=(2, 1), projection=5, shift_pad=1, conv="im2col")
        settings = DrQSettings(rate, **form)
        agent = make_drq(settings, vision, (SIZE, SIZE, 3 * frames), 1, optimisers, parts)
    elif kind == "td3":
        agent = make_td3(TD3Settings(rate, **form), None, (3,), 1, optimisers, parts)
    else:
        agent = reader()
    keep_frames = store == "frame"
    replay = make_replay(
        jax.eval_shape(spec.observe, spec.scene) if keep_frames else spec.scene,
        (lambda frame: frame) if keep_frames else spec.observe,
        1,
        capacity=capacity,
        stack=frames,
        nstep=nstep,
        discount=0.9,
        num_envs=num_envs,
        dynamic=dynamic is not None,
    )
    steps = make_steps(
        agent,
        replay,
        spec,
        schedule,
        batch_size=8,
        frame_stack=frames,
        how=how,
        measure=measure_plasticity,
        keep_frames=keep_frames,
        horizon=(lambda step: jnp.where(jnp.asarray(step.env) < nstep_from, 1, nstep)) if nstep_from else None,
        review=review,
        dynamic=dynamic,
    )
    keys = jax.vmap(jax.random.key)(np.asarray(seeds, np.uint32))
    return Built(env, agent, replay, schedule, steps, keys, make_advance(steps, schedule, env))


def pool_of(built, place=None) -> DevicePool:
    """The pool that `experiments.build.experiment` makes."""
    first = jax.vmap(lambda key: jax.random.split(key_at(key, NEVER, WORLD), built.schedule.num_envs))(built.keys)
    return DevicePool(built.env, first.reshape(-1), place=place)


def fresh(built, pool) -> Run:
    """The run at step 0."""
    return Run(0, *built.steps.init(built.keys, pool.reset()))


def train(built, pool=None, run=None, callback=None, until=None, ends=None) -> tuple[Run, DevicePool]:
    """Train on the device; chunks end at the steps `ends`, by default where the clock of `train_on_device` has them."""
    pool = pool or pool_of(built)
    run = run or fresh(built, pool)

    def next_due(step):
        return min((end for end in ends or () if end > step), default=built.schedule.total)

    callback = callback or quiet
    run = train_on_device(built.advance, built.schedule, pool, built.keys, run, callback, next_due, until)
    return run, pool


class HostBlobs:
    """The same environments with the same random numbers, but stepped from the host."""

    def __init__(self, built):
        self._pool, self._keys, self._envs, self._step = pool_of(built), built.keys, built.schedule.num_envs, 0
        self.spec, self.lanes = self._pool.spec, self._pool.lanes
        self._jitted = jax.jit(jax.vmap(lambda *each: auto_reset_step(built.env, *each)))

    def reset(self):
        return self._pool.reset()

    def step(self, actions):
        keys = [jax.random.split(key_at(key, self._step, WORLD), self._envs) for key in self._keys]
        self._pool.state, outcome = self._jitted(self._pool.state, actions, jnp.concatenate(keys))
        self._step += 1
        return jax.device_get(outcome)
