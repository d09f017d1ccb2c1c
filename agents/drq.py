"""DrQ-v2: data-regularised off-policy control from pixels (Yarats et al., ICLR 2022).

Equations are those of the paper, arXiv:2107.09645, section 3.1. Actions lie in [-1, 1].
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import no_type_check

import jax
from flax import struct
from jaxtyping import Array, Float, Key, UInt8

from agents.augment import augment
from agents.encoder import VisionSettings
from agents.networks import (
    Actor,
    ActorCritic,
    ActorCriticState,
    Critic,
    DeterministicSettings,
    activations,
    check_settings,
    critic_params,
    encode,
    encoder_params,
    init_actor_critic,
    learn_critic,
    make_actor_critic,
    saturation_loss,
    values,
)
from agents.types import Agent, Clock, Metrics, Params, Transition
from agents.updates import (
    MakeOptimiser,
    clipped_double_q_target,
    exploration_action,
    linear_schedule,
    polyak_update,
    smaller,
    truncated_normal,
)
from ne_jax.numbers import Number
from settings import setting


@dataclass(frozen=True)
class DrQSettings(DeterministicSettings):
    """The defaults are those published for DrQ-v2 (table 2, medium tasks)."""

    learning_rate: Number = setting(1e-4, "of Adam, for each network", above=0)
    hidden: tuple[int, ...] = setting((1024, 1024), "widths of the hidden layers of actor and critic", least=1)
    tau: Number = setting(0.01, "rate at which the target critic follows", above=0, most=1)
    std_initial: Number = setting(1.0, "deviation of the noise on actions at the start", least=0)
    std_final: Number = setting(0.1, "deviation of the noise on actions after std_steps", least=0)
    std_steps: int = setting(500_000, "over which that deviation falls", unit="agent steps", least=1)
    std_clip: Number = setting(0.3, "at which the noise is cut in the losses", least=0)
    random_steps: int = setting(2_000, "uniformly random actions at the start", unit="agent steps", least=0)


@no_type_check  # see agents/types.py
@struct.dataclass
class DrQState(ActorCriticState):
    """Everything that DrQ learns. Neither encoder nor actor has a target network."""

    target_critic: Params


def make_drq(
    settings: DrQSettings,
    vision: VisionSettings,
    obs_shape: tuple[int, ...],
    action_dim: int,
    make_optimiser: MakeOptimiser,
    injectable: tuple[str, ...] = (),
) -> Agent:
    """DrQ-v2 for observations of `obs_shape` (height, width, channels of all stacked frames).

    Args:
        injectable: the networks, `actor` or `critic`, that are in three parts, trunk + fresh - anchor (`Injectable`).

    Raises:
        ValueError: a setting is out of range, or the image is too small for the encoder.
    """
    check_settings(settings)
    form = (vision.projection, "orthogonal", settings.layer_norm, settings.activation)
    actor = Actor(settings.hidden, action_dim, *form, "actor" in injectable, vision.channels)
    critic = Critic(settings.hidden, *form, "critic" in injectable, vision.channels)
    nets = make_actor_critic(actor, critic, settings, vision, obs_shape, action_dim, make_optimiser)
    return Agent(
        init=partial(init, nets),
        act=partial(act, settings, nets),
        update=partial(update, settings, nets),
        activations=partial(activations, nets),
        gradients=partial(gradients, settings, nets),
        random_steps=settings.random_steps,
        noise_hold=settings.noise_hold,
        values=partial(values, nets),
    )


def noise(settings: DrQSettings, step: Clock) -> Float[Array, ""]:
    """sigma(t), the deviation of the exploration noise after t agent steps (eq. 3)."""
    return linear_schedule(settings.std_initial, settings.std_final, settings.std_steps, step.env)


def noisy_action(
    settings: DrQSettings,
    nets: ActorCritic,
    params: Params,
    features: Float[Array, "batch features"],
    key: Key[Array, ""],
    step: Clock,
) -> Float[Array, "batch actions"]:
    """a = pi(h) + e with e ~ clip(N(0, sigma(t)^2), -c, c), which both losses are of."""
    return truncated_normal(key, nets.actor.apply(params, features), noise(settings, step), settings.std_clip)


def target_value(
    settings: DrQSettings, nets: ActorCritic, state: DrQState, batch: Transition, key: Key[Array, ""], step: Clock
) -> Float[Array, " batch"]:
    """y = sum_{i<n} gamma^i r_i + gamma^n min(Q1', Q2')(h_n, a_n), the target of eq. 1; the replay has made the sum."""
    features = encode(nets, encoder_params(state), batch.next_obs)
    action = noisy_action(settings, nets, state.actor.params, features, key, step)
    next_values = nets.critic.apply(state.target_critic, features, action)
    return clipped_double_q_target(batch.reward, batch.discount, next_values)


def critic_loss(
    nets: ActorCritic, params: dict[str, Params], batch: Transition, target: Float[Array, " batch"]
) -> tuple[Float[Array, ""], tuple[Float[Array, "batch features"], Metrics]]:
    """sum_k mean (Qk(h, a) - y)^2 over both critics (eq. 1), and the features h that it was computed on.

    Args:
        params: of `critic` and `encoder`, both of which it moves.
    """
    features = encode(nets, params["encoder"], batch.obs)
    q = nets.critic.apply(params["critic"], features, batch.action)
    loss = ((q - target) ** 2).mean(axis=1).sum()
    return loss, (features, {"critic_loss": loss, "q": q.mean(), "q_target": target.mean()})


def actor_loss(
    settings: DrQSettings,
    nets: ActorCritic,
    params: Params,
    critic: Params,
    features: Float[Array, "batch features"],
    key: Key[Array, ""],
    step: Clock,
) -> Float[Array, ""]:
    """-mean min(Q1, Q2)(h, a) at a noisy action of the policy (eq. 2), and `saturation_loss`.

    It moves the actor alone, never the encoder.
    """
    action = noisy_action(settings, nets, params, features, key, step)
    value = smaller(nets.critic.apply(critic, features, action)).mean()
    return saturation_loss(settings, nets, params, features) - value


def init(nets: ActorCritic, key: Key[Array, ""]) -> DrQState:
    """Fresh networks, and a target that equals the critic."""
    begun = init_actor_critic(nets, key)
    return DrQState(**vars(begun), target_critic=begun.critic.params)


def act(
    settings: DrQSettings,
    nets: ActorCritic,
    state: DrQState,
    obs: UInt8[Array, "height width channels"],
    key: Key[Array, ""],
    step: Clock | None,
) -> Float[Array, " actions"]:
    """pi(h) + N(0, sigma(t)^2), uniformly random at first; `step=None` means pi(h)."""
    mean = nets.actor.apply(state.actor.params, encode(nets, encoder_params(state), obs[None]))[0]
    if step is None:
        return mean
    return exploration_action(key, mean, noise(settings, step), step.env < settings.random_steps)


def update(
    settings: DrQSettings, nets: ActorCritic, state: DrQState, batch: Transition, key: Key[Array, ""], step: Clock
) -> tuple[DrQState, Metrics]:
    """One update of critic and encoder, then of the actor, then of the target (algorithm 1)."""
    keys = jax.random.split(key, 7)
    batch = augment(keys[:2], batch, nets.shift_pad)
    target = target_value(settings, nets, state, batch, keys[2], step)
    slope = jax.grad(partial(critic_loss, nets), has_aux=True)
    found, (features, metrics) = slope(critic_params(state), batch, target)
    state = learn_critic(nets, state, found, batch, features, keys[4:6], step)
    # The actor sees the features that the critic's loss was computed on.
    slope = jax.value_and_grad(partial(actor_loss, settings, nets))
    loss, found = slope(state.actor.params, state.critic.params, features, keys[3], step)
    actor = nets.actor.learn(state.actor, found, (features,), keys[6], step)
    target_critic = polyak_update(state.target_critic, state.critic, settings.tau)
    metrics |= {"actor_loss": loss, "batch_reward": batch.reward.mean(), "noise": noise(settings, step)}
    return replace(state, actor=actor, target_critic=target_critic), metrics


def gradients(
    settings: DrQSettings, nets: ActorCritic, state: DrQState, batch: Transition, key: Key[Array, ""], step: Clock
) -> dict[str, Params]:
    """Of both losses, by network, all at the parameters in `state`."""
    keys = jax.random.split(key, 4)
    batch = augment(keys[:2], batch, nets.shift_pad)
    target = target_value(settings, nets, state, batch, keys[2], step)
    found, (features, _) = jax.grad(partial(critic_loss, nets), has_aux=True)(critic_params(state), batch, target)
    slope = jax.grad(partial(actor_loss, settings, nets))
    return found | {"actor": slope(state.actor.params, state.critic.params, features, keys[3], step)}
