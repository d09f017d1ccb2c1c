"""DrQ-v2: data-regularised off-policy control from pixels (Yarats et al., ICLR 2022)."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Key, UInt8

import ne_jax
from agents.augment import random_shift
from agents.learn import (
    MakeOptimiser,
    Model,
    begin,
    descend,
    follow,
    linear_schedule,
    truncated_normal,
    twin_target,
)
from agents.networks import Actor, Critic, Encoder, encoded_size
from agents.types import Agent, Metrics, Params, Step, Transition


class DrQConfig(NamedTuple):
    """Settings; the defaults are those published for DrQ-v2 (table 2, medium tasks)."""

    channels: int = 32
    strides: tuple[int, ...] = (2, 1, 1, 1)
    projection: int = 50
    hidden: tuple[int, ...] = (1024, 1024)
    tau: float = 0.01
    std_initial: float = 1.0
    std_final: float = 0.1
    std_steps: int = 500_000
    """Agent steps over which the exploration noise falls."""
    std_clip: float = 0.3
    random_steps: int = 2_000
    """Agent steps with uniformly random actions at the start."""
    shift_pad: int = 4
    im2col: bool = False
    """Convolutions as matrix products: for CPUs."""


@struct.dataclass
class DrQState:
    """Everything that DrQ learns. The encoder has no target network."""

    encoder: Model
    critic: Model
    actor: Model
    target_critic: Params


def make_drq(
    config: DrQConfig, obs_shape: tuple[int, int, int], action_dim: int, make_optimiser: MakeOptimiser
) -> Agent:
    """DrQ-v2 for observations of `obs_shape` (height, width, channels of all stacked frames).

    Raises:
        ValueError: a setting is out of range, or the image is too small for the encoder.
    """
    _validate(config, obs_shape)
    encoder = Encoder(config.channels, config.strides, config.im2col)
    actor = Actor(config.hidden, action_dim, config.projection)
    critic = Critic(config.hidden, config.projection)
    networks = {"encoder": encoder, "critic": critic, "actor": actor}
    optimisers = {name: make_optimiser(name, network) for name, network in networks.items()}

    def init(key: Key[Array, ""]) -> DrQState:
        keys = iter(jax.random.split(key, 6))

        def new(name: str, *inputs: Array) -> Model:
            params = networks[name].init(next(keys), *inputs)["params"]
            return begin(optimisers[name], next(keys), params)

        obs, action = jnp.zeros((1, *obs_shape), jnp.uint8), jnp.zeros((1, action_dim))
        models = {"encoder": new("encoder", obs)}
        features = encode(models["encoder"].params, obs)
        models |= {"critic": new("critic", features, action), "actor": new("actor", features)}
        return DrQState(**models, target_critic=models["critic"].params)

    def policy(params: Params, features: Float[Array, "batch in"]) -> Float[Array, "batch actions"]:
        return _apply(actor, params, features)

    def values(params: Params, features: Float[Array, "batch in"], action: Array) -> Float[Array, "2 batch"]:
        return _apply(critic, params, features, action)

    def encode(params: Params, obs: UInt8[Array, "batch h w c"]) -> Float[Array, "batch features"]:
        return _apply(encoder, params, obs)

    def noise(step: Step) -> Float[Array, ""]:
        return linear_schedule(config.std_initial, config.std_final, config.std_steps, step.env)

    def act(state: DrQState, obs: UInt8[Array, "h w c"], key: Key[Array, ""], step: Step | None) -> Array:
        mean = policy(state.actor.params, encode(state.encoder.params, obs[None]))[0]
        if step is None:
            return mean
        noise_key, random_key = jax.random.split(key)
        explore = truncated_normal(noise_key, mean, noise(step))
        uniform = jax.random.uniform(random_key, mean.shape, minval=-1.0, maxval=1.0)
        return jnp.where(step.env < config.random_steps, uniform, explore)

    def critic_loss(params, state, obs, batch, next_features, next_action):
        features = encode(params["encoder"], obs)
        q = values(params["critic"], features, batch.action)
        next_values = values(state.target_critic, next_features, next_action)
        target = twin_target(batch.reward, batch.discount, next_values)
        loss = ((q - target) ** 2).mean(axis=1).sum()
        return loss, (features, {"critic_loss": loss, "q": q.mean(), "q_target": target.mean()})

    def actor_loss(params, critic_params, features, key, step):
        action = truncated_normal(key, policy(params, features), noise(step), config.std_clip)
        loss = -values(critic_params, features, action).min(axis=0).mean()
        return loss, {"actor_loss": loss}

    def learn(name: str, state: DrQState, gradients: Params, inputs: tuple, key: Key[Array, ""], step: Step) -> Model:
        return descend(optimisers[name], getattr(state, name), gradients, batch=inputs, key=key, step=step)

    def update(state: DrQState, batch: Transition, key: Key[Array, ""], step: Step) -> tuple[DrQState, Metrics]:
        shift, next_shift, next_noise, actor_noise, encoder_key, critic_key, actor_key = jax.random.split(key, 7)
        obs = random_shift(shift, batch.obs, config.shift_pad)
        next_features = encode(state.encoder.params, random_shift(next_shift, batch.next_obs, config.shift_pad))
        next_mean = policy(state.actor.params, next_features)
        next_action = truncated_normal(next_noise, next_mean, noise(step), config.std_clip)

        params = {"encoder": state.encoder.params, "critic": state.critic.params}
        gradients, (features, metrics) = jax.grad(critic_loss, has_aux=True)(
            params, state, obs, batch, next_features, next_action
        )
        models = {
            "encoder": learn("encoder", state, gradients["encoder"], (obs,), encoder_key, step),
            "critic": learn("critic", state, gradients["critic"], (features, batch.action), critic_key, step),
        }
        # The actor sees the features that the critic's loss was computed on, and never moves the encoder.
        gradients, actor_metrics = jax.grad(actor_loss, has_aux=True)(
            state.actor.params, models["critic"].params, features, actor_noise, step
        )
        models["actor"] = learn("actor", state, gradients, (features,), actor_key, step)
        target = follow(state.target_critic, models["critic"], config.tau)
        metrics |= actor_metrics | {"batch_reward": batch.reward.mean(), "noise": noise(step)}
        return DrQState(**models, target_critic=target), metrics

    def activations(state: DrQState, batch: Transition) -> dict[str, Array]:
        features = encode(state.encoder.params, batch.obs)
        inputs = {"actor": (features,), "critic": (features, batch.action)}
        return {
            f"{name}/{path}": h
            for name, given in inputs.items()
            for path, h in ne_jax.flax_activity(networks[name].apply)(getattr(state, name).params, given).items()
        }

    return Agent(init, act, update, activations)


def _apply(network: nn.Module, params: Params, *inputs: Array) -> Any:
    return network.apply({"params": params}, *inputs)


def _validate(config: DrQConfig, obs_shape: tuple[int, ...]) -> None:
    if len(obs_shape) != 3:
        raise ValueError(f"DrQ learns from pixels, and got observations of shape {obs_shape}; set env.pixels=True")
    if not config.strides or min(config.strides) < 1:
        raise ValueError(f"agent.strides must name a positive stride for each convolution, got {config.strides}")
    encoded_size(min(obs_shape[:2]), config.strides)
    for name in ("channels", "projection", "std_steps"):
        if getattr(config, name) < 1:
            raise ValueError(f"agent.{name} must be positive, got {getattr(config, name)}")
    if not 0 < config.tau <= 1:
        raise ValueError(f"agent.tau must lie in (0, 1], got {config.tau}")
    if not config.hidden or min(config.hidden) < 1:
        raise ValueError(f"agent.hidden must name at least one positive width, got {config.hidden}")
    for name in ("random_steps", "shift_pad", "std_initial", "std_final", "std_clip"):
        if getattr(config, name) < 0:
            raise ValueError(f"agent.{name} must not be negative, got {getattr(config, name)}")
