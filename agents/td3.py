"""TD3: twin delayed deep deterministic policy gradient (Fujimoto et al., ICML 2018), from states or from pixels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Key

from agents.actor_critic import Vision, check_rate, check_settings, make_actor_critic
from agents.types import Agent, Clock, Metrics, Obs, Params, Transition
from agents.updates import (
    MakeOptimiser,
    TrainState,
    clipped_double_q_target,
    exploration_action,
    mask_target,
    polyak_update,
)


class TD3Config(NamedTuple):
    """Settings; the defaults are those of the authors' code, as published for MuJoCo. Actions lie in [-1, 1]."""

    hidden: tuple[int, ...] = (256, 256)
    layer_norm: bool = False
    """LayerNorm before each hidden layer's ReLU."""
    crelu: bool = False
    """ReLU of both signs, side by side."""
    injectable: tuple[str, ...] = ()
    """Networks in three parts, trunk + fresh - anchor."""
    tau: float = 0.005
    policy_delay: int = 2
    """Critic updates per update of the actor and of the target networks."""
    smoothing_std: float = 0.2
    """Of the noise on the target policy's actions ..."""
    smoothing_clip: float = 0.5
    """... which is cut at this."""
    exploration_std: float = 0.1
    random_steps: int = 25_000
    """Agent steps with uniformly random actions at the start."""
    ema: float = 0.0
    """Decay of averaged weights, per update of the actor, for evaluation ("elastic" in NE's code); 0 for none."""


@struct.dataclass
class TD3State:
    """Everything that TD3 learns. The encoder has no target network; `average` is None where no average is kept."""

    encoder: TrainState | None
    critic: TrainState
    actor: TrainState
    target_critic: Params
    target_actor: Params
    average: dict[str, Params] | None
    actor_loss: Float[Array, ""]
    """Of the actor's newest update, for the log: it has none of its own in most updates."""


def make_td3(
    config: TD3Config,
    vision: Vision | None,
    obs_shape: tuple[int, ...],
    action_dim: int,
    make_optimiser: MakeOptimiser,
) -> Agent:
    """TD3 for states of `obs_shape` (features,), or with `vision` for pixels (height, width, channels).

    From pixels the encoder, its random shifts and its training are DrQ-v2's: only the critic's loss moves it.

    Raises:
        ValueError: a setting is out of range, or the image is too small for the encoder.
    """
    _validate(config)
    net = make_actor_critic(
        config.hidden,
        vision,
        obs_shape,
        action_dim,
        make_optimiser,
        init="orthogonal" if vision else "uniform",
        layer_norm=config.layer_norm,
        crelu=config.crelu,
        injectable=config.injectable,
    )

    def init(key: Key[Array, ""]) -> TD3State:
        models = net.init(key)
        critic, actor = models["critic"].params, models["actor"].params
        average = {name: model.params for name, model in seen(models).items()} if config.ema else None
        return TD3State(**models, target_critic=critic, target_actor=actor, average=average, actor_loss=jnp.zeros(()))

    def seen(models: dict[str, Any]) -> dict[str, TrainState]:
        """The models that acting needs."""
        return {name: model for name, model in models.items() if name != "critic" and model is not None}

    def act(state: TD3State, obs: Obs, key: Key[Array, ""], step: Clock | None) -> Float[Array, " actions"]:
        encoder, actor = state.encoder, state.actor.params
        if step is None and state.average is not None:
            actor = state.average["actor"]
            encoder = encoder and replace(encoder, params=state.average["encoder"])
        mean = net.policy(actor, net.encode(encoder, obs[None]))[0]
        if step is None:
            return mean
        return exploration_action(key, mean, config.exploration_std, step.env < config.random_steps)

    def smoothed(key: Key[Array, ""], mean: Float[Array, "batch actions"]) -> Float[Array, "batch actions"]:
        noise = config.smoothing_std * jax.random.normal(key, mean.shape)
        return jnp.clip(mean + jnp.clip(noise, -config.smoothing_clip, config.smoothing_clip), -1, 1)

    def target_of(state: TD3State, batch: Transition, shift: Key[Array, ""], noise: Key[Array, ""]) -> Array:
        next_features = net.encode(state.encoder, net.look(shift, batch.next_obs))
        next_action = smoothed(noise, net.policy(state.target_actor, next_features))
        next_values = net.values(state.target_critic, next_features, next_action)
        return clipped_double_q_target(batch.reward, batch.discount, next_values)

    def improve(state: TD3State, features: Array, key: Key[Array, ""], step: Clock) -> TD3State:
        """The delayed half: the actor climbs Q1, and the targets follow."""
        actor, loss = net.learn_actor(state.actor, state.critic.params, features, as_it_is, first, key, step)
        average = state.average
        if average is not None:
            models = seen({"encoder": state.encoder, "actor": actor})
            average = {name: polyak_update(average[name], model, 1 - config.ema) for name, model in models.items()}
        return replace(
            state,
            actor=actor,
            target_actor=polyak_update(state.target_actor, actor, config.tau),
            target_critic=polyak_update(state.target_critic, state.critic, config.tau),
            average=average,
            actor_loss=loss,
        )

    def update(state: TD3State, batch: Transition, key: Key[Array, ""], step: Clock) -> tuple[TD3State, Metrics]:
        shift, next_shift, next_noise, encoder_key, critic_key, actor_key = jax.random.split(key, 6)
        target = target_of(state, batch, next_shift, next_noise)
        obs, keys = net.look(shift, batch.obs), (encoder_key, critic_key)
        models, features, metrics = net.learn_critic(state, obs, batch.action, target, keys, step)
        # The target stays where it is, but what the critic's optimiser has just set to zero is zero there at once.
        target_critic = mask_target(state.target_critic, models["critic"])
        state = replace(state, encoder=models["encoder"], critic=models["critic"], target_critic=target_critic)
        # Time is the same for all seeds, so this stays a branch when they are vmapped.
        due = jnp.asarray(step.update) % config.policy_delay == 0
        state = jax.lax.cond(due, improve, lambda state, *_: state, state, features, actor_key, step)
        return state, metrics | {"actor_loss": state.actor_loss, "batch_reward": batch.reward.mean()}

    def gradients(state: TD3State, batch: Transition, key: Key[Array, ""], step: Clock) -> dict[str, Params]:
        shift, next_shift, noise = jax.random.split(key, 3)
        target = target_of(state, batch, next_shift, noise)
        return net.gradients(state, net.look(shift, batch.obs), batch.action, target, as_it_is, first)

    return Agent(init, act, update, net.activations, gradients)


def as_it_is(mean: Float[Array, "batch actions"]) -> Float[Array, "batch actions"]:
    """The action that the actor's loss is of."""
    return mean


def first(values: Float[Array, "2 batch"]) -> Float[Array, " batch"]:
    """The critic that the actor climbs."""
    return values[0]


def _validate(config: TD3Config) -> None:
    check_rate("tau", config.tau)
    if not 0 <= config.ema < 1:
        raise ValueError(f"agent.ema is the decay of an average and must lie in [0, 1), got {config.ema}")
    not_negative = ("smoothing_std", "smoothing_clip", "exploration_std", "random_steps")
    check_settings(config, positive=("policy_delay",), not_negative=not_negative)
