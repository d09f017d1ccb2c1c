"""What off-policy actor-critics share: how a network takes a step, its target follows, and an agent explores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar, no_type_check

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key, PyTree, Shaped

import ne_jax
from agents.types import Clock, Params
from ne_jax.numbers import Number


class Optimiser(NamedTuple):
    """How one network is trained. `prepare(key, params)` may change fresh parameters before `tx.init` sees them."""

    tx: optax.GradientTransformation
    prepare: Callable[[Key[Array, ""], Params], Params] = lambda key, params: params


Initialise = Callable[[Key[Array, ""]], Params]
"""Draws a network's fresh parameters."""
MakeOptimiser = Callable[[optax.GradientTransformation, str, nn.Module, Initialise, bool], Optimiser]
"""`make_optimiser(inner, name, module, initialise, plastic)`: `inner`, such as Adam, as it is to train the network of a
name (`actor`, `critic`, `encoder`). Only where `plastic` holds may it change the topology of the hidden layers."""


@no_type_check  # see agents/types.py
@struct.dataclass
class TrainState:
    """Parameters and the state of what trains them."""

    params: Params
    opt_state: optax.OptState
    frozen: Bool[Array, ""] | bool = False
    """The parameters stay as they are, for a gradient was not finite, or something else of the seed; see `freeze`."""


def train_states(state: PyTree) -> dict[str, TrainState]:
    """The trained networks of an agent's state, by name; also of the shapes of one."""
    return {name: part for name, part in vars(state).items() if isinstance(part, TrainState)}


State = TypeVar("State")


def freeze(state: State, when: Bool[Array, ""]) -> State:
    """An agent's state whose networks learn no more, where `when` holds."""
    found: Any = state
    return replace(found, **{n: replace(part, frozen=part.frozen | when) for n, part in train_states(state).items()})


def create_train_state(optimiser: Optimiser, key: Key[Array, ""], params: Params) -> TrainState:
    """A model ready to train from fresh parameters."""
    params = optimiser.prepare(key, params)
    return TrainState(params, optimiser.tx.init(params), jnp.zeros((), bool))


def apply_gradients(
    optimiser: Optimiser,
    model: TrainState,
    gradients: Params,
    *,
    batch: tuple[Shaped[Array, "..."], ...],
    key: Key[Array, ""],
    step: Clock,
) -> TrainState:
    """One optimiser step. `batch`, `key` and `step.update` are for optimisers that look at them; others ignore them.

    A step along a gradient that is not finite freezes the network: its parameters are those before it, from then on.
    The optimiser's state goes on, whatever it holds; leaving it as it was would copy all of it in every step.
    """
    tx = optax.with_extra_args_support(optimiser.tx)
    updates, opt_state = tx.update(
        gradients, model.opt_state, model.params, batch=batch, key=key, step=jnp.asarray(step.update)
    )
    frozen = model.frozen | ~_is_finite(gradients)
    params = jax.tree.map(
        lambda old, new: jnp.where(frozen, old, new), model.params, optax.apply_updates(model.params, updates)
    )
    return TrainState(params, opt_state, frozen)


def _is_finite(gradients: Params) -> Bool[Array, ""]:
    """Whether a gradient is. Looks at biases and scales alone where there are any, which costs next to nothing.

    A layer's bias has the sum of what comes back to the layer as its gradient, so what is no number arrives there too.
    """
    leaves = jax.tree.leaves(gradients)
    return jnp.stack([jnp.isfinite(g).all() for g in [g for g in leaves if g.ndim < 2] or leaves]).all()


class Network(NamedTuple):
    """A module and what trains it."""

    module: nn.Module
    inputs: tuple[Shaped[Array, "1 ..."], ...]
    """Of the shapes and types that the module sees."""
    optimiser: Optimiser

    def draw(self, key: Key[Array, ""]) -> Params:
        """Fresh parameters."""
        # `inputs` may be traced, where an agent is made inside a program, and a vmap's own rule must not close over it.
        return self.module.init(key, *(jnp.zeros(each.shape, each.dtype) for each in self.inputs))["params"]

    def init(self, key: Key[Array, ""], prepare_key: Key[Array, ""]) -> TrainState:
        """Fresh parameters, as the optimiser has prepared them, and its state."""
        return create_train_state(self.optimiser, prepare_key, self.draw(key))

    def apply(self, params: Params, *inputs: Shaped[Array, "batch ..."]) -> Float[Array, "..."]:
        """What the module makes of a batch."""
        return self.module.apply({"params": params}, *inputs)  # pyright: ignore[reportReturnType]

    def learn(
        self, model: TrainState, gradients: Params, inputs: tuple[Array, ...], key: Key[Array, ""], step: Clock
    ) -> TrainState:
        """One step of the optimiser; `inputs` are what the module saw when the gradients were taken."""
        return apply_gradients(self.optimiser, model, gradients, batch=inputs, key=key, step=step)


def make_network(
    name: str,
    module: nn.Module,
    inputs: tuple[Shaped[Array, "1 ..."], ...],
    inner: optax.GradientTransformation,
    make_optimiser: MakeOptimiser,
    *,
    plastic: bool,
) -> Network:
    """A network that `inner` trains; if `plastic`, the topology of its hidden layers may change."""
    draw = Network(module, inputs, Optimiser(inner)).draw
    # In a vmapped update, drawing orthogonal weights for all seeds at once deadlocks on CPUs: one after the other.
    one_by_one = jax.custom_batching.sequential_vmap(draw)
    return Network(module, inputs, make_optimiser(inner, name, module, one_by_one, plastic))


def polyak_update(target: Params, model: TrainState, tau: Number) -> Params:
    """Move a target network by `tau` towards `model`: tau * model + (1 - tau) * target, then `sync_target`."""
    return sync_target(optax.incremental_update(model.params, target, tau), model)


def sync_target(target: Params, model: TrainState) -> Params:
    """`target` with what the model's optimiser did beside learning.

    What a rule has just started anew is copied (Nikishin et al. 2022 create targets anew with their networks), and what
    the optimiser holds at zero is zero here at once, too.
    """
    params, old = ne_jax.leaves_by_path(model.params), ne_jax.leaves_by_path(target)
    anew = ne_jax.renewed(model.opt_state)
    followed = {path: jnp.where(flag, params[path], old[path]) for path, flag in anew.items()}
    return ne_jax.apply(ne_jax.masks(model.opt_state), ne_jax.replace_leaves(target, followed))


def smaller(values: Float[Array, "2 batch"]) -> Float[Array, " batch"]:
    """The smaller of twin values.

    Not `values.min(axis=0)`: its gradient compares the values with their minimum, and is 0 / 0 where a compiler
    computes them twice, with other roundings.
    """
    return jnp.minimum(values[0], values[1])


def clipped_double_q_target(
    reward: Float[Array, " batch"], discount: Float[Array, " batch"], next_values: Float[Array, "2 batch"]
) -> Float[Array, " batch"]:
    """r + discount * min(Q1, Q2), the clipped double-Q target (TD3, Fujimoto et al. 2018, eq. 10)."""
    return jax.lax.stop_gradient(reward + discount * smaller(next_values))


def exploration_action(
    key: Key[Array, ""], mean: Float[Array, " actions"], std: Number, random: Bool[Array, ""] | bool
) -> Float[Array, " actions"]:
    """`mean` with Gaussian noise, cut to the action bounds; uniform over them while `random` holds."""
    noise_key, random_key = jax.random.split(key)
    uniform = jax.random.uniform(random_key, mean.shape, minval=-1.0, maxval=1.0)
    return jnp.where(random, uniform, truncated_normal(noise_key, mean, std))


def linear_schedule(initial: Number, final: Number, duration: int, step: Int[Array, ""] | int) -> Float[Array, ""]:
    """From `initial` at step 0 to `final` at step `duration`, and constant after it."""
    x = jnp.clip(jnp.asarray(step, jnp.float32) / duration, 0.0, 1.0)
    return (1 - x) * initial + x * final


def truncated_normal(
    key: Key[Array, ""], mean: Float[Array, "*batch actions"], std: Number, clip: Number | None = None
) -> Float[Array, "*batch actions"]:
    """DrQ-v2's exploration: Gaussian noise, cut at +-`clip` if given, and the sum cut to the action bounds.

    The gradient passes straight through the second cut, as in the published code.
    """
    noise = std * jax.random.normal(key, mean.shape)
    if clip is not None:
        noise = jnp.clip(noise, -clip, clip)
    action = mean + noise
    bound = 1 - 1e-6
    return action + jax.lax.stop_gradient(jnp.clip(action, -bound, bound) - action)
