"""`cond_any` computes what `lax.cond` computes, and stays a branch under vmap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import primitives

import ne_jax
from ne_jax.control import cond_any_closing


def dear(x, key, aux):
    noise = jax.random.normal(key, x.shape)
    return jnp.sort(x) + noise, jax.random.fold_in(key, 1), {"sum": x.sum() + aux["shift"]}


def cheap(x, key, aux):
    return x, key, {"sum": aux["shift"]}


def ours(pred, *operands):
    return ne_jax.cond_any(pred, dear, cheap, *operands)


def reference(pred, x, key, aux):
    """One lane at a time, by Python's own `if`."""
    return (dear if pred else cheap)(x, key, aux)


def operands(*lanes):
    n = int(np.prod(lanes))
    keys = jax.random.split(jax.random.key(1), n).reshape(lanes)
    return jax.random.normal(jax.random.key(0), (*lanes, 3)), keys, {"shift": jnp.arange(float(n)).reshape(lanes)}


def plain(tree):
    """Leaves as numpy, keys as their data."""
    is_key = [jnp.issubdtype(x.dtype, jax.dtypes.prng_key) for x in jax.tree.leaves(tree)]
    return [np.asarray(jax.random.key_data(x) if k else x) for k, x in zip(is_key, jax.tree.leaves(tree))]


def check(out, expected, lane=()):
    got, want = plain(out), plain(expected)
    assert len(got) == len(want) == 3
    for a, b in zip(got, want):
        np.testing.assert_allclose(a[lane], b, rtol=1e-6)


def one(tree, lane):
    return jax.tree.map(lambda x: x[lane], tree)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("pred", [True, False])
def test_solo(wrap, pred):
    args = one(operands(1), 0)
    check(wrap(ours)(jnp.asarray(pred), *args), reference(pred, *args))


PREDS = {"some": [True, False, True], "none": [False] * 3, "all": [True] * 3}


@pytest.mark.parametrize("pred", PREDS.values(), ids=PREDS)
def test_lanes_that_differ(pred):
    args = operands(3)
    out = jax.jit(jax.vmap(ours))(jnp.array(pred), *args)
    for lane in range(3):
        check(out, reference(pred[lane], *one(args, lane)), lane)


@pytest.mark.parametrize("pred", [True, False])
def test_lanes_that_share_a_predicate(pred):
    args = operands(3)
    out = jax.jit(jax.vmap(ours, in_axes=(None, 0, 0, 0)))(jnp.asarray(pred), *args)
    for lane in range(3):
        check(out, reference(pred, *one(args, lane)), lane)


def test_only_the_predicate_has_lanes():
    args, pred = one(operands(1), 0), [False, True]
    out = jax.jit(jax.vmap(ours, in_axes=(0, None, None, None)))(jnp.array(pred), *args)
    for lane in range(2):
        check(out, reference(pred[lane], *args), lane)


def test_operands_of_other_axes():
    x, keys, aux = operands(3)
    axes = (0, 1, None, {"shift": None})
    pred = [True, False, True]
    out = jax.jit(jax.vmap(ours, in_axes=axes))(jnp.array(pred), x.T, keys[1], one(aux, 2))
    for lane in range(3):
        check(out, reference(pred[lane], x[lane], keys[1], one(aux, 2)), lane)


@pytest.mark.parametrize("axes", [(0, 0), (None, 0), (0, None), (None, None)])
def test_nested_lanes(axes):
    """Two vmaps; the predicate differs along both, one or none of their axes."""
    args = operands(2, 3)
    pred = np.array([[True, False, False], [False, False, True]])
    pred = pred[tuple(slice(None) if a == 0 else 1 for a in axes)]
    inner = jax.vmap(ours, in_axes=(axes[1], 0, 0, 0))
    out = jax.jit(jax.vmap(inner, in_axes=(axes[0], 0, 0, 0)))(jnp.asarray(pred), *args)
    full = np.broadcast_to(pred[:, None] if axes == (0, None) else pred, (2, 3))
    for lane in np.ndindex(2, 3):
        check(out, reference(full[lane], *one(args, lane)), lane)


def test_inside_scan():
    """Lanes that come due at different times, as counters do."""

    def step(carry, t):
        x, key, count = carry
        x, key, _ = ne_jax.cond_any((count + t) % 3 == 0, dear, cheap, x, key, {"shift": 0.0})
        return (x, key, count), x

    x, keys, _ = operands(2)
    counts = jnp.array([0, 1])
    (_, last, _), xs = jax.jit(jax.vmap(lambda *c: jax.lax.scan(step, c, jnp.arange(7))))(x, keys, counts)
    for lane in range(2):
        value, key = x[lane], keys[lane]
        for t in range(7):
            value, key, _ = reference((int(counts[lane]) + t) % 3 == 0, value, key, {"shift": 0.0})
            np.testing.assert_allclose(xs[lane, t], value, rtol=1e-5)
        np.testing.assert_array_equal(jax.random.key_data(last[lane]), jax.random.key_data(key))


LANES = {"differ": (0, 0, 0, 0), "share": (None, 0, 0, 0), "pred only": (0, None, None, None)}


def traced(conditional, axes):
    args = operands(3)
    pred = jnp.array([True, False, True])
    args = [pred if axes[0] == 0 else pred[0], *(a if ax == 0 else one(a, 0) for a, ax in zip(args, axes[1:]))]
    return primitives(jax.make_jaxpr(jax.jit(jax.vmap(conditional, in_axes=axes)))(*args).jaxpr)


@pytest.mark.parametrize("axes", LANES.values(), ids=LANES)
def test_jaxpr_keeps_the_branch(axes):
    found = traced(ours, axes)
    assert ("cond", False) in found and ("sort", True) in found
    assert ("sort", False) not in found


def test_jaxpr_of_lax_cond_loses_the_branch():
    """What `cond_any` is for; and proof that `primitives` would see it."""
    found = traced(lambda pred, *args: jax.lax.cond(pred, dear, cheap, *args), LANES["differ"])
    assert ("sort", False) in found and ("cond", False) not in found


@pytest.mark.parametrize("depth", [1, 2])
def test_branch_runs_only_when_a_lane_asks(depth):
    calls = []

    def counted(x):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return jax.pure_callback(lambda v: (calls.append(1), np.asarray(v) + 1)[1], shape, x, vmap_method="expand_dims")

    def f(pred, x):
        return ne_jax.cond_any(pred, counted, lambda v: v, x)

    for _ in range(depth):
        f = jax.vmap(f)
    f = jax.jit(f)
    lanes = (2,) * depth
    pred = np.zeros(lanes, bool)
    np.testing.assert_array_equal(f(pred, np.zeros(lanes, np.float32)), np.zeros(lanes))
    assert not calls
    pred[(1,) * depth] = True
    np.testing.assert_array_equal(f(pred, np.zeros(lanes, np.float32)), pred.astype(np.float32))
    assert calls


def test_a_traced_number_is_closed_over_and_the_branch_stays():
    """A rule's number that differs between lanes, in both branches."""

    def closing(pred, number, x):
        return cond_any_closing(pred, lambda x: jnp.sort(x) * number, lambda x: x - number, x)

    pred, numbers, x = jnp.array([True, False, True]), jnp.array([2.0, 3.0, 5.0]), operands(3)[0]
    lanes = jax.vmap(closing)
    found = primitives(jax.make_jaxpr(lanes)(pred, numbers, x).jaxpr)
    assert ("sort", True) in found and ("sort", False) not in found
    for function in (lanes, jax.jit(lanes)):
        got = function(pred, numbers, x)
        for lane in range(3):
            wanted = jnp.sort(x[lane]) * numbers[lane] if pred[lane] else x[lane] - numbers[lane]
            np.testing.assert_allclose(got[lane], wanted, rtol=1e-6)
    np.testing.assert_allclose(closing(jnp.array(True), 2.0, x[0]), jnp.sort(x[0]) * 2)
