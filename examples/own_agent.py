"""DDPG, deep deterministic policy gradient (Lillicrap et al., ICLR 2016), from states; docs/own_agent.md explains it.

python -m experiments.run --config=examples/own_agent.py:smoke

Equations and algorithm 1 are those of the paper, arXiv:1509.02971. Two things are not: exploration noise is independent
from step to step, and the last layers begin as the others do. Actions lie in [-1, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Key
from ml_collections import ConfigDict

from agents.encoder import VisionSettings
from agents.layers import MLP, Injectable
from agents.networks import Actor, ActorCriticSettings, check_settings
from agents.types import Agent, Clock, Metrics, Params, Transition
from agents.updates import MakeOptimiser, Network, TrainState, exploration_action, make_network, polyak_update
from configs import gymnax_states
from configs.common import agent
from experiments.build.agent import AGENTS, Kind
from ne_jax import flax_activity
from settings import setting


@dataclass(frozen=True)
class DDPGSettings(ActorCriticSettings):
    """Those of every actor-critic, and these. A field is a key of `config.agent`."""

    tau: float = setting(0.005, "rate at which target networks follow", above=0, most=1)
    exploration_std: float = setting(0.1, "deviation of the noise on actions", least=0)
    random_steps: int = setting(1_000, "uniformly random actions at the start", unit="agent steps", least=0)


class Networks(NamedTuple):
    """Modules, each with its optimiser."""

    critic: Network
    actor: Network


@struct.dataclass
class DDPGState:
    """All that is learned: arrays only. Fields of type `TrainState` are measured and saved under their names."""

    critic: TrainState
    actor: TrainState
    target_critic: Params
    target_actor: Params


class QCritic(nn.Module):
    """Q(s, a), one value: states and actions to [batch]."""

    settings: DDPGSettings
    injectable: bool = False

    @nn.compact
    def __call__(
        self, obs: Float[Array, "batch features"], action: Float[Array, "batch actions"]
    ) -> Float[Array, " batch"]:
        settings, mlp = self.settings, Injectable if self.injectable else MLP
        q = mlp(settings.hidden, 1, "uniform", settings.layer_norm, settings.activation, name="q")
        return q(jnp.concatenate([obs, action], axis=-1))[:, 0]


def make_ddpg(
    settings: DDPGSettings,
    vision: VisionSettings | None,
    obs_shape: tuple[int, ...],
    action_dim: int,
    make_optimiser: MakeOptimiser,
    injectable: tuple[str, ...] = (),
) -> Agent:
    """DDPG for states of `obs_shape` (features,).

    Raises:
        ValueError: a setting is out of range, or observations are pixels.
    """
    check_settings(settings)
    if vision is not None:
        raise ValueError("agent.name=ddpg learns from states; set --config.env.pixels=False")
    make = partial(make_network, inner=optax.adam(settings.learning_rate), make_optimiser=make_optimiser, plastic=True)
    obs, action = jnp.zeros((1, *obs_shape)), jnp.zeros((1, action_dim))
    form = (None, "uniform", settings.layer_norm, settings.activation, "actor" in injectable)
    nets = Networks(
        critic=make("critic", QCritic(settings, "critic" in injectable), (obs, action)),
        actor=make("actor", Actor(settings.hidden, action_dim, *form), (obs,)),
    )
    return Agent(
        init=partial(init, nets),
        act=partial(act, settings, nets),
        update=partial(update, settings, nets),
        activations=partial(activations, nets),
        gradients=partial(gradients, nets),
        random_steps=settings.random_steps,
    )


def target_value(nets: Networks, state: DDPGState, batch: Transition) -> Float[Array, " batch"]:
    """y = r + discount * Q'(s', pi'(s')) (algorithm 1); the replay has put gamma and the end of episodes in."""
    action = nets.actor.apply(state.target_actor, batch.next_obs)
    return batch.reward + batch.discount * nets.critic.apply(state.target_critic, batch.next_obs, action)


def critic_loss(
    nets: Networks, params: Params, batch: Transition, target: Float[Array, " batch"]
) -> tuple[Float[Array, ""], Metrics]:
    """mean (y - Q(s, a))^2 (algorithm 1), and what is logged."""
    q = nets.critic.apply(params, batch.obs, batch.action)
    loss = ((q - target) ** 2).mean()
    return loss, {"critic_loss": loss, "q": q.mean(), "q_target": target.mean()}


def actor_loss(nets: Networks, params: Params, critic: Params, obs: Float[Array, "batch features"]) -> Float[Array, ""]:
    """-mean Q(s, pi(s)), whose descent is the deterministic policy gradient (eq. 6)."""
    return -nets.critic.apply(critic, obs, nets.actor.apply(params, obs)).mean()


def init(nets: Networks, key: Key[Array, ""]) -> DDPGState:
    """Fresh networks, and targets that equal them."""
    keys = jax.random.split(key, 4)
    critic, actor = nets.critic.init(keys[0], keys[1]), nets.actor.init(keys[2], keys[3])
    return DDPGState(critic, actor, target_critic=critic.params, target_actor=actor.params)


def act(
    settings: DDPGSettings,
    nets: Networks,
    state: DDPGState,
    obs: Float[Array, " features"],
    key: Key[Array, ""],
    step: Clock | None,
) -> Float[Array, " actions"]:
    """pi(s) + N(0, sigma), uniformly random at first; `step=None` means pi(s)."""
    mean = nets.actor.apply(state.actor.params, obs[None])[0]
    if step is None:
        return mean
    return exploration_action(key, mean, settings.exploration_std, step.env < settings.random_steps)


def update(
    settings: DDPGSettings, nets: Networks, state: DDPGState, batch: Transition, key: Key[Array, ""], step: Clock
) -> tuple[DDPGState, Metrics]:
    """One turn of algorithm 1: critic, actor, targets."""
    keys = jax.random.split(key)
    target = target_value(nets, state, batch)
    found, metrics = jax.grad(partial(critic_loss, nets), has_aux=True)(state.critic.params, batch, target)
    critic = nets.critic.learn(state.critic, found, (batch.obs, batch.action), keys[0], step)
    loss, found = jax.value_and_grad(partial(actor_loss, nets))(state.actor.params, critic.params, batch.obs)
    actor = nets.actor.learn(state.actor, found, (batch.obs,), keys[1], step)
    target_critic = polyak_update(state.target_critic, critic, settings.tau)
    target_actor = polyak_update(state.target_actor, actor, settings.tau)
    metrics |= {"actor_loss": loss, "batch_reward": batch.reward.mean()}
    return DDPGState(critic, actor, target_critic, target_actor), metrics


def activations(nets: Networks, state: DDPGState, batch: Transition) -> dict[str, Float[Array, "batch units"]]:
    """Hidden activations by layer, such as `critic/q/hidden_0`."""
    critic = flax_activity(nets.critic.module.apply)(state.critic.params, (batch.obs, batch.action))
    actor = flax_activity(nets.actor.module.apply)(state.actor.params, (batch.obs,))
    found = {"critic": critic, "actor": actor}
    return {f"{name}/{path}": h for name, layers in found.items() for path, h in layers.items()}


def gradients(
    nets: Networks, state: DDPGState, batch: Transition, key: Key[Array, ""], step: Clock
) -> dict[str, Params]:
    """Of both losses, by network, all at the parameters in `state`."""
    target = target_value(nets, state, batch)
    of_critic, _ = jax.grad(partial(critic_loss, nets), has_aux=True)(state.critic.params, batch, target)
    of_actor = jax.grad(partial(actor_loss, nets))(state.actor.params, state.critic.params, batch.obs)
    return {"critic": of_critic, "actor": of_actor}


def get_config(variant: str = "") -> ConfigDict:
    """The config, and the line of the registry: that of an agent in agents/ stands in experiments/build/agent.py."""
    AGENTS["ddpg"] = Kind(DDPGSettings, make_ddpg)
    config = gymnax_states.get_config(variant)
    ours = agent("ddpg", DDPGSettings, pixels=False)
    ours.update({key: value for key, value in config.agent.items() if key in ours and key != "name"})
    config.agent, config.exp_id = ours, "ddpg_ne"
    return config
