"""SAC: soft actor-critic with a learned temperature (Haarnoja et al., 2018), from states or from pixels.

Equations, algorithm 1 and appendix C are those of the paper, arXiv:1812.05905. Actions lie in (-1, 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import no_type_check

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Key

from agents.augment import augment
from agents.encoder import VisionSettings
from agents.layers import Activation, Init
from agents.networks import (
    ActorCritic,
    ActorCriticSettings,
    ActorCriticState,
    Critic,
    activations,
    check_settings,
    critic_params,
    encode,
    encoder_params,
    init_actor_critic,
    learn_critic,
    make_actor_critic,
    perceptron,
    project,
    values,
)
from agents.types import Agent, Clock, Metrics, Obs, Params, Transition
from agents.updates import (
    MakeOptimiser,
    Optimiser,
    TrainState,
    apply_gradients,
    clipped_double_q_target,
    create_train_state,
    polyak_update,
    smaller,
)
from ne_jax.numbers import Number
from settings import setting

LOG_STD = (-20.0, 2.0)
"""Bounds of the policy's log-deviation, those of the authors' code."""


@dataclass(frozen=True)
class SACSettings(ActorCriticSettings):
    """The defaults are those of the paper (table 1), and its authors' code where it is silent."""

    tau: Number = setting(0.005, "rate at which the target critic follows", above=0, most=1)
    initial_temperature: Number = setting(1.0, "weight of the policy's entropy at the start", above=0)
    target_entropy: Number = setting(-1.0, "of the policy, for each action, which the temperature learns to hold")
    random_steps: int = setting(10_000, "uniformly random actions at the start", unit="agent steps", least=0)


@no_type_check  # see agents/types.py
@struct.dataclass
class SACState(ActorCriticState):
    """Everything that SAC learns. Neither encoder nor actor has a target network; `temperature` holds log(alpha)."""

    temperature: TrainState
    target_critic: Params


class GaussianActor(nn.Module):
    """Features to mean and log-deviation, [2, batch, actions], of a Gaussian whose tanh is the action.

    Its fields are those of `agents.networks.Critic`.
    """

    hidden: tuple[int, ...]
    actions: int
    projection: int | None
    init_as: Init = "orthogonal"
    layer_norm: bool = False
    activation: Activation = "relu"
    injectable: bool = False
    channels: int | None = None

    @nn.compact
    def __call__(self, features: Float[Array, "batch in"]) -> Float[Array, "2 batch actions"]:
        out = perceptron(self, 2 * self.actions, "policy")(project(self, features))
        mean, log_std = jnp.split(out, 2, axis=-1)
        return jnp.stack([mean, jnp.clip(log_std, *LOG_STD)])


def make_sac(
    settings: SACSettings,
    vision: VisionSettings | None,
    obs_shape: tuple[int, ...],
    action_dim: int,
    make_optimiser: MakeOptimiser,
    injectable: tuple[str, ...] = (),
) -> Agent:
    """SAC for states of `obs_shape` (features,), or with `vision` for pixels (height, width, channels).

    From pixels the encoder, its random shifts and its training are DrQ-v2's: only the critic's loss moves it.

    Args:
        injectable: the networks, `actor` or `critic`, that are in three parts, trunk + fresh - anchor (`Injectable`).

    Raises:
        ValueError: a setting is out of range, or the image is too small for the encoder.
    """
    check_settings(settings)
    init_as: Init = "orthogonal" if vision else "uniform"
    form = (vision.projection if vision else None, init_as, settings.layer_norm, settings.activation)
    channels = vision.channels if vision else None
    actor = GaussianActor(settings.hidden, action_dim, *form, "actor" in injectable, channels)
    critic = Critic(settings.hidden, *form, "critic" in injectable, channels)
    nets = make_actor_critic(actor, critic, settings, vision, obs_shape, action_dim, make_optimiser)
    return Agent(
        init=partial(init, settings, nets),
        act=partial(act, settings, nets),
        update=partial(update, settings, nets),
        activations=partial(activations, nets),
        gradients=partial(gradients, settings, nets),
        random_steps=settings.random_steps,
        noise_hold=settings.noise_hold,
        values=partial(values, nets),
    )


def sample_action(
    nets: ActorCritic, params: Params, features: Float[Array, "batch features"], key: Key[Array, ""]
) -> tuple[Float[Array, "batch actions"], Float[Array, " batch"]]:
    """a = tanh(u) with u ~ N(mean, std^2), and log pi(a|s) = log N(u) - sum_i log(1 - tanh(u_i)^2) (appendix C)."""
    mean, log_std = nets.actor.apply(params, features)
    noise = jax.random.normal(key, mean.shape)
    u = mean + jnp.exp(log_std) * noise  # reparameterised, eq. 8
    log_density = -0.5 * (noise**2 + math.log(2 * math.pi)) - log_std
    # The same as log(1 - tanh(u)^2), which would be log(0) for a large u.
    log_slope = 2 * (math.log(2) - u - jax.nn.softplus(-2 * u))
    return jnp.tanh(u), (log_density - log_slope).sum(axis=-1)


def target_value(nets: ActorCritic, state: SACState, batch: Transition, key: Key[Array, ""]) -> Float[Array, " batch"]:
    """y = r + discount * (min(Q1', Q2')(s', a') - alpha log pi(a'|s')), the soft target (eqs. 3 and 5)."""
    features = encode(nets, encoder_params(state), batch.next_obs)
    action, log_prob = sample_action(nets, state.actor.params, features, key)
    next_values = nets.critic.apply(state.target_critic, features, action)
    return clipped_double_q_target(batch.reward, batch.discount, next_values - alpha(state) * log_prob)


def critic_loss(
    nets: ActorCritic, params: dict[str, Params], batch: Transition, target: Float[Array, " batch"]
) -> tuple[Float[Array, ""], tuple[Float[Array, "batch features"], Metrics]]:
    """sum_i mean (Qi(s, a) - y)^2 / 2 over both critics (eq. 5), and the features that it was computed on.

    Args:
        params: of `critic`, and from pixels of `encoder`.
    """
    features = encode(nets, params.get("encoder"), batch.obs)
    q = nets.critic.apply(params["critic"], features, batch.action)
    loss = 0.5 * ((q - target) ** 2).mean(axis=1).sum()
    return loss, (features, {"critic_loss": loss, "q": q.mean(), "q_target": target.mean()})


def actor_loss(
    nets: ActorCritic,
    params: Params,
    critic: Params,
    features: Float[Array, "batch features"],
    temperature: Float[Array, ""],
    key: Key[Array, ""],
) -> tuple[Float[Array, ""], Float[Array, " batch"]]:
    """mean alpha log pi(a|s) - min(Q1, Q2)(s, a) at an action of the policy (eqs. 7 and 9), and log pi(a|s)."""
    action, log_prob = sample_action(nets, params, features, key)
    min_q = smaller(nets.critic.apply(critic, features, action))
    return (temperature * log_prob - min_q).mean(), log_prob


def temperature_loss(
    params: dict[str, Float[Array, ""]], log_prob: Float[Array, " batch"], target_entropy: Number
) -> Float[Array, ""]:
    """mean -alpha (log pi(a|s) + H) for the target entropy H (eq. 18): alpha rises while the entropy is below H."""
    return -(jnp.exp(params["log_alpha"]) * (log_prob + target_entropy)).mean()


def alpha(state: SACState) -> Float[Array, ""]:
    """The temperature: what a nat of entropy is worth in rewards."""
    return jnp.exp(state.temperature.params["log_alpha"])


def temperature_optimiser(settings: SACSettings) -> Optimiser:
    """Adam alone: whatever is put around the optimisers of networks is not meant for a single number."""
    return Optimiser(optax.adam(settings.learning_rate))


def init(settings: SACSettings, nets: ActorCritic, key: Key[Array, ""]) -> SACState:
    """Fresh networks, a target that equals the critic, and the initial temperature."""
    begun = init_actor_critic(nets, key)
    log_alpha = {"log_alpha": jnp.log(jnp.float32(settings.initial_temperature))}
    temperature = create_train_state(temperature_optimiser(settings), key, log_alpha)
    return SACState(**vars(begun), temperature=temperature, target_critic=begun.critic.params)


def act(
    settings: SACSettings, nets: ActorCritic, state: SACState, obs: Obs, key: Key[Array, ""], step: Clock | None
) -> Float[Array, " actions"]:
    """An action of the policy, uniformly random at first; `step=None` means tanh(mean)."""
    features = encode(nets, encoder_params(state), obs[None])
    if step is None:
        mean, _ = nets.actor.apply(state.actor.params, features)
        return jnp.tanh(mean)[0]
    policy_key, random_key = jax.random.split(key)
    action = sample_action(nets, state.actor.params, features, policy_key)[0][0]
    uniform = jax.random.uniform(random_key, action.shape, minval=-1.0, maxval=1.0)
    return jnp.where(step.env < settings.random_steps, uniform, action)


def update(
    settings: SACSettings, nets: ActorCritic, state: SACState, batch: Transition, key: Key[Array, ""], step: Clock
) -> tuple[SACState, Metrics]:
    """The gradient step of algorithm 1: critics, actor, temperature, and the target critic."""
    keys = jax.random.split(key, 8)
    batch = augment(keys[:2], batch, nets.shift_pad)
    target = target_value(nets, state, batch, keys[2])
    slope = jax.grad(partial(critic_loss, nets), has_aux=True)
    found, (features, metrics) = slope(critic_params(state), batch, target)
    state = learn_critic(nets, state, found, batch, features, keys[4:6], step)
    slope = jax.value_and_grad(partial(actor_loss, nets), has_aux=True)
    (loss, log_prob), found = slope(state.actor.params, state.critic.params, features, alpha(state), keys[3])
    actor = nets.actor.learn(state.actor, found, (features,), keys[6], step)
    found = jax.grad(temperature_loss)(state.temperature.params, log_prob, whole_entropy(settings, batch))
    optimiser = temperature_optimiser(settings)
    temperature = apply_gradients(optimiser, state.temperature, found, batch=(), key=keys[7], step=step)
    target_critic = polyak_update(state.target_critic, state.critic, settings.tau)
    metrics |= {"actor_loss": loss, "batch_reward": batch.reward.mean()}
    metrics |= {"entropy": -log_prob.mean(), "temperature": alpha(state)}
    return replace(state, actor=actor, temperature=temperature, target_critic=target_critic), metrics


def whole_entropy(settings: SACSettings, batch: Transition) -> Number:
    """H, the target entropy of all actions together; the paper's is minus their number."""
    return settings.target_entropy * batch.action.shape[-1]


def gradients(
    settings: SACSettings, nets: ActorCritic, state: SACState, batch: Transition, key: Key[Array, ""], step: Clock
) -> dict[str, Params]:
    """Of all losses, by network, all at the parameters in `state`."""
    keys = jax.random.split(key, 4)
    batch = augment(keys[:2], batch, nets.shift_pad)
    target = target_value(nets, state, batch, keys[2])
    found, (features, _) = jax.grad(partial(critic_loss, nets), has_aux=True)(critic_params(state), batch, target)
    slope = jax.grad(partial(actor_loss, nets), has_aux=True)
    actor, log_prob = slope(state.actor.params, state.critic.params, features, alpha(state), keys[3])
    of_temperature = jax.grad(temperature_loss)(state.temperature.params, log_prob, whole_entropy(settings, batch))
    return found | {"actor": actor, "temperature": of_temperature}
