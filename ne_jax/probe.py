"""How much a network can still learn: how well a copy of it fits random targets, beside a fresh network of its shape.

The probe of Lyle et al. 2023 ("Understanding plasticity in neural networks", arXiv:2303.01486, sections 3 and 4): a
network's plasticity is a baseline less the loss that its optimiser reaches within a fixed number of steps on targets
drawn at random, P = b - E[loss]. Targets are a + sin(1e5 f(x)), where f is a freshly drawn network and a the mean
prediction of the network that is probed, so that nobody has to learn an offset first.

Here the loss is the mean squared error over `inputs` and outputs, all inputs in every step; b is the error of the best
constant; and what is told is P over the P of a fresh network on the same sine.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from ne_jax.sparsity import Masks, apply

Apply = Callable[[PyTree, PyTree], Float[Array, "batch *outputs"]]
"""`apply(params, inputs)`: a network's predictions."""
FREQUENCY = 1e5
"""So high that the sine of a smooth function looks like noise."""


class Capacity(NamedTuple):
    """What a probe found. Errors are of the targets' own size: their variance is about 1/2."""

    relative: Float[Array, ""]
    """P / P of the fresh network: 1 learns as a fresh network does, 0 no more than a constant, below 0 less."""
    error: Float[Array, ""]
    """Mean squared error of the copy after the last step."""
    fresh_error: Float[Array, ""]
    """That of the fresh network."""
    baseline: Float[Array, ""]
    """b: the mean squared error of the best constant for each output, which is the variance of the targets."""


def capacity(
    network: Apply,
    params: PyTree,
    inputs: PyTree,
    key: Key[Array, ""],
    initialise: Callable[[Key[Array, ""]], PyTree],
    *,
    steps: int = 200,
    learning_rate: float = 1e-3,
    masks: Masks | None = None,
) -> Capacity:
    """The probe above, with one draw of targets; nothing that is passed in changes.

    Usage, for four draws: `jax.vmap(lambda key: capacity(apply, params, inputs, key, initialise))(keys)`. It is pure,
    and goes inside jit, vmap and scan. Take so few `steps` that the fresh network is still on its way: where it has
    fitted everything, so have many worse ones, and all of them say 1.

    Args:
        network: `network(params, inputs)`, the predictions.
        inputs: a batch that the network is used on, such as observations.
        initialise: draws fresh parameters. One draw makes the targets, another is the fresh network.
        steps: of Adam, with moments that begin at zero, for the copy and for the fresh network alike.
        masks: of a sparse network. Absent weights stay zero in the copy; the fresh network is dense.

    Raises:
        ValueError: `steps` or `learning_rate` is not positive.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if learning_rate <= 0:
        raise ValueError(f"learning_rate must be positive, got {learning_rate}")
    # One after the other in a loop, so that each program is compiled once for both.
    drawn = jax.lax.map(initialise, jax.random.split(key))
    target, fresh = (jax.tree.map(lambda leaf, i=i: leaf[i], drawn) for i in range(2))
    sine = random_targets(network, target, inputs)
    baseline = jnp.var(sine, axis=0).mean()
    fit = partial(fitted_error, network, inputs=inputs, sine=sine, steps=steps, learning_rate=learning_rate)
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), (params, masks), (fresh, jax.tree.map(jnp.ones_like, masks)))
    error, fresh_error = jax.lax.map(lambda each: fit(each[0], masks=each[1]), both)
    return Capacity((baseline - error) / (baseline - fresh_error), error, fresh_error, baseline)


def random_targets(network: Apply, params: PyTree, inputs: PyTree) -> Float[Array, "batch *outputs"]:
    """sin(1e5 f(x)) of the network f with these parameters: noise with a mean near 0, the same for the same input."""
    return jnp.sin(FREQUENCY * network(params, inputs))


def fitted_error(
    network: Apply,
    params: PyTree,
    inputs: PyTree,
    sine: Float[Array, "batch *outputs"],
    steps: int,
    learning_rate: float,
    masks: Masks | None = None,
) -> Float[Array, ""]:
    """Mean squared error to the sine around the network's own mean prediction, after `steps` steps of Adam."""
    targets = network(params, inputs).mean(axis=0) + sine

    def loss(params: PyTree) -> Float[Array, ""]:
        return jnp.square(network(params, inputs) - targets).mean()

    adam = optax.adam(learning_rate)

    def step(_: Int[Array, ""] | int, carry: tuple[PyTree, optax.OptState]) -> tuple[PyTree, optax.OptState]:
        params, state = carry
        gradients = jax.grad(loss)(params)
        updates, state = adam.update(gradients if masks is None else apply(masks, gradients), state)
        return optax.apply_updates(params, updates), state

    params, _ = jax.lax.fori_loop(0, steps, step, (params, adam.init(params)))
    return loss(params)
