"""DrQ-v2: data-regularised off-policy control from pixels (Yarats et al., ICLR 2022)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
from flax import struct
from jaxtyping import Array, Float, Key, UInt8

from agents.actor_critic import Vision, check_rate, check_settings, make_actor_critic
from agents.types import Agent, Clock, Metrics, Params, Transition
from agents.updates import (
    MakeOptimiser,
    TrainState,
    clipped_double_q_target,
    exploration_action,
    linear_schedule,
    polyak_update,
    truncated_normal,
)


class DrQConfig(NamedTuple):
    """Settings; the defaults are those published for DrQ-v2 (table 2, medium tasks)."""

    hidden: tuple[int, ...] = (1024, 1024)
    layer_norm: bool = False
    crelu: bool = False
    """ReLU of both signs, side by side."""
    injectable: tuple[str, ...] = ()
    """Networks in three parts, trunk + fresh - anchor."""
    tau: float = 0.01
    std_initial: float = 1.0
    std_final: float = 0.1
    std_steps: int = 500_000
    """Agent steps over which the exploration noise falls."""
    std_clip: float = 0.3
    random_steps: int = 2_000
    """Agent steps with uniformly random actions at the start."""


@struct.dataclass
class DrQState:
    """Everything that DrQ learns. The encoder has no target network."""

    encoder: TrainState
    critic: TrainState
    actor: TrainState
    target_critic: Params


def make_drq(
    config: DrQConfig, vision: Vision, obs_shape: tuple[int, int, int], action_dim: int, make_optimiser: MakeOptimiser
) -> Agent:
    """DrQ-v2 for observations of `obs_shape` (height, width, channels of all stacked frames).

    Raises:
        ValueError: a setting is out of range, or the image is too small for the encoder.
    """
    check_rate("tau", config.tau)
    not_negative = ("random_steps", "std_initial", "std_final", "std_clip")
    check_settings(config, positive=("std_steps",), not_negative=not_negative)
    net = make_actor_critic(
        config.hidden,
        vision,
        obs_shape,
        action_dim,
        make_optimiser,
        init="orthogonal",
        layer_norm=config.layer_norm,
        crelu=config.crelu,
        injectable=config.injectable,
    )

    def init(key: Key[Array, ""]) -> DrQState:
        models = net.init(key)
        return DrQState(**models, target_critic=models["critic"].params)

    def noise(step: Clock) -> Float[Array, ""]:
        return linear_schedule(config.std_initial, config.std_final, config.std_steps, step.env)

    def act(state: DrQState, obs: UInt8[Array, "h w c"], key: Key[Array, ""], step: Clock | None) -> Array:
        mean = net.policy(state.actor.params, net.encode(state.encoder, obs[None]))[0]
        if step is None:
            return mean
        return exploration_action(key, mean, noise(step), step.env < config.random_steps)

    def target_of(state: DrQState, batch: Transition, shift: Key[Array, ""], key: Key[Array, ""], step: Clock) -> Array:
        next_features = net.encode(state.encoder, net.look(shift, batch.next_obs))
        next_mean = net.policy(state.actor.params, next_features)
        next_action = truncated_normal(key, next_mean, noise(step), config.std_clip)
        next_values = net.values(state.target_critic, next_features, next_action)
        return clipped_double_q_target(batch.reward, batch.discount, next_values)

    def noisy(key: Key[Array, ""], step: Clock) -> Callable[[Array], Array]:
        """The actions that the actor's loss is of."""
        return lambda mean: truncated_normal(key, mean, noise(step), config.std_clip)

    def update(state: DrQState, batch: Transition, key: Key[Array, ""], step: Clock) -> tuple[DrQState, Metrics]:
        shift, next_shift, next_noise, actor_noise, encoder_key, critic_key, actor_key = jax.random.split(key, 7)
        target = target_of(state, batch, next_shift, next_noise, step)
        obs, keys = net.look(shift, batch.obs), (encoder_key, critic_key)
        models, features, metrics = net.learn_critic(state, obs, batch.action, target, keys, step)
        # The actor sees the features that the critic's loss was computed on.
        models["actor"], actor_loss = net.learn_actor(
            state.actor,
            models["critic"].params,
            features,
            noisy(actor_noise, step),
            min_q,
            actor_key,
            step,
        )
        target_critic = polyak_update(state.target_critic, models["critic"], config.tau)
        metrics |= {"actor_loss": actor_loss, "batch_reward": batch.reward.mean(), "noise": noise(step)}
        return DrQState(**models, target_critic=target_critic), metrics

    def gradients(state: DrQState, batch: Transition, key: Key[Array, ""], step: Clock) -> dict[str, Params]:
        shift, next_shift, next_noise, actor_noise = jax.random.split(key, 4)
        target = target_of(state, batch, next_shift, next_noise, step)
        obs = net.look(shift, batch.obs)
        return net.gradients(state, obs, batch.action, target, noisy(actor_noise, step), min_q)

    return Agent(init, act, update, net.activations, gradients)


def min_q(values: Float[Array, "2 batch"]) -> Float[Array, " batch"]:
    """What the actor climbs: the smaller of the two critics' values."""
    return values.min(axis=0)
