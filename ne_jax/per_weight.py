"""One function, evaluated as if some of its scalars had a value of their own for every weight.

An optimiser keeps one count for all weights. `evaluate` runs its program (a jaxpr) with counts that differ between the
weights of a leaf, while everything else, a norm over all gradients for example, is computed once and as it stands. For
that it knows of each intermediate value to which leaf it belongs: values keep their leaf through elementwise operations
and lose it in all others. A scalar that differs per weight meets an array that belongs to a leaf, and takes that leaf's
values.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend import core
from jax.typing import ArrayLike
from jaxtyping import Array


class PerWeight(NamedTuple):
    """A value that may differ between weights. `shared`: the value that all other weights have; `own`: {leaf: the
    values of its weights, in the shape of the leaf}."""

    shared: Array
    own: dict[str, Array]


class Value(NamedTuple):
    """An intermediate value, and the leaf that it belongs to weight by weight, if any."""

    value: ArrayLike | PerWeight
    leaf: str | None = None


_NAMES = """
    abs add add_any and cbrt ceil clamp convert_element_type copy copy_p cos div eq exp exp2 expm1 floor ge gt
    integer_pow is_finite le log log1p logistic lt max min mul ne neg nextafter not or pow reduce_precision rem round
    rsqrt select_n sign sin sqrt square stop_gradient sub tanh xor
"""
ELEMENTWISE = frozenset(_NAMES.split())
CALLS = frozenset(
    ("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "custom_jvp_call", "custom_vjp_call")
)


def evaluate(jaxpr: core.Jaxpr, consts: Sequence[ArrayLike], inputs: Sequence[Value]) -> list[Value]:
    """The outputs of `jaxpr` for these inputs.

    Raises:
        ValueError: a value per weight goes into an operation that is not elementwise, or decides a branch.
    """
    known: dict[core.Var, Value] = dict(zip(jaxpr.constvars, map(Value, consts), strict=True))
    known |= zip(jaxpr.invars, inputs, strict=True)

    def read(variable: core.Var | core.Literal) -> Value:
        return Value(variable.val) if isinstance(variable, core.Literal) else known[variable]

    for eqn in jaxpr.eqns:
        known |= zip(eqn.outvars, _apply(eqn, [read(variable) for variable in eqn.invars]), strict=True)
    return [read(variable) for variable in jaxpr.outvars]


def at_leaf(value: ArrayLike | PerWeight, leaf: str) -> ArrayLike:
    """What a value is for the weights of one leaf."""
    return value.own.get(leaf, value.shared) if isinstance(value, PerWeight) else value


def _apply(eqn: core.JaxprEqn, inputs: list[Value]) -> list[Value]:
    name = eqn.primitive.name
    differs = any(isinstance(each.value, PerWeight) for each in inputs)
    if name in CALLS and (differs or any(each.leaf is not None for each in inputs)):
        inner = next(eqn.params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in eqn.params)
        return evaluate(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), inputs)
    if name == "cond" and (differs or any(each.leaf is not None for each in inputs)):
        return _branch(eqn, inputs)
    if name in ELEMENTWISE:
        return [_elementwise(eqn, inputs)]
    if not differs:
        return [Value(each) for each in _bind(eqn, [each.value for each in inputs])]
    if name == "broadcast_in_dim" and not _shape(eqn.invars[0]):
        return [Value(_broadcast(inputs[0].value, _shape(eqn.outvars[0])))]
    raise ValueError(
        f"plastic gives every weight that a round renews a count of its own, and the inner optimiser uses its count in "
        f"`{name}`, which is not elementwise; use one that counts as adam does, or a rule without rounds"
    )


def _bind(eqn: core.JaxprEqn, values: Sequence[ArrayLike | PerWeight]) -> list[Array]:
    """The results of one operation as it stands."""
    found = eqn.primitive.get_bind_params(eqn.params)
    functions, params = found if isinstance(found, tuple) else ((), found)  # before and since jax 0.10
    out = eqn.primitive.bind(*functions, *values, **params)
    return list(out) if eqn.primitive.multiple_results else [out]


def _shape(variable: core.Var | core.Literal) -> tuple[int, ...]:
    return cast(jax.ShapeDtypeStruct, variable.aval).shape


def _elementwise(eqn: core.JaxprEqn, inputs: list[Value]) -> Value:
    """Of one operation: with the leaf's values where an operand belongs to a leaf, else for each leaf by itself."""
    shape = _shape(eqn.outvars[0])
    differing = [each.value for each in inputs if isinstance(each.value, PerWeight)]
    leaves = {each.leaf for each in inputs if each.leaf is not None and _shape_of(each.value) == shape}
    leaf = leaves.pop() if len(leaves) == 1 else None
    if not differing:
        return Value(_bind(eqn, [each.value for each in inputs])[0], leaf)
    if leaf is not None:
        return Value(_bind(eqn, [jnp.broadcast_to(at_leaf(each.value, leaf), shape) for each in inputs])[0], leaf)
    shared = _bind(eqn, [each.value.shared if isinstance(each.value, PerWeight) else each.value for each in inputs])[0]
    own: dict[str, Array] = {}
    for path in sorted({path for value in differing for path in value.own}):
        size = next(value.own[path].shape for value in differing if path in value.own)
        if shape in ((), size):
            here = [jnp.broadcast_to(at_leaf(each.value, path), size) for each in inputs]
            own[path] = _power(here, inputs, shared) if _decays(eqn, inputs) else _bind(eqn, here)[0]
    return Value(PerWeight(shared, own))


def _shape_of(value: ArrayLike | PerWeight) -> tuple[int, ...]:
    return jnp.shape(value.shared if isinstance(value, PerWeight) else value)


def _decays(eqn: core.JaxprEqn, inputs: list[Value]) -> bool:
    """Is this `decay ** count` with one positive decay for all weights?"""
    base = inputs[0].value
    if eqn.primitive.name != "pow" or isinstance(base, PerWeight | Tracer) or jnp.ndim(base) != 0:
        return False
    return float(np.real(base)) > 0


def _power(here: list[Array], inputs: list[Value], shared: Array) -> Array:
    """decay ** count for each weight, by one exponential: a power takes ten times as long on a CPU.

    Where the count is that of all weights, so is the power, to the last bit.
    """
    decay, count = inputs
    general = count.value.shared if isinstance(count.value, PerWeight) else count.value
    power = jnp.exp(here[1].astype(shared.dtype) * jnp.log(jnp.asarray(decay.value, shared.dtype)))
    return jnp.where(here[1] == general, shared, power)


def _broadcast(value: ArrayLike | PerWeight, shape: tuple[int, ...]) -> PerWeight:
    assert isinstance(value, PerWeight)  # or this would be an ordinary operation
    own = {leaf: each for leaf, each in value.own.items() if each.shape == shape}
    return PerWeight(jnp.broadcast_to(value.shared, shape), own)


def _branch(eqn: core.JaxprEqn, inputs: list[Value]) -> list[Value]:
    """A `lax.cond` or `lax.switch` whose operands, but not its index, may differ per weight."""
    index, operands = inputs[0].value, inputs[1:]
    if isinstance(index, PerWeight):
        raise ValueError(
            "the inner optimiser decides a branch by the count that corrects its bias, which plastic keeps per weight; "
            "use one that counts as adam does, or a rule without rounds"
        )
    values = [each.value for each in operands]

    def outputs(closed: core.ClosedJaxpr, values: list[ArrayLike | PerWeight]) -> list[Value]:
        return evaluate(closed.jaxpr, closed.consts, [each._replace(value=v) for each, v in zip(operands, values)])

    leaves: list[list[str | None]] = []

    def shapes(closed: core.ClosedJaxpr, values: list[ArrayLike | PerWeight]) -> list[ArrayLike | PerWeight]:
        out = outputs(closed, values)
        leaves.append([each.leaf for each in out])
        return [each.value for each in out]

    found = [jax.eval_shape(partial(shapes, closed), values) for closed in eqn.params["branches"]]
    wanted = [next((each for each in alike if isinstance(each, PerWeight)), None) for alike in zip(*found)]

    def run(closed: core.ClosedJaxpr, values: list[ArrayLike | PerWeight]) -> list[ArrayLike | PerWeight]:
        return [_lifted(each.value, shape) for each, shape in zip(outputs(closed, values), wanted, strict=True)]

    out = jax.lax.switch(index, [partial(run, closed) for closed in eqn.params["branches"]], values)
    return [
        Value(value, alike[0] if len(set(alike)) == 1 else None) for value, alike in zip(out, zip(*leaves), strict=True)
    ]


def _lifted(value: ArrayLike | PerWeight, wanted: PerWeight | None) -> ArrayLike | PerWeight:
    """A value in the form that another branch has given it."""
    if wanted is None or isinstance(value, PerWeight):
        return value
    return PerWeight(
        jnp.asarray(value), {leaf: jnp.broadcast_to(value, shape.shape) for leaf, shape in wanted.own.items()}
    )
