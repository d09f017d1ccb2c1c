"""Exact selection, densities per layer, masks on any pytree."""

import math
from collections import Counter
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.core import freeze
from oracles import erk_counts, erk_densities, top_k

import ne_jax

select = jax.jit(ne_jax.select)
DRQ = {
    "conv/kernel": (3, 3, 9, 32),
    "trunk/kernel": (39200, 50),
    "a/kernel": (50, 1024),
    "b/kernel": (1024, 1024),
    "c/kernel": (1024, 6),
}
MLP = {"a": (17, 256), "b": (256, 256), "c": (256, 6)}
CONV = {"a": (8, 8, 4, 32), "b": (4, 4, 32, 64), "c": (3, 3, 64, 64), "d": (3136, 512), "e": (512, 18)}


class Dense(NamedTuple):
    kernel: Any
    bias: Any


def random_params(seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"hidden_0": (20, 30), "hidden_1": (30, 20), "head": (20, 2)}
    return {
        "params": {
            name: {"kernel": jnp.asarray(rng.normal(size=s), "float32"), "bias": jnp.asarray(rng.normal(size=s[-1:]))}
            for name, s in shapes.items()
        }
    }


def test_select_is_what_a_stable_sort_gives():
    rng, shape = np.random.default_rng(0), (4, 3, 2)
    pool = np.array([-np.inf, np.inf, np.nan, -2, -1, -0.0, 0.0, 0.5, 3], np.float32)
    for _ in range(300):
        scores = rng.choice(pool, size=shape)
        among, k = rng.random(shape) < rng.random(), int(rng.integers(0, 30))
        np.testing.assert_array_equal(select(scores, k, np.ones(shape, bool)), top_k(scores, k))
        np.testing.assert_array_equal(select(scores, k, among), top_k(scores, k, among))


def test_select_without_candidates_means_all():
    scores = jnp.zeros((2, 3))
    for k in range(8):
        assert np.flatnonzero(ne_jax.select(scores, k)).tolist() == list(range(min(k, 6)))
        assert np.flatnonzero(ne_jax.select(scores, jnp.int32(k))).tolist() == list(range(min(k, 6)))


def test_select_counts_exactly():
    scores = np.random.default_rng(1).integers(0, 4, (40, 50)).astype(np.float32)
    among = np.random.default_rng(2).random((40, 50)) < 0.5
    for k in (0, 1, 999, 2000, 9999):
        assert int(select(scores, k, among).sum()) == min(k, among.sum())


def test_select_never_leaves_its_candidates():
    scores = jnp.array([[9.0, -jnp.inf, jnp.nan], [8.0, -jnp.inf, 7.0]])
    among = jnp.array([[False, True, True], [False, False, False]])
    assert np.flatnonzero(ne_jax.select(scores, 1, among)).tolist() == [1]
    assert np.flatnonzero(ne_jax.select(scores, 5, among)).tolist() == [1, 2]
    assert not ne_jax.select(scores, 5, ~jnp.ones((2, 3), bool)).any()


@pytest.mark.parametrize("shapes", [DRQ, MLP, CONV], ids=["drq", "mlp", "conv"])
@pytest.mark.parametrize("density", [0.01, 0.2, 0.25, 0.5, 0.75, 0.99, 1.0])
def test_erdos_renyi_against_bisection(shapes, density):
    ours, reference = ne_jax.erdos_renyi(density)(shapes), erk_densities(shapes, density)
    size = {p: math.prod(s) for p, s in shapes.items()}
    for path in shapes:
        assert ours[path] == pytest.approx(reference[path], rel=1e-9)
        assert 0 < ours[path] <= 1 + 1e-12
    assert sum(ours[p] * size[p] for p in shapes) == pytest.approx(density * sum(size.values()), rel=1e-9)
    held = ne_jax.counts(ne_jax.erdos_renyi(density), shapes)
    assert held == erk_counts(shapes, density)
    assert abs(sum(held.values()) - density * sum(size.values())) <= len(shapes)


def test_erdos_renyi_by_hand():
    # Two layers of 100 and 10 weights: raw shares .2 and 1.1, so n = eps * (20, 11) and eps = 22 / 31.
    shapes = {"a": (10, 10), "b": (10, 1)}
    d = ne_jax.erdos_renyi(0.2)(shapes)
    assert d == pytest.approx({"a": 22 / 31 * 0.2, "b": 22 / 31 * 1.1})
    # At half density b would get more than it has: it is full, and a holds the other 45.
    assert ne_jax.erdos_renyi(0.5)(shapes) == pytest.approx({"a": 0.45, "b": 1.0})
    # RigL's kernel variant counts the filter's height and width too.
    conv = ne_jax.erdos_renyi(0.1)({"a": (3, 3, 8, 16), "b": (5, 5, 16, 32)})
    assert conv["a"] / conv["b"] == pytest.approx((30 / 1152) / (58 / 12800))


def test_erdos_renyi_spares_thin_layers():
    d = ne_jax.erdos_renyi(0.02)(MLP)
    assert d["c"] > d["a"] > d["b"] and ne_jax.erdos_renyi(0.5)(MLP)["c"] == 1.0


def test_uniform_is_the_same_everywhere():
    assert set(ne_jax.uniform(0.3)(CONV).values()) == {0.3}
    assert ne_jax.counts(ne_jax.uniform(0.25), MLP) == {"a": 1088, "b": 16384, "c": 384}


def test_counts_hold_at_least_one_weight():
    assert ne_jax.counts(ne_jax.uniform(0.001), {"a": (3, 3), "b": (100, 100)}) == {"a": 1, "b": 10}


@pytest.mark.parametrize("make", [ne_jax.uniform, ne_jax.erdos_renyi])
@pytest.mark.parametrize("density", [0.0, -0.1, 1.01, math.nan])
def test_density_outside_its_range(make, density):
    with pytest.raises(ValueError, match="density must lie in"):
        make(density)


def test_sparsify_counts_and_keeps():
    params = random_params()
    sparse = ne_jax.sparsify(jax.random.key(0), params, ne_jax.erdos_renyi(0.2), ne_jax.kernels_under("hidden"))
    expected = erk_counts({"hidden_0": (20, 30), "hidden_1": (30, 20)}, 0.2)
    for name, before in params["params"].items():
        after = sparse["params"][name]
        np.testing.assert_array_equal(after["bias"], before["bias"])
        if name == "head":
            np.testing.assert_array_equal(after["kernel"], before["kernel"])
        else:
            kept = np.asarray(after["kernel"]) != 0
            assert kept.sum() == expected[name]
            np.testing.assert_array_equal(after["kernel"], np.where(kept, before["kernel"], 0))


def test_sparsify_follows_its_key():
    def mask(seed):
        key = jax.random.key(seed)
        sparse = ne_jax.sparsify(key, random_params(), ne_jax.uniform(0.5), ne_jax.kernels_under("hidden"))
        return np.asarray(sparse["params"]["hidden_0"]["kernel"]) != 0

    masks = [mask(seed) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(masks[0], masks[1])
    assert 0.3 < (masks[0] != masks[2]).mean() < 0.7  # one half, if independent


def test_sparsify_treats_layers_and_weights_alike():
    params = {"a": {"kernel": jnp.ones((4, 4))}, "b": {"kernel": jnp.ones((4, 4))}}
    keys = jax.random.split(jax.random.key(0), 400)
    kept = jax.vmap(lambda key: ne_jax.sparsify(key, params, ne_jax.uniform(0.5)))(keys)
    a, b = np.asarray(kept["a"]["kernel"]), np.asarray(kept["b"]["kernel"])
    for share in (a.mean(0), b.mean(0), (a == b).mean(0)):  # 5 standard deviations of 400 coin tosses
        np.testing.assert_allclose(share, 0.5, atol=0.125)


def test_zero_initialised_sparse_leaf():
    params = random_params()
    params["params"]["head"]["kernel"] = jnp.zeros((20, 2))
    for read in (lambda p: ne_jax.sparsify(jax.random.key(0), p, ne_jax.uniform(0.5)), ne_jax.nonzero):
        with pytest.raises(ValueError, match="params/head/kernel is zero throughout"):
            read(params)
    assert len(ne_jax.nonzero(params, ne_jax.kernels_under("hidden"))) == 2


def test_where_that_chooses_nothing():
    for read in (lambda p, w: ne_jax.sparsify(jax.random.key(0), p, ne_jax.uniform(0.5), w), ne_jax.nonzero):
        with pytest.raises(ValueError, match=r"chooses no leaf.*params/head/bias"):
            read(random_params(), ne_jax.kernels_under("encoder"))


def test_kernels_under_takes_starts_of_path_components():
    shapes = ne_jax.sparse_shapes(random_params(), ne_jax.kernels_under("hidden_1", "he"))
    assert shapes == {"params/hidden_1/kernel": (30, 20), "params/head/kernel": (20, 2)}
    where, leaf = ne_jax.kernels_under("hidden"), jnp.ones((2, 2))
    assert where("params/actor/hidden_3/dense/kernel", leaf) and not where("params/unhidden/kernel", leaf)
    assert not where("params/hidden_0/bias", leaf) and not where("params/hidden_0/scale", leaf)


def test_kernels_have_two_axes():
    assert ne_jax.kernels("a/kernel", jnp.ones((3, 2))) and ne_jax.kernels("kernel", jnp.ones((2, 2, 3, 4)))
    assert not ne_jax.kernels("a/kernel", jnp.ones(3)) and not ne_jax.kernels("a/bias", jnp.ones((3, 2)))


def test_nonzero_reads_the_pattern():
    tree = {"a": {"kernel": jnp.array([[1.0, 0.0], [-2.0, jnp.nan]]), "bias": jnp.ones(2)}}
    masks = ne_jax.nonzero(tree)
    assert list(masks) == ["a/kernel"] and np.asarray(masks["a/kernel"]).tolist() == [[True, False], [True, True]]


KERNEL, BIAS, MASK = jnp.arange(1.0, 7).reshape(2, 3), jnp.ones(3), jnp.array([[1, 0, 1], [0, 0, 1]], bool)
LAYER = {"kernel": KERNEL, "bias": BIAS}
TREES = {
    "dict": ({"params": {"x": LAYER}}, "params/x/kernel"),
    "frozen": (freeze({"params": {"x": LAYER}}), "params/x/kernel"),
    "list": ([LAYER, {"other": BIAS}], "0/kernel"),
    "named tuple": ({"x": Dense(KERNEL, BIAS)}, "x/kernel"),
    "nested": ((Dense({"kernel": KERNEL}, [BIAS]), None), "0/kernel/kernel"),
}


@pytest.mark.parametrize("tree, path", TREES.values(), ids=TREES)
def test_apply_on_any_tree(tree, path):
    out = ne_jax.apply({path: MASK}, tree)
    assert jax.tree.structure(out) == jax.tree.structure(tree)
    leaves = Counter(str(np.asarray(x).tolist()) for x in jax.tree.leaves(tree))
    leaves.subtract(str(np.asarray(x).tolist()) for x in jax.tree.leaves(out))
    changed = {v: n for v, n in leaves.items() if n}
    assert changed == {str(KERNEL.tolist()): 1, "[[1.0, 0.0, 3.0], [0.0, 0.0, 6.0]]": -1}
    read = ne_jax.nonzero(out)
    assert list(read) == [path]
    np.testing.assert_array_equal(read[path], MASK)
    np.testing.assert_array_equal(ne_jax.leaves_by_path(tree)[path], KERNEL)


def test_apply_erases_what_is_not_finite():
    out = ne_jax.apply({"a": jnp.array([True, False, False])}, {"a": jnp.array([1.0, jnp.nan, jnp.inf])})
    assert np.asarray(out["a"]).tolist() == [1, 0, 0]


def test_no_masks_change_nothing():
    tree = {"a": KERNEL}
    assert ne_jax.apply({}, tree) is tree or ne_jax.apply({}, tree)["a"] is KERNEL
    assert ne_jax.density({}) == {}


def test_unknown_path():
    for change in (ne_jax.apply, lambda new, tree: ne_jax.replace_leaves(tree, new)):
        with pytest.raises(KeyError, match=r"no leaf at \['params/y/kernel'\].*'params/x/bias'"):
            change({"params/y/kernel": MASK}, {"params": {"x": LAYER}})


def test_replace_leaves_replaces_only_those():
    out = ne_jax.replace_leaves([LAYER, LAYER], {"1/bias": 7})
    assert out[1]["bias"] == 7 and out[0]["bias"] is BIAS and out[1]["kernel"] is KERNEL


def test_density_by_layer_and_of_all():
    d = ne_jax.density({"a": MASK, "b": jnp.ones((3, 4), bool)})
    assert {k: float(v) for k, v in d.items()} == pytest.approx({"a": 3 / 6, "b": 1.0, "all": 15 / 18})


def test_boxes_of_flax_add_nothing_to_a_path():
    """nnx.Optimizer calls `init` with boxed arrays, `update` with bare ones: both go by the same paths."""
    boxed = nnx.state(nnx.Linear(3, 4, rngs=nnx.Rngs(0)))
    names = {"bias", "kernel"}
    assert set(ne_jax.leaves_by_path(boxed)) == set(ne_jax.leaves_by_path(nnx.as_pure(boxed))) == names
    assert set(ne_jax.leaves_by_path({name: nn.Partitioned(jnp.ones(2), (None,)) for name in names})) == names
    masks = {"kernel": jnp.arange(12).reshape(3, 4) % 2 == 0}
    whole, halved = ne_jax.leaves_by_path(boxed), ne_jax.leaves_by_path(ne_jax.apply(masks, boxed))
    np.testing.assert_array_equal(halved["kernel"], np.where(masks["kernel"], whole["kernel"], 0))
    # A part of the parameters may well be called value.
    assert set(ne_jax.leaves_by_path({"value": {"kernel": 0}, "policy": Dense(0, 1)})) == {
        "value/kernel",
        "policy/kernel",
        "policy/bias",
    }
