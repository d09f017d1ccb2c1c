"""Optimiser state that is truly fresh: a weight that a round bears or resets trains as under a new optimiser.

Adam and its kin divide their moments by `1 - decay ** count`, where the count is that of all updates. To clear the
moments of a weight late in training is therefore not enough: without correction its next hundred steps are three to six
times too long. So `plastic` remembers, weight by weight, what the count was at the last birth, and lets the inner
optimiser compute with the difference. A count corrects bias if it lies in the same node of the state as moments do (as
in `optax.ScaleByAdamState`); a count without moments beside it is a schedule's clock, and goes on for all weights.

The inner optimiser's own program is evaluated, with the counts per weight in place of the shared one (see
`ne_jax.per_weight`). So norms over all gradients, masks by path and schedules remain what they are. The alternatives do
not: `vmap` over single weights, or one long vector of all, change what a norm is taken over and what a mask sees.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Int, PyTree

from ne_jax.per_weight import PerWeight, Value, at_leaf, evaluate
from ne_jax.sparsity import joined, leaves_by_path, replace_leaves

Births = dict[str, dict[str, Int[Array, "..."]]]
"""{path of a count in the optimiser's state: {leaf: the count when each of its weights was last born; 0 at first}}"""
_CLOCKS = frozenset({"mini_step", "gradient_step"})
"""Counts of `optax.MultiSteps`, which stand beside accumulated gradients but correct no bias."""


def init_births(inner: optax.GradientTransformation, state: optax.OptState, params: PyTree) -> Births | None:
    """No weight was born yet. None if the optimiser has no count that corrects bias."""
    shapes = {path: jnp.shape(leaf) for path, leaf in leaves_by_path(params).items()}
    counts = _bias_counts(inner, state, params)
    return {
        count: {path: jnp.zeros(shapes[path], jnp.int32) for path in paths} for count, paths in counts.items()
    } or None


def update(
    inner: optax.GradientTransformationExtraArgs,
    births: Births,
    renewable: frozenset[str],
    updates: PyTree,
    state: optax.OptState,
    params: PyTree,
    **extra: PyTree,
) -> tuple[PyTree, optax.OptState]:
    """`inner.update`, with each weight's bias corrected by the updates since its own birth.

    Args:
        renewable: the leaves whose weights can be born again; all others go by the shared count, in no more time.

    Raises:
        ValueError: the optimiser uses its count for something else than elementwise arithmetic.
    """
    program, shapes = jax.make_jaxpr(lambda u, s, p: inner.update(u, s, p, **extra), return_shape=True)(
        updates, state, params
    )
    paths, kept = list(leaves_by_path(params)), _leaf_of_each(inner, state, params)

    def enter(path: str, leaf: Array) -> Array | PerWeight:
        if path not in births:
            return leaf
        return PerWeight(leaf, {p: leaf - born for p, born in births[path].items() if p in renewable})

    inputs = [Value(leaf, path) for path, leaf in leaves_by_path(updates).items()]
    inputs += [Value(enter(path, leaf), kept[path]) for path, leaf in leaves_by_path(state).items()]
    inputs += [Value(leaf, path) for path, leaf in leaves_by_path(params).items()]
    outputs = evaluate(program.jaxpr, program.consts, inputs)

    def leave(path: str, leaf: str | None, out: Value) -> ArrayLike:
        if not isinstance(out.value, PerWeight):
            return out.value
        if path in births:
            return out.value.shared
        if leaf is not None:
            return at_leaf(out.value, leaf)
        raise ValueError(
            f"the inner optimiser keeps at {path} one number for all weights that depends on the count of each; "
            "use one that counts as adam does, or a rule without rounds"
        )

    outs = [leave(path, path, out) for path, out in zip(leaves_by_path(shapes[0]), outputs)]
    outs += [leave(path, leaf, out) for (path, leaf), out in zip(kept.items(), outputs[len(paths) :], strict=True)]
    return jax.tree.unflatten(jax.tree.structure(shapes), outs)


def born_again(births: Births | None, state: optax.OptState, fresh: dict[str, Bool[Array, "..."]]) -> Births | None:
    """The births after a round that bore the weights in `fresh`; `state` is the optimiser's after its update."""
    if births is None:
        return None
    counts = leaves_by_path(state)
    return {
        count: {path: jnp.where(fresh[path], counts[count], old) if path in fresh else old for path, old in own.items()}
        for count, own in births.items()
    }


def forget(
    inner: optax.GradientTransformation,
    state: optax.OptState,
    params: PyTree,
    fresh: dict[str, Bool[Array, "..."]],
) -> optax.OptState:
    """The state, with what it keeps of the weights in `fresh` as `inner.init` gives it for these parameters."""
    initial, kept = leaves_by_path(inner.init(params)), _leaf_of_each(inner, state, params)
    old = leaves_by_path(state)
    changed = {
        path: jnp.where(fresh[leaf], initial[path], old[path])
        for path, leaf in kept.items()
        if leaf is not None and leaf in fresh
    }
    return replace_leaves(state, changed)


def check_shapes(inner: optax.GradientTransformation, params: PyTree) -> None:
    """ValueError if the optimiser keeps state of a leaf that has not the leaf's shape."""
    state = jax.eval_shape(inner.init, params)
    shapes = {path: jnp.shape(leaf) for path, leaf in leaves_by_path(params).items()}
    found = leaves_by_path(state)
    for path, leaf in _leaf_of_each(inner, state, params).items():
        if leaf is not None and found[path].shape != shapes[leaf]:
            raise ValueError(
                f"the inner optimiser keeps state of shape {found[path].shape} for a parameter of shape {shapes[leaf]}"
                ", out of which single weights cannot be taken; use one with a value per weight, such as adam or sgd"
            )


def _leaf_of_each(inner: optax.GradientTransformation, state: optax.OptState, params: PyTree) -> dict[str, str | None]:
    """For each leaf of the optimiser's state, by path: the parameters' leaf that it is kept for, or None."""
    paths = jax.tree_util.tree_map_with_path(lambda path, _: joined(path), params)
    marked: PyTree = optax.tree_map_params(
        inner,
        lambda kept, path: kept if _left_out(kept) else path,
        state,
        paths,
        transform_non_params=lambda _: False,
        is_leaf=_left_out,
    )
    flat, _ = jax.tree_util.tree_flatten_with_path(marked)
    return {joined(path): None if leaf is False else leaf for path, leaf in flat}


def _left_out(node: object) -> bool:
    """Is this what `optax.masked` puts in the place of a leaf that is not its own?"""
    return isinstance(node, optax.MaskedNode)


def _bias_counts(inner: optax.GradientTransformation, state: optax.OptState, params: PyTree) -> dict[str, list[str]]:
    """{path of a count that corrects bias, in the optimiser's state: the leaves whose moments lie beside it}."""
    beside: dict[str, set[str]] = {}
    kept = _leaf_of_each(inner, state, params)
    for path, leaf in kept.items():
        if leaf is not None:
            moment = path.removesuffix(leaf).removesuffix("/") if leaf else path
            beside.setdefault(moment.rpartition("/")[0], set()).add(leaf)
    counts = {}
    for path, value in leaves_by_path(state).items():
        node, _, name = path.rpartition("/")
        whole = jnp.shape(value) == () and jnp.issubdtype(value.dtype, jnp.integer)
        # A bare number in a tuple of states is a state by itself, whatever lies beside it.
        if kept[path] is None and whole and node in beside and not name.isdigit() and name not in _CLOCKS:
            counts[path] = sorted(beside[node])
    return counts
