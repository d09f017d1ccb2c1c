"""The weights that make a unit: those into it, those beside it (bias, norm), and those that lead on from it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

import jax.numpy as jnp
from jaxtyping import Array, Bool

from ne_jax.activity import dormant, gradient_activity, incoming, outgoing, units_of
from ne_jax.numbers import Number, is_zero
from ne_jax.sparsity import Leaves, kernels

Follows = Callable[[str, Collection[str]], str | None]
"""The kernel that takes the output of the kernel at a path, out of the paths there are; None if none does."""


def numbered(*then: str) -> Follows:
    """Layers that are numbered in order: `hidden_0/dense/kernel` is followed by `hidden_1/dense/kernel`.

    After the highest number comes the first module of the names `then` that there is: `numbered("head")` finds
    `head/kernel`, and `numbered("Dense_0")` what follows Flax's last `Conv_i`.
    """

    def follows(path: str, paths: Collection[str]) -> str | None:
        numbers = list(re.finditer(r"_(\d+)(?=/)", path))
        if not numbers:
            return None
        last = numbers[-1]
        following = f"{path[: last.start()]}_{int(last[1]) + 1}{path[last.end() :]}"
        scope = path[: path.rfind("/", 0, last.start()) + 1]
        candidates = [following, *(f"{scope}{name}/kernel" for name in then)]
        return next((each for each in candidates if each in paths), None)

    return follows


def followed(follows: Follows, params: Leaves) -> dict[str, str]:
    """{kernel of a layer with units: kernel of the layer that they lead to}."""
    paths = [path for path, leaf in params.items() if kernels(path, leaf)]
    found = {path: follows(path, paths) for path in paths}
    return {path: following for path, following in found.items() if following is not None}


def some_followed(name: str, follows: Follows, params: Leaves) -> dict[str, str]:
    """`followed`, for the rule of this name, which needs one such layer at least.

    Raises:
        ValueError: there is none.
    """
    layers = followed(follows, params)
    if not layers:
        raise ValueError(f"{name} finds no layer that another follows, among {sorted(params)}; see `follows`")
    return layers


def idle_units(path: str, units: int, activations: Leaves, tau: Number) -> Bool[Array, " units"]:
    """The units of the kernel at `path` whose dormancy score is at most `tau`.

    A layer that gives several activations per unit (CReLU: two) is dormant in a unit where all of them are.

    Raises:
        ValueError: the layer has no activations.
    """
    h = units_of(path, activations)
    if h is None:
        raise ValueError(
            f"there are no activations for the sparse kernel {path}, only for {sorted(activations)}; "
            "sow them in its module, or leave it out by `where`"
        )
    if h.shape[-1] % units:
        raise ValueError(f"the kernel {path} has {units} units, and its layer {h.shape[-1]} activations")
    return dormant(h.reshape(*h.shape[:-1], -1, units), tau)


def gradient_idle(gradient: Array, tau: Number) -> Bool[Array, " units"]:
    """The units whose GraMa score is at most `tau`."""
    return gradient_activity(gradient) <= tau


def beside(path: str, params: Leaves, layers: Collection[str] | None) -> dict[str, float]:
    """Path and neutral value of what a unit has besides its weights: bias 0, and scale 1 and bias 0 of a norm.

    These are the leaves with one value per unit in the module of the kernel, or in a larger one around it.

    Args:
        layers: paths of modules that are layers as wholes, such as those that have activations.
    """
    module = path.rpartition("/")[0]
    around = [m for m in layers or () if f"{module}/".removeprefix("params/").startswith(f"{m}/")]
    if around:
        start = "params/" if path.startswith("params/") else ""
        module = start + max(around, key=len)
    units = params[path].shape[-1]
    return {
        leaf_path: 1.0 if leaf_path.endswith("/scale") else 0.0
        for leaf_path, leaf in params.items()
        if leaf_path.startswith(f"{module}/") and leaf.shape == (units,)
    }


def begun_anew(
    units: dict[str, Bool[Array, " units"]],
    layers: dict[str, str],
    neutral: dict[str, dict[str, float]],
    drawn: Leaves,
    params: Leaves,
    leading_on: Number = 0.0,
) -> tuple[Leaves, dict[str, Bool[Array, "..."]]]:
    """The leaves that change when units begin anew, and which of their weights are fresh.

    Such a unit gets incoming weights as drawn, neutral values beside them, and outgoing weights of zero, or as drawn
    times `leading_on`, also into another unit that begins anew.

    Args:
        units: the units that begin anew, by the path of their kernel.
        layers: {kernel of a layer with units: kernel that they lead to}.
        neutral: see `beside`, by the path of the kernel.
        drawn: fresh parameters.
        params: the parameters until now.
        leading_on: what outgoing weights are, as a multiple of those drawn.
    """
    new: Leaves = {}
    fresh: dict[str, Bool[Array, "..."]] = {}

    def put(path: str, flags: Array, value: Array | float) -> None:
        new[path] = jnp.where(flags, value, new.get(path, params[path]))
        fresh[path] = flags | fresh.get(path, False)

    for path, flags in units.items():
        put(path, incoming(flags, drawn[path].shape), drawn[path])
        for leaf, value in neutral[path].items():
            put(leaf, flags, value)
    for path, following in layers.items():
        put(
            following,
            outgoing(units[path], drawn[following].shape),
            0.0 if is_zero(leading_on) else leading_on * drawn[following],
        )
    return new, fresh
