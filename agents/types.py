"""What an agent is: pure functions over a state that holds arrays only.

States are dataclasses of arrays of the shapes that they say. As pytrees they also hold shapes, axes or flags in the
arrays' place, so that they are not checked when they are made (`no_type_check`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Array, Float, Int, Key, PyTree, Shaped

Params = PyTree[Float[Array, "..."]]
"""A network's parameters."""
AgentState = PyTree[Shaped[Array, "..."]]
"""A dataclass of its own for each agent."""
Metrics = dict[str, Float[Array, ""]]
Obs = Shaped[Array, "..."]
"""States, float32 [*batch, features], or pixels, uint8 [*batch, height, width, channels]."""


class Clock(NamedTuple):
    """Time, the same for every seed: passed in and never stored per seed, so that branches on it stay branches."""

    env: Int[Array, ""] | int
    """Agent steps taken, in all environments of a seed together; one is `action_repeat` frames."""
    update: Int[Array, ""] | int
    """Updates made."""


class Transition(NamedTuple):
    """A batch of transitions. `discount` is gamma^m * (1 - terminated) for the m <= n steps that `reward` sums."""

    obs: Obs
    action: Float[Array, "batch actions"]
    reward: Float[Array, " batch"]
    discount: Float[Array, " batch"]
    next_obs: Obs


class Agent(NamedTuple):
    """An algorithm as pure functions of one seed; loops put `vmap` or `lax.map` around them.

    init(key): the state of a new agent.
    act(state, obs, key, step): the action for one observation; `step=None` means greedy, `key` is then unused.
    update(state, batch, key, step): one learning step.
    activations(state, batch): hidden activations by layer, `{path: [batch, units]}`, for measuring plasticity.
    gradients(state, batch, key, step): of each trained network's loss with respect to its parameters, by the network's
        name, for the same purpose; no network changes.
    random_steps: agent steps at the start whose actions are uniformly random, as `Clock.env` counts them. A dynamic
        replay takes such an action for the mean of the policy that chose it.
    noise_hold: agent steps, in each environment, for which the same `key` is handed to `act`.
    values(state, obs, action): what the critics expect of each action, the smallest of several, for the same purpose;
        None where there are none.
    """

    init: Callable[[Key[Array, ""]], AgentState]
    act: Callable[[AgentState, Obs, Key[Array, ""], Clock | None], Float[Array, " actions"]]
    update: Callable[[AgentState, Transition, Key[Array, ""], Clock], tuple[AgentState, Metrics]]
    activations: Callable[[AgentState, Transition], dict[str, Float[Array, "batch units"]]]
    gradients: Callable[[AgentState, Transition, Key[Array, ""], Clock], dict[str, Params]]
    random_steps: int = 0
    noise_hold: int = 1
    values: Callable[[AgentState, Obs, Float[Array, "batch actions"]], Float[Array, " batch"]] | None = None
