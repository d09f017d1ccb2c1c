"""Rules that put weights back onto a set: into a box or onto a sphere in every update, onto isometries in rounds."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ne_jax.numbers import Number, is_known
from ne_jax.rule import Evolved, Network, Rule, RuleState, Step, stateless
from ne_jax.rules.resets import renewed_leaves
from ne_jax.sparsity import Leaves, Masks, Where, hidden_kernels, kernels


def weight_clipping(*, kappa: Number = 3.0) -> Rule:
    """Weight clipping: after each update, every weight of layer l is cut to [-kappa * s_l, kappa * s_l] (Elsayed et al.
    2024, arXiv:2407.01704, algorithm 1).

    s_l = 1 / sqrt(inputs of a unit) is the bound of the uniform distribution from which PyTorch draws a layer, its
    biases included, whatever this network was drawn from. It is cut in kernels and their biases, the last layer's
    included, as in the authors' code; a norm's scale and bias stay as they are (their networks have none).

    Orthogonal weights of gain 1 have a standard deviation of up to s_l, so that a third of them may begin beyond s_l,
    and one in 400 beyond 3 * s_l. The first update cuts those.

    Args:
        kappa: size of the box in units of the initial one, > 0. The authors' code has 3 for PPO and 1 for supervised
            learning, tuned from there.

    Raises:
        ValueError: `kappa` is not positive; at `init`, the network has no kernel.
    """
    if is_known(kappa) and kappa <= 0:
        raise ValueError(f"kappa must be positive, got {kappa}")
    return Rule(init=_check_kernels, adjust=partial(_clipped, kappa), name="weight_clipping")


def _check_kernels(params: Leaves, masks: Masks) -> RuleState:
    if not _bounds(params):
        raise ValueError(f"weight_clipping finds no kernel among {sorted(params)}")
    return ()


def _bias(path: str) -> str:
    """The bias that goes with a kernel."""
    return f"{path.removesuffix('kernel')}bias"


def _bounds(params: Leaves) -> dict[str, float]:
    """Of kernels and their biases: 1 / sqrt(inputs of a unit)."""
    found = {}
    for path, leaf in params.items():
        if kernels(path, leaf):
            found[path] = found[_bias(path)] = math.sqrt(leaf.shape[-1] / leaf.size)
    return {path: bound for path, bound in found.items() if path in params}


def _clipped(
    kappa: Number, state: RuleState, key: Key[Array, ""], step: Step, network: Network, updates: Leaves
) -> tuple[RuleState, Leaves]:
    new = {}
    for path, bound in _bounds(network.params).items():
        old = network.params[path]
        new[path] = jnp.clip(old + updates[path], -kappa * bound, kappa * bound) - old
    return state, new


def normalise_and_project(*, where: Where | None = None) -> Rule:
    """Normalise-and-project: after each update, the weights of a layer that a norm follows are scaled back to the
    length with which they began (Lyle et al. 2024, arXiv:2407.01800)::

        W_l = rho_l * W_l / ||W_l||_F,   rho_l = ||W_l||_F at the start

    A norm cancels the length of what it is given, so this changes no output; but the longer the weights, the less an
    update turns them, and their length grows on and on. A layer's bias, which the norm is given too, is scaled by the
    same factor, so that the output stays what it was. The norm's own scale and bias train freely, and so does the last
    layer, which no norm follows: the returns that a critic predicts have a scale of their own.

    The paper puts a norm before every nonlinearity, which is the network's business (`agent.layer_norm`); without one
    the method would be another, and it refuses to go on. It projects periodically; here it is in every update.

    Args:
        where: the kernels that a norm follows, by path. By default all but those of a module called `head`, each of
            which must have a norm (a `scale` as long as it has units) in the module around its own.

    Raises:
        ValueError: at `init`, no norm is found behind a kernel, or `where` chooses none.
    """
    return Rule(init=partial(_lengths, where), adjust=_projected, name="normalise_and_project")


def _lengths(where: Where | None, params: Leaves, masks: Masks) -> RuleState:
    chosen = [path for path, leaf in params.items() if (where or hidden_kernels)(path, leaf)]
    bare = [] if where else [path for path in chosen if not _has_norm(path, params)]
    if bare or not chosen:
        raise ValueError(
            f"normalise_and_project needs a norm behind each layer, and {', '.join(bare) or 'the network'} has none; "
            "train with LayerNorm (agent.layer_norm=True), or say by `where` which kernels a norm follows"
        )
    return {path: _length(params[path]) for path in chosen}


def _has_norm(path: str, params: Leaves) -> bool:
    around = path.removeprefix("params/").rpartition("/")[0].rpartition("/")[0]
    units = (params[path].shape[-1],)
    return around != "" and any(
        other.removeprefix("params/").startswith(f"{around}/") and other.endswith("/scale") and leaf.shape == units
        for other, leaf in params.items()
    )


def _length(leaf: Array) -> Float[Array, ""]:
    return jnp.sqrt(jnp.square(leaf).sum())


def _projected(
    state: RuleState, key: Key[Array, ""], step: Step, network: Network, updates: Leaves
) -> tuple[RuleState, Leaves]:
    new, old = {}, network.params
    for path, length in state.items():
        now = _length(old[path] + updates[path])
        factor = jnp.where(now > 0, length / jnp.where(now > 0, now, 1), 1)
        for each in (path, _bias(path)):
            if each in old:
                new[each] = factor * (old[each] + updates[each]) - old[each]
    return state, new


class _Fire(NamedTuple):
    """The settings of `fire`, as it takes them."""

    iterations: int
    where: Where


def fire(*, iterations: int = 10, where: Where = kernels) -> Rule:
    """FIRE: every round each kernel becomes the isometry next to it (Han et al. 2026, arXiv:2602.08040).

    Of all W with W^T W = I, the polar factor W (W^T W)^(-1/2) is nearest in the Frobenius norm. It is approximated by
    Newton and Schulz, then scaled so that a layer keeps the variance of its input::

        X = W / ||W||_F
        X = 1.5 X - 0.5 X X^T X          # `iterations` times: singular values go to 1, small ones by 1.5 a step
        W = sqrt(units / inputs) * X     # a convolution: for each place of its window by itself, over their number

    Biases and norms keep their values. The optimiser forgets everything, and target networks copy the network at once,
    as in the authors' code. The source does this once, where the task changes; here at each round.

    In a sparse network the isometry is taken of what there is, and cut to the masks: it is then only nearly one.

    Args:
        iterations: of Newton and Schulz, > 0; the published code takes 10.
        where: the kernels that it takes, by path; all of them by default, the last layer's included.

    Raises:
        ValueError: `iterations` is not positive; in a round, `where` chooses no kernel.
    """
    if iterations < 1:
        raise ValueError(f"iterations must be positive, got {iterations}")
    return Rule(
        stateless(partial(_made_isometric, _Fire(iterations, where))), renews=lambda path, leaf: True, name="fire"
    )


def _made_isometric(setup: _Fire, key: Key[Array, ""], step: Step, network: Network) -> Evolved:
    chosen = {path: leaf for path, leaf in network.params.items() if setup.where(path, leaf)}
    if not chosen:
        raise ValueError(f"fire: `where` chooses none of {sorted(network.params)}")
    new = network.params | {path: isometry(leaf, setup.iterations) for path, leaf in chosen.items()}
    return renewed_leaves(network, new)


def isometry(kernel: Float[Array, "*window inputs units"], iterations: int) -> Float[Array, "*window inputs units"]:
    """The isometry next to each [inputs, units] matrix of a kernel, times sqrt(units / inputs) / places; see `fire`."""
    inputs, units = kernel.shape[-2:]
    places = kernel.size // (inputs * units)
    matrices = kernel.reshape(places, inputs, units)
    scale = math.sqrt(units / inputs) / places
    return scale * jax.vmap(partial(_polar_factor, iterations))(matrices).reshape(kernel.shape)


def _polar_factor(iterations: int, matrix: Float[Array, "inputs units"]) -> Float[Array, "inputs units"]:
    wide = matrix.shape[0] < matrix.shape[1]
    length = _length(matrix)
    x = (matrix.T if wide else matrix) / jnp.where(length > 0, length, 1)
    x = jax.lax.fori_loop(0, iterations, lambda _, x: 1.5 * x - 0.5 * x @ (x.T @ x), x)
    return x.T if wide else x
