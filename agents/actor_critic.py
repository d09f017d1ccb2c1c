"""What TD3 and DrQ share: an encoder where there are pixels, an actor, twin critics, and how each of them learns."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

import ne_jax
from agents.augment import random_shift
from agents.networks import Actor, Critic, Encoder, Init, encoded_size
from agents.types import Clock, Metrics, Obs, Params, Transition
from agents.updates import MakeOptimiser, TrainState, apply_gradients, create_train_state

Features = Float[Array, "batch features"]
Action = Float[Array, "batch actions"]


class Vision(NamedTuple):
    """How pixels become features; the defaults are those of DrQ-v2."""

    channels: int = 32
    strides: tuple[int, ...] = (2, 1, 1, 1)
    projection: int = 50
    shift_pad: int = 4
    im2col: bool = False
    """Convolutions as matrix products: for CPUs."""


class ActorCritic(NamedTuple):
    """Networks and optimisers as pure functions of one seed.

    init(key): new models by name: `critic`, `actor`, and `encoder` where there are pixels (None where not).
    look(key, obs): the observations as the encoder is to see them: shifted at random if they are pixels.
    encode(encoder, obs): features; observations that are states are features already.
    policy(params, features): the mean action. values(params, features, action): [2, batch].
    learn_critic(state, obs, action, target, keys, step): encoder and critic after one step towards `target`, the
        features that the loss was computed on, and metrics. Takes two keys.
    learn_actor(actor, critic_params, features, act, value, key, step): the actor after one step up `value(q)` at the
        actions `act(mean)`. It never moves the encoder.
    activations(state, batch): hidden activations by layer.
    gradients(state, obs, action, target, act, value): of the critic's loss and of the actor's, by network, all at the
        parameters in `state`.
    """

    init: Callable[[Key[Array, ""]], dict[str, Any]]
    look: Callable[[Key[Array, ""], Obs], Obs]
    encode: Callable[[TrainState | None, Obs], Features]
    policy: Callable[[Params, Features], Action]
    values: Callable[[Params, Features, Action], Float[Array, "2 batch"]]
    learn_critic: Callable[..., tuple[dict[str, Any], Features, Metrics]]
    learn_actor: Callable[..., tuple[TrainState, Float[Array, ""]]]
    activations: Callable[[Any, Transition], dict[str, Array]]
    gradients: Callable[..., dict[str, Params]]


def make_actor_critic(
    hidden: tuple[int, ...],
    vision: Vision | None,
    obs_shape: tuple[int, ...],
    action_dim: int,
    make_optimiser: MakeOptimiser,
    *,
    init: Init,
    layer_norm: bool = False,
    crelu: bool = False,
    injectable: tuple[str, ...] = (),
) -> ActorCritic:
    """Actor and critic for pixels of `obs_shape` (height, width, channels), or for states where `vision` is None.

    `injectable` names the networks that have room for plasticity injection.

    Raises:
        ValueError: a setting is out of range, or the image is too small for the encoder.
    """
    _validate(hidden, vision, obs_shape)
    projection = vision.projection if vision else None
    actor = Actor(hidden, action_dim, projection, init, layer_norm, crelu, "actor" in injectable)
    critic = Critic(hidden, projection, init, layer_norm, crelu, "critic" in injectable)
    networks: dict[str, Any] = {"critic": critic, "actor": actor}
    if vision:
        networks["encoder"] = Encoder(vision.channels, vision.strides, vision.im2col)
    obs, action = jnp.zeros((1, *obs_shape), jnp.uint8 if vision else jnp.float32), jnp.zeros((1, action_dim))
    features = jnp.zeros(_feature_shape(networks["encoder"], obs)) if vision else obs
    inputs = {"encoder": (obs,), "critic": (features, action), "actor": (features,)}

    def initialise(name: str, key: Key[Array, ""]) -> Params:
        return networks[name].init(key, *inputs[name])["params"]

    # In a vmapped update, drawing orthogonal weights for all lanes at once deadlocks on CPUs: one after the other.
    optimisers = {
        name: make_optimiser(name, network, jax.custom_batching.sequential_vmap(partial(initialise, name)))
        for name, network in networks.items()
    }

    def apply(name: str, params: Params, *inputs: Array) -> Any:
        return networks[name].apply({"params": params}, *inputs)

    def new_models(key: Key[Array, ""]) -> dict[str, Any]:
        keys = iter(jax.random.split(key, 6))

        def new(name: str) -> TrainState:
            params = initialise(name, next(keys))
            return create_train_state(optimisers[name], next(keys), params)

        encoder_model = new("encoder") if vision else None
        return {"encoder": encoder_model, "critic": new("critic"), "actor": new("actor")}

    def look(key: Key[Array, ""], obs: Obs) -> Obs:
        return random_shift(key, obs, vision.shift_pad) if vision else obs

    def encode(encoder: TrainState | None, obs: Obs) -> Features:
        return apply("encoder", encoder.params, obs) if encoder is not None else obs

    def policy(params: Params, features: Features) -> Action:
        return apply("actor", params, features)

    def values(params: Params, features: Features, action: Action) -> Float[Array, "2 batch"]:
        return apply("critic", params, features, action)

    def critic_loss(params: dict[str, Params], obs: Obs, action: Action, target: Array):
        features = apply("encoder", params["encoder"], obs) if vision else obs
        q = values(params["critic"], features, action)
        loss = ((q - target) ** 2).mean(axis=1).sum()
        return loss, (features, {"critic_loss": loss, "q": q.mean(), "q_target": target.mean()})

    def actor_loss(params: Params, critic_params: Params, features: Features, act: Callable, value: Callable):
        return -value(values(critic_params, features, act(policy(params, features)))).mean()

    def learn(
        name: str, model: TrainState, gradients: Params, inputs: tuple, key: Key[Array, ""], step: Clock
    ) -> TrainState:
        return apply_gradients(optimisers[name], model, gradients, batch=inputs, key=key, step=step)

    def critic_gradients(state, obs, action, target):
        params = {"critic": state.critic.params} | ({"encoder": state.encoder.params} if vision else {})
        return jax.grad(critic_loss, has_aux=True)(params, obs, action, target)

    def learn_critic(state, obs, action, target, keys, step):
        encoder_key, critic_key = keys
        gradients, (features, metrics) = critic_gradients(state, obs, action, target)
        models: dict[str, Any] = {"encoder": None}
        if vision:
            models["encoder"] = learn("encoder", state.encoder, gradients["encoder"], (obs,), encoder_key, step)
        models["critic"] = learn("critic", state.critic, gradients["critic"], (features, action), critic_key, step)
        return models, features, metrics

    def learn_actor(model, critic_params, features, act, value, key, step):
        loss, gradients = jax.value_and_grad(actor_loss)(model.params, critic_params, features, act, value)
        return learn("actor", model, gradients, (features,), key, step), loss

    def activations(state: Any, batch: Transition) -> dict[str, Array]:
        features = encode(state.encoder, batch.obs)
        inputs = {"actor": (features,), "critic": (features, batch.action)}
        return {
            f"{name}/{path}": h
            for name, given in inputs.items()
            for path, h in ne_jax.flax_activity(networks[name].apply)(getattr(state, name).params, given).items()
        }

    def gradients(state: Any, obs: Obs, action: Action, target: Array, act: Callable, value: Callable):
        found, (features, _) = critic_gradients(state, obs, action, target)
        climb = jax.grad(actor_loss)(state.actor.params, state.critic.params, features, act, value)
        return found | {"actor": climb}

    return ActorCritic(new_models, look, encode, policy, values, learn_critic, learn_actor, activations, gradients)


def _feature_shape(encoder: Any, obs: Array) -> tuple[int, ...]:
    return jax.eval_shape(lambda key: encoder.init_with_output(key, obs)[0], jax.random.key(0)).shape


def check_settings(config: Any, positive: tuple[str, ...] = (), not_negative: tuple[str, ...] = ()) -> None:
    """ValueError, naming `agent.KEY`, unless the settings of those names are at least one, or at least zero."""
    for names, least, what in ((positive, 1, "be positive"), (not_negative, 0, "not be negative")):
        for name in names:
            if getattr(config, name) < least:
                raise ValueError(f"agent.{name} must {what}, got {getattr(config, name)}")


def check_rate(name: str, value: float) -> None:
    """ValueError unless a rate of averaging lies in (0, 1]."""
    if not 0 < value <= 1:
        raise ValueError(f"agent.{name} must lie in (0, 1], got {value}")


def _validate(hidden: tuple[int, ...], vision: Vision | None, obs_shape: tuple[int, ...]) -> None:
    if not hidden or min(hidden) < 1:
        raise ValueError(f"agent.hidden must name at least one positive width, got {hidden}")
    if vision is None:
        if len(obs_shape) != 1:
            raise ValueError(f"an agent without vision learns from states, and got observations of shape {obs_shape}")
        return
    if len(obs_shape) != 3:
        raise ValueError(f"the encoder sees pixels, and got observations of shape {obs_shape}; set env.pixels=True")
    if not vision.strides or min(vision.strides) < 1:
        raise ValueError(f"agent.strides must name a positive stride for each convolution, got {vision.strides}")
    encoded_size(min(obs_shape[:2]), vision.strides)
    check_settings(vision, positive=("channels", "projection"), not_negative=("shift_pad",))
