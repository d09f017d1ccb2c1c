"""The weights that make a unit: those into it, those beside it (bias, norm), and those that lead on from it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from jaxtyping import Array, Bool

from ne_jax.activity import dormant, gradient_activity, units_of
from ne_jax.rule import Network
from ne_jax.sparsity import Leaves

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


def idle_units(path: str, units: int, activations: Leaves, tau: float) -> Bool[Array, " units"]:
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


def gradient_idle(gradient: Array, tau: float) -> Bool[Array, " units"]:
    """The units whose GraMa score is at most `tau`."""
    return gradient_activity(gradient) <= tau


def beside(path: str, network: Network) -> dict[str, float]:
    """Path and neutral value of what a unit has besides its weights: bias 0, and scale 1 and bias 0 of a norm.

    These are the leaves with one value per unit in the module of the kernel, or around it where the activations say
    that the layer is a larger module.
    """
    module = path.rpartition("/")[0]
    if network.activations:
        around = [m for m in network.activations if f"{module}/".removeprefix("params/").startswith(f"{m}/")]
        if around:
            start = "params/" if path.startswith("params/") else ""
            module = start + max(around, key=len)
    units = network.params[path].shape[-1]
    return {
        leaf_path: 1.0 if leaf_path.endswith("/scale") else 0.0
        for leaf_path, leaf in network.params.items()
        if leaf_path.startswith(f"{module}/") and leaf.shape == (units,)
    }
