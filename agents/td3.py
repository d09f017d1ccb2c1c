"""TD3: twin delayed deep deterministic policy gradient (Fujimoto et al., ICML 2018), from states or from pixels.

Equations, sections and algorithm 1 are those of the paper, arXiv:1802.09477. Actions lie in [-1, 1].
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import no_type_check

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Key

from agents.augment import augment
from agents.encoder import VisionSettings
from agents.layers import Init
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
from agents.types import Agent, Clock, Metrics, Obs, Params, Transition
from agents.updates import (
    MakeOptimiser,
    TrainState,
    clipped_double_q_target,
    exploration_action,
    polyak_update,
    sync_target,
)
from ne_jax.numbers import Number, is_zero
from settings import setting


@dataclass(frozen=True)
class TD3Settings(DeterministicSettings):
    """The defaults are those of the authors' code, as published for MuJoCo."""

    tau: Number = setting(0.005, "rate at which target networks follow", above=0, most=1)
    policy_delay: int = setting(2, "critic updates per update of actor and targets", least=1)
    smoothing_std: Number = setting(0.2, "deviation of the noise on the target policy's actions", least=0)
    smoothing_clip: Number = setting(0.5, "at which that noise is cut", least=0)
    exploration_std: Number = setting(0.1, "deviation of the noise on actions", least=0)
    random_steps: int = setting(25_000, "uniformly random actions at the start", unit="agent steps", least=0)
    ema: Number = setting(
        0.0,
        "decay of averaged weights for evaluation, per update of the actor (elastic in NE's code); 0 for none",
        least=0,
        below=1,
    )


@no_type_check  # see agents/types.py
@struct.dataclass
class TD3State(ActorCriticState):
    """Everything that TD3 learns. The encoder has no target network; `average` is None where no average is kept."""

    target_critic: Params
    target_actor: Params
    average: dict[str, Params] | None
    actor_loss: Float[Array, ""]
    """Of the actor's newest update, for the log: most updates have none of their own."""


def make_td3(
    settings: TD3Settings,
    vision: VisionSettings | None,
    obs_shape: tuple[int, ...],
    action_dim: int,
    make_optimiser: MakeOptimiser,
    injectable: tuple[str, ...] = (),
) -> Agent:
    """TD3 for states of `obs_shape` (features,), or with `vision` for pixels (height, width, channels).

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
    actor = Actor(settings.hidden, action_dim, *form, "actor" in injectable, channels)
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


def target_action(
    settings: TD3Settings,
    nets: ActorCritic,
    params: Params,
    features: Float[Array, "batch features"],
    key: Key[Array, ""],
) -> Float[Array, "batch actions"]:
    """pi'(s') + e with e ~ clip(N(0, sigma), -c, c), cut at the bounds of actions: target policy smoothing (5.3)."""
    mean = nets.actor.apply(params, features)
    noise = settings.smoothing_std * jax.random.normal(key, mean.shape)
    return jnp.clip(mean + jnp.clip(noise, -settings.smoothing_clip, settings.smoothing_clip), -1, 1)


def target_value(
    settings: TD3Settings, nets: ActorCritic, state: TD3State, batch: Transition, key: Key[Array, ""]
) -> Float[Array, " batch"]:
    """y = r + discount * min(Q1', Q2')(s', a'), the clipped double-Q target (eq. 10), at a smoothed a'."""
    features = encode(nets, encoder_params(state), batch.next_obs)
    action = target_action(settings, nets, state.target_actor, features, key)
    next_values = nets.critic.apply(state.target_critic, features, action)
    return clipped_double_q_target(batch.reward, batch.discount, next_values)


def critic_loss(
    nets: ActorCritic, params: dict[str, Params], batch: Transition, target: Float[Array, " batch"]
) -> tuple[Float[Array, ""], tuple[Float[Array, "batch features"], Metrics]]:
    """sum_i mean (y - Qi(s, a))^2 over both critics (algorithm 1), and the features that it was computed on.

    Args:
        params: of `critic`, and from pixels of `encoder`.
    """
    features = encode(nets, params.get("encoder"), batch.obs)
    q = nets.critic.apply(params["critic"], features, batch.action)
    loss = ((q - target) ** 2).mean(axis=1).sum()
    return loss, (features, {"critic_loss": loss, "q": q.mean(), "q_target": target.mean()})


def actor_loss(
    settings: TD3Settings, nets: ActorCritic, params: Params, critic: Params, features: Float[Array, "batch features"]
) -> Float[Array, ""]:
    """-mean Q1(s, pi(s)), whose descent is the deterministic policy gradient (algorithm 1), and `saturation_loss`."""
    q1, _ = nets.critic.apply(critic, features, nets.actor.apply(params, features))
    return saturation_loss(settings, nets, params, features) - q1.mean()


def init(settings: TD3Settings, nets: ActorCritic, key: Key[Array, ""]) -> TD3State:
    """Fresh networks, and targets that equal them."""
    begun = init_actor_critic(nets, key)
    average = None if is_zero(settings.ema) else acting(begun.encoder, begun.actor)
    return TD3State(
        **vars(begun),
        target_critic=begun.critic.params,
        target_actor=begun.actor.params,
        average=average,
        actor_loss=jnp.zeros(()),
    )


def acting(encoder: TrainState | None, actor: TrainState) -> dict[str, Params]:
    """The parameters that acting needs."""
    return {"actor": actor.params} | ({"encoder": encoder.params} if encoder is not None else {})


def act(
    settings: TD3Settings, nets: ActorCritic, state: TD3State, obs: Obs, key: Key[Array, ""], step: Clock | None
) -> Float[Array, " actions"]:
    """pi(s) + N(0, sigma), uniformly random at first; `step=None` means pi(s), of the average where one is kept."""
    params = acting(state.encoder, state.actor)
    if step is None and state.average is not None:
        params = state.average
    mean = nets.actor.apply(params["actor"], encode(nets, params.get("encoder"), obs[None]))[0]
    if step is None:
        return mean
    return exploration_action(key, mean, settings.exploration_std, step.env < settings.random_steps)


def update(
    settings: TD3Settings, nets: ActorCritic, state: TD3State, batch: Transition, key: Key[Array, ""], step: Clock
) -> tuple[TD3State, Metrics]:
    """One turn of algorithm 1: the critics learn, and in every `policy_delay`-th turn the actor does."""
    keys = jax.random.split(key, 6)
    batch = augment(keys[:2], batch, nets.shift_pad)
    target = target_value(settings, nets, state, batch, keys[2])
    slope = jax.grad(partial(critic_loss, nets), has_aux=True)
    found, (features, metrics) = slope(critic_params(state), batch, target)
    state = learn_critic(nets, state, found, batch, features, keys[3:5], step)
    # Between the delayed updates the target stays where it is, but for what the critic's optimiser has just changed.
    state = replace(state, target_critic=sync_target(state.target_critic, state.critic))
    # Time is the same for all seeds, so this stays a branch when they are vmapped.
    due = jnp.asarray(step.update) % settings.policy_delay == 0
    delayed = partial(delayed_update, settings, nets)
    state = jax.lax.cond(due, delayed, lambda state, *_: state, state, features, keys[5], step)
    return state, metrics | {"actor_loss": state.actor_loss, "batch_reward": batch.reward.mean()}


def delayed_update(
    settings: TD3Settings,
    nets: ActorCritic,
    state: TD3State,
    features: Float[Array, "batch features"],
    key: Key[Array, ""],
    step: Clock,
) -> TD3State:
    """The delayed half of algorithm 1: the actor learns, and the targets follow (section 5.2)."""
    slope = jax.value_and_grad(partial(actor_loss, settings, nets))
    loss, found = slope(state.actor.params, state.critic.params, features)
    actor = nets.actor.learn(state.actor, found, (features,), key, step)
    average = state.average
    if average is not None:
        models = {"actor": actor} | ({"encoder": state.encoder} if state.encoder is not None else {})
        average = {name: polyak_update(average[name], model, 1 - settings.ema) for name, model in models.items()}
    return replace(
        state,
        actor=actor,
        target_actor=polyak_update(state.target_actor, actor, settings.tau),
        target_critic=polyak_update(state.target_critic, state.critic, settings.tau),
        average=average,
        actor_loss=loss,
    )


def gradients(
    settings: TD3Settings, nets: ActorCritic, state: TD3State, batch: Transition, key: Key[Array, ""], step: Clock
) -> dict[str, Params]:
    """Of both losses, by network, all at the parameters in `state`."""
    keys = jax.random.split(key, 3)
    batch = augment(keys[:2], batch, nets.shift_pad)
    target = target_value(settings, nets, state, batch, keys[2])
    found, (features, _) = jax.grad(partial(critic_loss, nets), has_aux=True)(critic_params(state), batch, target)
    of_actor = jax.grad(partial(actor_loss, settings, nets))(state.actor.params, state.critic.params, features)
    return found | {"actor": of_actor}
