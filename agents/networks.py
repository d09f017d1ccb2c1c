"""The networks that off-policy actor-critics share, each with its optimiser. What they learn is said by the agents."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, Protocol, TypeVar, no_type_check, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Key

import ne_jax
from agents.encoder import VisionSettings, make_encoder
from agents.layers import MLP, Activation, Init, Injectable, Projection
from agents.types import Clock, Obs, Params, Transition
from agents.updates import MakeOptimiser, Network, TrainState, make_network, smaller
from ne_jax.numbers import Number, is_zero
from settings import check, setting


class Actor(nn.Module):
    """Deterministic policy: features to the mean action in (-1, 1). Its fields are those of `Critic`."""

    hidden: tuple[int, ...]
    actions: int
    projection: int | None
    init_as: Init = "orthogonal"
    layer_norm: bool = False
    activation: Activation = "relu"
    injectable: bool = False
    channels: int | None = None

    def __call__(self, features: Float[Array, "batch in"]) -> Float[Array, "batch actions"]:
        return jnp.tanh(self.preactivation(features))

    @nn.compact
    def preactivation(self, features: Float[Array, "batch in"]) -> Float[Array, "batch actions"]:
        """What the tanh takes."""
        return perceptron(self, self.actions, "policy")(project(self, features))


class Critic(nn.Module):
    """Twin action values: features and action to [2, batch]. The projection is shared by the twins, as in DrQ-v2.

    `projection=None` leaves the features as they are. `injectable`: its MLPs have room for plasticity injection.
    `channels` are those of the picture that an encoder has flattened to the features, with which a rule finds the
    weights that lead on from each; None for states.
    """

    hidden: tuple[int, ...]
    projection: int | None
    init_as: Init = "orthogonal"
    layer_norm: bool = False
    activation: Activation = "relu"
    injectable: bool = False
    channels: int | None = None

    @nn.compact
    def __call__(
        self, features: Float[Array, "batch in"], action: Float[Array, "batch actions"]
    ) -> Float[Array, "2 batch"]:
        x = jnp.concatenate([project(self, features), action], axis=-1)
        twins = [perceptron(self, 1, name)(x) for name in ("q1", "q2")]
        return jnp.stack([q[:, 0] for q in twins])


@runtime_checkable
class Form(Protocol):
    """The fields that actors and critics share, as `Critic` explains them."""

    hidden: tuple[int, ...]
    projection: int | None
    init_as: Init
    layer_norm: bool
    activation: Activation
    injectable: bool


def project(network: Form, features: Float[Array, "batch in"]) -> Float[Array, "batch out"]:
    """The features that a network's hidden layers see, for use inside its compact method."""
    if network.projection is None:
        return features
    return Projection(network.projection, network.init_as, name="projection")(features)


def perceptron(network: Form, out: int, name: str) -> nn.Module:
    """A network's hidden layers and head as a module called `name`, for use inside its compact method."""
    mlp = Injectable if network.injectable else MLP
    return mlp(network.hidden, out, network.init_as, network.layer_norm, network.activation, name=name)


@dataclass(frozen=True)
class ActorCriticSettings:
    """Settings that all actor-critics have."""

    learning_rate: Number = setting(3e-4, "of Adam, for each network", above=0)
    hidden: tuple[int, ...] = setting((256, 256), "widths of the hidden layers of actor and critic", least=1)
    layer_norm: bool = setting(False, "LayerNorm before each hidden layer's ReLU")
    activation: Activation = setting(
        "relu", "of hidden layers; leaky_relu: slope 0.01 below zero; crelu: ReLU of both signs, side by side"
    )
    noise_hold: int = setting(
        1, "for which the random part of an action stays as it was drawn", unit="agent steps", least=1
    )


@dataclass(frozen=True)
class DeterministicSettings(ActorCriticSettings):
    """Settings of those whose policy is a tanh, with noise around it."""

    preactivation_penalty: Number = setting(
        0.0, "weight in the actor's loss of the mean square of what its tanh takes, against saturation", least=0
    )


def check_settings(settings: ActorCriticSettings) -> None:
    """ValueError, which names `agent.KEY`, for the first setting of an agent that is out of range."""
    if not settings.hidden or min(settings.hidden) < 1:
        raise ValueError(f"agent.hidden must name at least one positive width, got {settings.hidden}")
    check(type(settings), settings, "agent.")


class ActorCritic(NamedTuple):
    """The networks of an agent; from pixels actor and critic see the features that the encoder makes of them."""

    encoder: Network | None
    """None where observations are states, which are features as they are."""
    critic: Network
    actor: Network
    shift_pad: int | None
    """Pixels by which what the losses see is shifted at random; None for states."""


@no_type_check  # see agents/types.py
@struct.dataclass
class ActorCriticState:
    """What every actor-critic learns."""

    encoder: TrainState | None
    critic: TrainState
    actor: TrainState


State = TypeVar("State", bound=ActorCriticState)


def make_actor_critic(
    actor: nn.Module,
    critic: nn.Module,
    settings: ActorCriticSettings,
    vision: VisionSettings | None,
    obs_shape: tuple[int, ...],
    action_dim: int,
    make_optimiser: MakeOptimiser,
) -> ActorCritic:
    """The networks for pixels of `obs_shape` (height, width, channels), or for states where `vision` is None.

    Args:
        actor: module from features [batch, features].
        critic: module from features and actions, [batch, features] and [batch, actions], to values [2, batch].

    Raises:
        ValueError: a setting of `vision` is out of range, or does not fit what is observed.
    """
    make = partial(make_network, inner=optax.adam(settings.learning_rate), make_optimiser=make_optimiser)
    features, encoder = jnp.zeros((1, *obs_shape)), None
    if vision is not None:
        module, pixels = make_encoder(vision, obs_shape), jnp.zeros((1, *obs_shape), jnp.uint8)
        encoder = make("encoder", module, (pixels,), plastic=False)
        shape = jax.eval_shape(lambda key: module.init_with_output(key, pixels)[0], jax.random.key(0)).shape
        features = jnp.zeros(shape)
    elif len(obs_shape) != 1:
        raise ValueError(f"an agent without vision learns from states, and got observations of shape {obs_shape}")
    return ActorCritic(
        encoder=encoder,
        critic=make("critic", critic, (features, jnp.zeros((1, action_dim))), plastic=True),
        actor=make("actor", actor, (features,), plastic=True),
        shift_pad=vision.shift_pad if vision else None,
    )


def init_actor_critic(nets: ActorCritic, key: Key[Array, ""]) -> ActorCriticState:
    """Fresh networks."""
    keys = iter(jax.random.split(key, 6))
    encoder = nets.encoder.init(next(keys), next(keys)) if nets.encoder is not None else None
    critic = nets.critic.init(next(keys), next(keys))
    return ActorCriticState(encoder, critic, actor=nets.actor.init(next(keys), next(keys)))


def encode(nets: ActorCritic, params: Params | None, obs: Obs) -> Float[Array, "batch features"]:
    """Features of a batch of observations; `params` are the encoder's, None for states."""
    return obs if nets.encoder is None else nets.encoder.apply(params, obs)


def encoder_params(state: ActorCriticState) -> Params | None:
    """The encoder's parameters; None for states."""
    return None if state.encoder is None else state.encoder.params


def critic_params(state: ActorCriticState) -> dict[str, Params]:
    """What the critic's loss moves, by network: the critic, and the encoder if there is one."""
    encoder = {} if state.encoder is None else {"encoder": state.encoder.params}
    return {"critic": state.critic.params} | encoder


def learn_critic(
    nets: ActorCritic,
    state: State,
    gradients: dict[str, Params],
    batch: Transition,
    features: Float[Array, "batch features"],
    keys: Key[Array, "2"],
    step: Clock,
) -> State:
    """One step of encoder and critic along the gradients of the critic's loss on `batch`, of these `features`."""
    encoder = state.encoder
    if nets.encoder is not None and encoder is not None:
        encoder = nets.encoder.learn(encoder, gradients["encoder"], (batch.obs,), keys[0], step)
    critic = nets.critic.learn(state.critic, gradients["critic"], (features, batch.action), keys[1], step)
    return replace(state, encoder=encoder, critic=critic)


def saturation_loss(
    settings: DeterministicSettings, nets: ActorCritic, params: Params, features: Float[Array, "batch features"]
) -> Float[Array, ""]:
    """`preactivation_penalty` times mean u^2, where the policy is tanh(u); part of the actor's loss.

    A tanh that is far out has hardly a slope by which the actor could come back (Andrychowicz et al. 2017,
    arXiv:1707.01495, appendix A).
    """
    if is_zero(settings.preactivation_penalty):
        return jnp.zeros(())
    found = nets.actor.module.apply({"params": params}, features, method="preactivation")
    return settings.preactivation_penalty * jnp.square(jnp.asarray(found)).mean()


def activations(
    nets: ActorCritic, state: ActorCriticState, batch: Transition
) -> dict[str, Float[Array, "batch units"]]:
    """Hidden activations of actor and critic by layer, such as `critic/q1/hidden_0`."""
    features = encode(nets, encoder_params(state), batch.obs)
    actor = ne_jax.flax_activity(nets.actor.module.apply)(state.actor.params, (features,))
    critic = ne_jax.flax_activity(nets.critic.module.apply)(state.critic.params, (features, batch.action))
    found = {"actor": actor, "critic": critic}
    return {f"{name}/{path}": h for name, layers in found.items() for path, h in layers.items()}


def values(
    nets: ActorCritic, state: ActorCriticState, obs: Obs, action: Float[Array, "batch actions"]
) -> Float[Array, " batch"]:
    """min(Q1, Q2)(s, a)."""
    features = encode(nets, encoder_params(state), obs)
    return smaller(nets.critic.apply(state.critic.params, features, action))
