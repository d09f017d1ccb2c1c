"""What becomes of a network while it learns: the rank of its features, the size of its weights, how its masks move."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ne_jax.sparsity import Leaves, Masks, leaves_by_path


def ranks(features: Float[Array, "*batch units"], delta: float = 0.01) -> dict[str, Float[Array, ""]]:
    """`effective_rank`, `srank` and `stable_rank` of the same features, by these names, for the price of one.

    Usage, for each layer that `flax_activity` gives: `ranks(h.reshape(-1, h.shape[-1]))`.

    Raises:
        ValueError: `features` has not two axes, or `delta` lies outside [0, 1).
    """
    if not 0 <= delta < 1:
        raise ValueError(f"delta must lie in [0, 1), got {delta}: it is the share of the singular values left out")
    if features.ndim != 2:
        raise ValueError(
            f"features must be [batch, units], got shape {features.shape}; flatten them: h.reshape(-1, h.shape[-1])"
        )
    # Eigenvalues of the smaller Gram matrix are at best twice as fast, but square the condition number: what that loses
    # in float32 adds 3 % to the effective rank of 256 x 512 features of rank 8.
    values = jnp.linalg.svd(features, compute_uv=False)
    return {
        "effective_rank": _effective_rank(values),
        "srank": _srank(values, delta),
        "stable_rank": _stable_rank(values),
    }


def effective_rank(features: Float[Array, "batch units"]) -> Float[Array, ""]:
    """exp(entropy of the singular values over their sum), between 1 and min(batch, units); 0 if all features are 0.

    Roy & Vetterli 2007, definition 1. The features are not centred. ValueError: see `ranks`.
    """
    return ranks(features)["effective_rank"]


def srank(features: Float[Array, "batch units"], delta: float = 0.01) -> Float[Array, ""]:
    """The smallest k whose k largest singular values hold 1 - `delta` of their sum; 0 if all features are 0.

    Kumar et al. 2021 ("Implicit under-parameterization"), definition 1. The features are not centred. A whole number in
    a float, so that features that are not finite give NaN like the other ranks. ValueError: see `ranks`.
    """
    return ranks(features, delta)["srank"]


def stable_rank(features: Float[Array, "batch units"]) -> Float[Array, ""]:
    """Squared Frobenius norm over squared spectral norm, between 1 and min(batch, units); 0 if all features are 0.

    ValueError: see `ranks`.
    """
    return ranks(features)["stable_rank"]


def _effective_rank(values: Float[Array, " k"]) -> Float[Array, ""]:
    total = values.sum()
    entropy = jax.scipy.special.entr(values / jnp.where(total == 0, 1, total)).sum()
    return jnp.where(total == 0, 0, jnp.exp(entropy))


def _srank(values: Float[Array, " k"], delta: float) -> Float[Array, ""]:
    held = jnp.cumsum(values)  # in descending order
    total = held[-1]
    return jnp.where(total > 0, 1 + (held < (1 - delta) * total).sum(), total)  # else total is 0 or NaN


def _stable_rank(values: Float[Array, " k"]) -> Float[Array, ""]:
    # Divided first: squares of small values would vanish in float32.
    return jnp.square(values / jnp.where(values[0] == 0, 1, values[0])).sum()


def feature_norm(features: Float[Array, "batch units"]) -> Float[Array, ""]:
    """Mean over the batch of each sample's L2 norm."""
    return jnp.linalg.norm(features, axis=-1).mean()


def norm(tree: PyTree) -> Float[Array, ""]:
    """L2 norm of all leaves as one vector: of parameters, gradients or updates."""
    return optax.tree.norm(tree)


def norms(tree: PyTree) -> Leaves:
    """L2 norm of each leaf by its path."""
    return {path: norm(leaf) for path, leaf in leaves_by_path(tree).items()}


def distance(tree: PyTree, initial: PyTree) -> Float[Array, ""]:
    """L2 norm of the difference of two trees of the same structure: how far parameters are from where they began.

    For each leaf by itself: `norms(optax.tree.sub(tree, initial))`.
    """
    return norm(optax.tree.sub(tree, initial))


def jaccard(a: Masks, b: Masks) -> Float[Array, ""]:
    """Weights in both sets of masks over weights in either, all layers together; 1 where both are empty.

    ValueError if the two have not the same paths.
    """
    if a.keys() != b.keys():
        raise ValueError(f"masks of different layers cannot be compared: {sorted(a)} and {sorted(b)}")
    both = sum(((a[path] & b[path]).sum() for path in a), jnp.zeros((), jnp.int32))
    either = sum(((a[path] | b[path]).sum() for path in a), jnp.zeros((), jnp.int32))
    return jnp.where(either > 0, both / jnp.maximum(either, 1), 1.0)


def churn(a: Masks, b: Masks) -> Float[Array, ""]:
    """1 - `jaccard`: the share of weights in either set of masks that is not in both."""
    return 1 - jaccard(a, b)
