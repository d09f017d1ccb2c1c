"""Plasticity injection: a frozen trunk, and a fresh copy that learns what is to be added to it."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from ne_jax.rule import Rule, Step
from ne_jax.sparsity import leaves_by_path, replace_leaves


def plasticity_injection(at: int, *, trunk: str = "trunk", fresh: str = "fresh", anchor: str = "anchor") -> Rule:
    """Plasticity injection at update `at`: h(x; trunk) + h(x; fresh) - h(x; anchor), the last two equal at first
    (Nikishin et al. 2023, arXiv:2305.15555, section 3).

    Until `at` the trunk trains alone and the other two cancel; from `at` on the trunk is frozen and `fresh` learns what
    is to be added. The output is the same right before and after, and so is the number of trained parameters. The three
    are modules of those names in the network; `inject` makes the last two equal. Other leaves train throughout. What
    trains from `at` on begins with the optimiser's counts at zero, see `plastic`.

    Args:
        at: updates before the injection, >= 0.
        trunk: name of the module that trains until then.
        fresh: name of the module that trains from then on.
        anchor: name of the module that never trains, and cancels what `fresh` began with.

    Raises:
        ValueError: `at` is negative.
    """
    if at < 0:
        raise ValueError(f"`at` must not be a negative number of updates, got {at}")

    def trainable(step: Step, path: str) -> Bool[Array, ""] | bool:
        parts = path.split("/")
        if anchor in parts:
            return False
        if trunk in parts:
            return jnp.asarray(step) < at
        return jnp.asarray(step) >= at if fresh in parts else True

    return Rule(trainable=trainable, name="plasticity_injection")


def inject(params: PyTree, *, fresh: str = "fresh", anchor: str = "anchor") -> PyTree:
    """`params` with the modules called `anchor` set to what those called `fresh` beside them hold.

    Raises:
        ValueError: the network has no module called `anchor`.
    """
    found = leaves_by_path(params)
    copies = {
        path: found["/".join(fresh if part == anchor else part for part in path.split("/"))]
        for path in found
        if anchor in path.split("/")
    }
    if not copies:
        raise ValueError(f"the network has no module called {anchor!r} that could cancel the injected one")
    return replace_leaves(params, copies)
