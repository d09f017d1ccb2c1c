"""Greedy evaluation on environments of its own, all seeds side by side."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt8

from agents.replay import side_by_side
from agents.types import Agent, AgentState
from envs.pools.host import HostPool
from envs.pools.sequence import FittedPool
from envs.types import DeviceEnv, Scene
from experiments.train.devices import ONE_DEVICE, SeedDevices
from experiments.train.rollout import Stack, stack_frames
from experiments.train.seeds import NEVER, OverSeeds, over_seeds
from experiments.train.state import Numbers
from experiments.train.step import Steps

Policy = Callable[[Stack], Float[np.ndarray, "seeds actions"]]


class Evaluation(NamedTuple):
    """Undiscounted returns [seeds, episodes], and the first episode's frames if they were asked for.

    A seed whose episode is over stands still in the frames until the others are done.
    """

    returns: Float[np.ndarray, "seeds episodes"]
    frames: UInt8[np.ndarray, "seeds steps size size 3"] | None


class Evaluator(NamedTuple):
    """Plays whole episodes per seed, in the environment as it is at `frame`, 0 where none is given.

    Episode e starts the same way in every evaluation.

    greedy(state, video_size, frame): the agents' mean actions; frames of that width, none where it is 0.
    random(): uniform actions, the yardstick for what was learned. The same for a seed whatever its neighbours.
    close(): ends the environments.
    """

    greedy: Callable[..., Evaluation]
    random: Callable[..., Evaluation]
    close: Callable[[], None]


def host_evaluator(
    pool: HostPool | FittedPool,
    steps: Steps,
    seeds: tuple[int, ...],
    episodes: int,
    numbers: Numbers | None = None,
) -> Evaluator:
    """Evaluation on host environments, which never change, one lane of `pool` per seed; `numbers` as of `Steps`."""
    draw = _images(pool.spec.draw) if pool.spec.draw else None
    play = partial(_play_on_host, pool, steps, episodes, draw)

    def greedy(state: AgentState, video_size: int, frame: int = 0) -> Evaluation:
        return play(lambda obs: np.asarray(steps.greedy(state, obs, numbers)), video_size)

    def random() -> Evaluation:
        generators = [np.random.default_rng((seed, 2)) for seed in seeds]
        width = pool.spec.action_dim
        return play(lambda _: np.stack([g.uniform(-1, 1, width).astype(np.float32) for g in generators]), 0)

    return Evaluator(greedy, random, pool.close)


def _images(draw: Callable[[Scene, int], Array]) -> Callable[..., Array]:
    """Images of a row of pictures, `images(pictures, size=...)`; one after another, which takes little memory."""

    @partial(jax.jit, static_argnames="size")
    def images(pictures: Array, size: int) -> Array:
        return jax.lax.map(lambda each: draw(each, size), pictures)

    return images


def _play_on_host(
    pool: HostPool | FittedPool,
    steps: Steps,
    episodes: int,
    draw: Callable[..., Array] | None,
    policy: Policy,
    video_size: int,
) -> Evaluation:
    returns, frames = [], None
    for episode in range(episodes):
        kept: list[np.ndarray] | None = [] if video_size and episode == 0 else None
        returns.append(_episode_on_host(pool, steps, policy, episode, kept, video_size))
        if kept is not None:
            frames = np.stack(kept, axis=1)
            if draw is not None:
                frames = np.stack([np.asarray(draw(each, size=video_size)) for each in frames])
    return Evaluation(np.stack(returns, axis=1), frames)


def _episode_on_host(
    pool: HostPool | FittedPool,
    steps: Steps,
    policy: Policy,
    episode: int,
    pictures: list[np.ndarray] | None,
    size: int,
) -> Float[np.ndarray, " seeds"]:
    """The returns of one episode; what a picture needs of each step is appended to `pictures`, if it is given."""
    scene = pool.reset([episode] * pool.lanes)
    obs = steps.observe(None, scene)
    total, alive = np.zeros(pool.lanes), np.ones(pool.lanes, bool)
    while alive.any():
        if pictures is not None:
            shot = np.asarray(pool.pictures(size))
            shown = alive.reshape(-1, *[1] * (shot.ndim - 1))
            pictures.append(np.where(shown, shot, pictures[-1]) if pictures else shot)
        outcome = pool.step(policy(obs))
        total += np.where(alive, outcome.step.reward, 0.0)
        total[alive & pool.failed] = np.nan  # what an environment that broke would have given is not known
        alive &= ~np.logical_or(outcome.step.terminated, outcome.step.truncated)
        obs = steps.observe(obs, outcome.step.scene)
    return total


Act = Callable[[AgentState, Stack, Key[Array, ""]], Float[Array, " actions"]]


def device_evaluator(
    env: DeviceEnv,
    agent: Agent,
    keys: Key[Array, " seeds"],
    *,
    episodes: int,
    frame_stack: int,
    how: OverSeeds,
    seeds: Key[Array, " seeds"] | None = None,
    devices: SeedDevices = ONE_DEVICE,
    numbers: Numbers | None = None,
    remade: Callable[[Numbers], Agent] | None = None,
) -> Evaluator:
    """Evaluation as one program; `keys` say how the episodes start, `seeds` whose they are.

    Args:
        numbers: what each seed has of its own, from which `remade` makes its agent inside the program.
    """
    owners = keys if seeds is None else seeds

    def program(act_of: Callable[[Numbers | None], Act]) -> Callable[..., tuple[Array, Array, Array]]:
        def play(state: AgentState, key: Any, seed: Any, own: Numbers | None, frame: Any) -> Any:
            return _play_on_device(env, act_of(own), episodes, frame_stack, state, key, seed, frame)

        return devices.program(over_seeds(play, how, shared=1), shared=1)

    greedy_program = program(lambda own: partial(_greedy, remade(own) if remade and own else agent))
    random_program = program(lambda own: partial(_uniform, env.spec.action_dim))
    draw = _images(env.draw)

    def greedy(state: AgentState, video_size: int, frame: int = 0) -> Evaluation:
        returns, pictures, lengths = greedy_program(state, keys, owners, numbers, np.int32(frame))
        if not video_size:
            return Evaluation(devices.numbers(returns), None)
        returns, pictures, lengths = devices.numbers((returns, pictures, lengths))
        still = np.minimum(np.arange(lengths.max()), lengths[:, None] - 1)
        # One seed at a time, and always whole episodes: little memory on the device, and one compilation.
        films = [np.asarray(draw(each, size=video_size))[shown] for each, shown in zip(pictures, still, strict=True)]
        return Evaluation(returns, np.stack(films))

    def random() -> Evaluation:
        return Evaluation(devices.numbers(random_program(None, keys, owners, None, np.int32(0))[0]), None)

    return Evaluator(greedy, random, lambda: None)


def _greedy(agent: Agent, state: AgentState, obs: Stack, key: Key[Array, ""]) -> Float[Array, " actions"]:
    return agent.act(state, side_by_side(obs), key, None)


def _uniform(actions: int, state: AgentState, obs: Stack, key: Key[Array, ""]) -> Float[Array, " actions"]:
    return jax.random.uniform(key, (actions,), minval=-1.0, maxval=1.0)


def _play_on_device(
    env: DeviceEnv,
    act: Act,
    episodes: int,
    frame_stack: int,
    state: AgentState,
    key: Key[Array, ""],
    seed: Key[Array, ""],
    frame: Int[Array, ""],
) -> tuple[Float[Array, " episodes"], Float[Array, "steps floats"], Int[Array, ""]]:
    """One seed's returns; of its first episode what a picture needs of every step, and the length."""
    starts = jax.vmap(lambda episode: jax.random.fold_in(key, episode))(jnp.arange(episodes))
    play = partial(_episode_on_device, env.after(frame, seed), act, frame_stack, state)
    total, pictures, length = jax.vmap(play)(starts)
    return total, pictures[0], length[0]


def _episode_on_device(
    env: DeviceEnv, act: Act, frame_stack: int, state: AgentState, key: Key[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, "steps floats"], Int[Array, ""]]:
    """Return, what a picture needs of every step, and the episode's length."""

    def step(carry: Any, key: Key[Array, ""]) -> Any:
        world, obs, total, alive = carry
        act_key, step_key = jax.random.split(key)
        after, (scene, *rest) = env.step(world, act(state, obs, act_key), step_key)
        reward, terminated, truncated = (jnp.asarray(value) for value in rest)
        obs = stack_frames(frame_stack, obs, env.spec.observe(scene))
        total += jnp.where(alive, reward, 0.0)
        return (after, obs, total, alive & ~(terminated | truncated)), (env.picture(world), alive)

    world, scene = env.reset(key)
    obs = stack_frames(frame_stack, None, env.spec.observe(scene))
    start = world, obs, jnp.zeros(()), jnp.array(True)
    keys = jax.random.split(jax.random.fold_in(key, NEVER), env.spec.episode_steps)
    (_, _, total, _), (pictures, alive) = jax.lax.scan(step, start, keys)
    return total, pictures, alive.sum()
