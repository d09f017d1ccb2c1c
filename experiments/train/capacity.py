"""How much actor and critic can still learn: the probe `ne_jax.capacity` of each, on what the replay holds."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
from jaxtyping import Array, Float, Key

import ne_jax
from agents.types import Agent, AgentState, Metrics, Params, Transition
from agents.updates import train_states
from experiments.train.experience import greedy_actions

INPUTS, STEPS, LEARNING_RATE = 128, 100, 3e-3
"""Of a probe. A fresh critic of two layers of 64 fits 60 to 80 % of the targets' variance so; with more steps it fits
all, and so do networks that are far worse."""


def measure_capacity(agent: Agent, fresh: Agent, state: AgentState, batch: Transition, key: Key[Array, ""]) -> Metrics:
    """`capacity/actor` and `capacity/critic`: 1 fits random targets as a fresh dense network does, 0 not at all.

    The actor is probed by its greedy actions, the critic by the values of the batch's actions, the smaller ones where
    there are several critics. From pixels the encoder stays as it is. Masks hold while a copy learns.

    Args:
        fresh: the same agent with optimisers that leave fresh parameters as they are drawn.
    """
    probed = {"actor": _act} | ({"critic": _value} if agent.values else {})
    return {
        f"capacity/{name}": ne_jax.capacity(
            partial(network, agent, state),
            train_states(state)[name].params,
            batch,
            jax.random.fold_in(key, i),
            partial(_draw, fresh, name),
            steps=STEPS,
            learning_rate=LEARNING_RATE,
            masks=ne_jax.masks(train_states(state)[name].opt_state) or None,
        ).relative
        for i, (name, network) in enumerate(probed.items())
    }


def _draw(fresh: Agent, name: str, key: Key[Array, ""]) -> Params:
    return train_states(fresh.init(key))[name].params


def _with(state: AgentState, name: str, params: Params) -> AgentState:
    return replace(state, **{name: replace(train_states(state)[name], params=params)})  # pyright: ignore


def _act(agent: Agent, state: AgentState, params: Params, batch: Transition) -> Float[Array, "batch actions"]:
    return greedy_actions(agent, _with(state, "actor", params), batch.obs)


def _value(agent: Agent, state: AgentState, params: Params, batch: Transition) -> Float[Array, " batch"]:
    assert agent.values is not None
    return agent.values(_with(state, "critic", params), batch.obs, batch.action)
