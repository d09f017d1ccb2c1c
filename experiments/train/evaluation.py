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
from envs.types import DeviceEnv
from experiments.train.step import NEVER, OverSeeds, Stack, Steps, over_seeds, stack_frames

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


def host_evaluator(pool: HostPool | FittedPool, steps: Steps, seeds: tuple[int, ...], episodes: int) -> Evaluator:
    """Evaluation on host environments, which never change, one lane of `pool` per seed."""

    def greedy(state: AgentState, video_size: int, frame: int = 0) -> Evaluation:
        return play(lambda obs: np.asarray(steps.greedy(state, obs)), video_size)

    def random() -> Evaluation:
        generators = [np.random.default_rng((seed, 2)) for seed in seeds]
        width = pool.spec.action_dim
        return play(lambda _: np.stack([g.uniform(-1, 1, width).astype(np.float32) for g in generators]), 0)

    def play(policy: Policy, video_size: int) -> Evaluation:
        returns, frames = [], None
        for episode in range(episodes):
            kept: list[Any] | None = [] if video_size and episode == 0 else None
            returns.append(_play_on_host(pool, steps, policy, episode, kept, video_size))
            if kept is not None:
                frames = film(kept, video_size)
        return Evaluation(np.stack(returns, axis=1), frames)

    def film(kept: list[Any], size: int) -> UInt8[np.ndarray, "seeds steps size size 3"]:
        pictures = np.stack(kept, axis=1)
        if draw is None:
            return pictures
        return np.stack([np.asarray(draw(each, size=size)) for each in pictures])

    draw = _filmed(pool.spec.draw) if pool.spec.draw else None
    return Evaluator(greedy, random, pool.close)


def _filmed(draw: Callable[[Any, int], Array]) -> Callable[..., Array]:
    """Frames of a row of pictures, `film(pictures, size=...)`; one after another, which takes little memory."""

    @partial(jax.jit, static_argnames="size")
    def film(pictures: Array, size: int) -> Array:
        return jax.lax.map(lambda each: draw(each, size), pictures)

    return film


def _play_on_host(
    pool: HostPool | FittedPool, steps: Steps, policy: Policy, episode: int, pictures: list[Any] | None, size: int
) -> Float[np.ndarray, " seeds"]:
    scene = pool.reset([episode] * pool.lanes)
    obs = steps.watch(None, scene)
    total, alive = np.zeros(pool.lanes), np.ones(pool.lanes, bool)
    while alive.any():
        if pictures is not None:
            shot = np.asarray(pool.pictures(size))
            shown = alive.reshape(-1, *[1] * (shot.ndim - 1))
            pictures.append(np.where(shown, shot, pictures[-1]) if pictures else shot)
        outcome = pool.step(policy(obs))
        total += np.where(alive, outcome.step.reward, 0.0)
        alive &= ~np.logical_or(outcome.step.terminated, outcome.step.truncated)
        obs = steps.watch(obs, outcome.step.scene)
    return total


def device_evaluator(
    env: DeviceEnv, agent: Agent, keys: Key[Array, " seeds"], *, episodes: int, frames: int, how: OverSeeds
) -> Evaluator:
    """Evaluation as one program; `keys` say how the episodes start, `frames` how many observations are stacked."""

    def greedy_action(state: AgentState, obs: Stack, key: Key[Array, ""]) -> Array:
        return agent.act(state, side_by_side(obs), key, None)

    def random_action(state: AgentState, obs: Stack, key: Key[Array, ""]) -> Array:
        return jax.random.uniform(key, (env.spec.action_dim,), minval=-1.0, maxval=1.0)

    def program(act: Callable[..., Array]) -> Callable:
        def play(env: DeviceEnv, state: AgentState, key: Key[Array, ""]) -> tuple[Array, Array, Array]:
            """Return, what a picture needs of every step [steps, floats], and the episode's length."""

            def step(carry: Any, key: Key[Array, ""]) -> Any:
                world, obs, total, alive = carry
                act_key, step_key = jax.random.split(key)
                after, (scene, *rest) = env.step(world, act(state, obs, act_key), step_key)
                reward, terminated, truncated = (jnp.asarray(value) for value in rest)
                obs = stack_frames(frames, obs, env.spec.observe(scene))
                total += jnp.where(alive, reward, 0.0)
                return (after, obs, total, alive & ~(terminated | truncated)), (env.picture(world), alive)

            world, scene = env.reset(key)
            obs = stack_frames(frames, None, env.spec.observe(scene))
            start = world, obs, jnp.zeros(()), jnp.array(True)
            (_, _, total, _), (pictures, alive) = jax.lax.scan(
                step, start, jax.random.split(jax.random.fold_in(key, NEVER), env.spec.episode_steps)
            )
            return total, pictures, alive.sum()

        def of_seed(state: AgentState, key: Key[Array, ""], frame: Int[Array, ""]) -> Any:
            starts = jax.vmap(lambda episode: jax.random.fold_in(key, episode))(jnp.arange(episodes))
            total, pictures, length = jax.vmap(lambda start: play(env.after(frame), state, start))(starts)
            return total, pictures[0], length[0]

        return jax.jit(over_seeds(of_seed, how, shared=1))

    greedy_program, random_program = program(greedy_action), program(random_action)

    draw = _filmed(env.draw)

    def greedy(state: AgentState, video_size: int, frame: int = 0) -> Evaluation:
        returns, pictures, lengths = greedy_program(state, keys, np.int32(frame))
        if not video_size:
            return Evaluation(np.asarray(returns), None)
        pictures, lengths = np.asarray(pictures), np.asarray(lengths)
        still = np.minimum(np.arange(lengths.max()), lengths[:, None] - 1)
        # One seed at a time, and always whole episodes: little memory on the device, and one compilation.
        films = [np.asarray(draw(each, size=video_size))[shown] for each, shown in zip(pictures, still, strict=True)]
        return Evaluation(np.asarray(returns), np.stack(films))

    def random() -> Evaluation:
        return Evaluation(np.asarray(random_program(None, keys, np.int32(0))[0]), None)

    return Evaluator(greedy, random, lambda: None)
