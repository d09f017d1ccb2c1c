"""Ranks, norms and mask overlap against float64 numpy, sets in Python, and spectra that are known."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ne_jax

RANKS = ("effective_rank", "srank", "stable_rank")


def features(shape, seed=0):
    """What a ReLU layer gives, its units of different sizes."""
    rng = np.random.default_rng(seed)
    return (np.maximum(rng.normal(size=shape), 0) * rng.uniform(0.2, 2, shape[-1])).astype(np.float32)


def with_spectrum(values, shape, seed=0):
    """A matrix of these singular values, the rest zero."""
    rng = np.random.default_rng(seed)
    left, right = (np.linalg.qr(rng.normal(size=(n, n)))[0][:, : len(values)] for n in shape)
    return (left * np.asarray(values, np.float64)) @ right.T


def oracle(matrix, delta=0.01):
    """The three definitions, term by term, from the eigenvalues of the Gram matrix in float64."""
    matrix = np.asarray(matrix, np.float64)
    squares = np.maximum(np.linalg.eigvalsh(matrix @ matrix.T if len(matrix) < len(matrix.T) else matrix.T @ matrix), 0)
    values = sorted((math.sqrt(square) for square in squares), reverse=True)
    shares = [value / sum(values) for value in values]
    held = [sum(shares[:k]) for k in range(len(shares) + 1)]
    assert min(abs(h - (1 - delta)) for h in held) > 1e-5, "a tie, which float32 need not see"
    return {
        "effective_rank": math.exp(-sum(share * math.log(share) for share in shares if share > 0)),
        "srank": next(k for k, h in enumerate(held) if h >= 1 - delta),
        "stable_rank": sum(matrix.ravel() ** 2) / squares[-1],
    }


@pytest.mark.parametrize("shape", [(48, 24), (24, 48), (32, 32)])
def test_ranks_of_features(shape):
    h = features(shape)
    for delta in (0.01, 0.2):
        expected, ours = oracle(h, delta), ne_jax.ranks(jnp.asarray(h), delta)
        assert ours.keys() == expected.keys()
        for name in RANKS:
            np.testing.assert_allclose(ours[name], expected[name], rtol=1e-6, err_msg=name)
    assert oracle(h)["srank"] > oracle(h, 0.2)["srank"] > 1
    np.testing.assert_array_equal(ne_jax.srank(jnp.asarray(h)), oracle(h)["srank"])  # its default is 0.01
    np.testing.assert_array_equal(ne_jax.srank(jnp.asarray(h), 0.2), oracle(h, 0.2)["srank"])
    np.testing.assert_allclose(ne_jax.effective_rank(jnp.asarray(h)), oracle(h)["effective_rank"], rtol=1e-6)
    np.testing.assert_allclose(ne_jax.stable_rank(jnp.asarray(h)), oracle(h)["stable_rank"], rtol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e15])
@pytest.mark.parametrize("rank", [1, 3, 8])
def test_rank_deficient_features(rank, scale):
    """Of `rank` equal singular values out of 20: all three are `rank`, whatever the size of the features."""
    ours = ne_jax.ranks(jnp.asarray(scale * with_spectrum([5.0] * rank, (40, 20)), jnp.float32))
    for name in RANKS:
        np.testing.assert_allclose(ours[name], rank, rtol=1e-4, err_msg=name)


def test_ranks_by_hand():
    """4, 2, 1, 1: shares 1/2, 1/4, 1/8, 1/8, of which the entropy is 1.75 bits."""
    h = jnp.asarray(with_spectrum([4, 2, 1, 1], (7, 5)), jnp.float32)
    np.testing.assert_allclose(ne_jax.effective_rank(h), 2**1.75, rtol=1e-5)
    np.testing.assert_allclose(ne_jax.stable_rank(h), 22 / 16, rtol=1e-5)
    for delta, rank in {0.01: 4, 0.1: 4, 0.2: 3, 0.3: 2, 0.6: 1}.items():
        assert ne_jax.srank(h, delta) == rank


def test_ranks_of_silent_and_broken_features():
    silent, broken = ne_jax.ranks(jnp.zeros((6, 4))), ne_jax.ranks(jnp.full((6, 4), jnp.nan))
    for name in RANKS:
        assert silent[name] == 0 and np.isnan(broken[name]), name


def test_ranks_of_lanes():
    """jit(vmap) gives what each lane gives alone, a silent one included."""
    lanes = np.stack([features((24, 10), 1), np.zeros((24, 10), np.float32), features((24, 10), 2)])
    ours = jax.jit(jax.vmap(ne_jax.ranks))(lanes)
    for i, lane in enumerate(lanes):
        expected = oracle(lane) if i != 1 else dict.fromkeys(RANKS, 0)
        for name in RANKS:
            np.testing.assert_allclose(ours[name][i], expected[name], rtol=1e-6, err_msg=name)


def test_ranks_of_what_is_no_matrix():
    with pytest.raises(ValueError, match=r"features must be \[batch, units\], got shape \(2, 3, 4\)"):
        ne_jax.ranks(jnp.ones((2, 3, 4)))
    for delta in (-0.1, 1.0):
        with pytest.raises(ValueError, match=r"delta must lie in \[0, 1\)"):
            ne_jax.srank(jnp.ones((2, 3)), delta)


def test_feature_norm():
    h = features((40, 300))
    expected = np.mean([math.sqrt(sum(x * x for x in row)) for row in h.astype(np.float64).tolist()])
    np.testing.assert_allclose(ne_jax.feature_norm(jnp.asarray(h)), expected, rtol=1e-6)


class Layer(NamedTuple):
    kernel: Any
    bias: Any


def tree(seed):
    rng = np.random.default_rng(seed)
    return {
        "actor": Layer(rng.normal(size=(200, 300)).astype(np.float32), rng.normal(size=300).astype(np.float32)),
        "log_alpha": rng.normal(size=()).astype(np.float32),
    }


def flat(t):
    return np.concatenate([t["actor"].kernel.ravel(), t["actor"].bias, t["log_alpha"][None]]).astype(np.float64)


def test_norms():
    t = tree(0)
    np.testing.assert_allclose(ne_jax.norm(t), np.sqrt((flat(t) ** 2).sum()), rtol=1e-6)
    ours = ne_jax.norms(t)
    assert set(ours) == {"actor/kernel", "actor/bias", "log_alpha"}
    np.testing.assert_allclose(ours["actor/bias"], np.linalg.norm(t["actor"].bias.astype(np.float64)), rtol=1e-6)
    np.testing.assert_allclose(ours["log_alpha"], abs(t["log_alpha"]), rtol=1e-6)
    assert ne_jax.norm({}) == 0


def test_distance():
    a, b = tree(0), tree(1)
    np.testing.assert_allclose(ne_jax.distance(a, b), np.sqrt(((flat(a) - flat(b)) ** 2).sum()), rtol=1e-6)
    assert ne_jax.distance(a, a) == 0
    lanes = jax.tree.map(lambda x, y: jnp.stack([x, y]), a, b)
    np.testing.assert_allclose(
        jax.vmap(ne_jax.distance, (0, None))(lanes, a), [0, float(ne_jax.distance(b, a))], rtol=1e-6
    )


def masks(seed, density=0.3):
    rng = np.random.default_rng(seed)
    return {
        path: jnp.asarray(rng.random(shape) < density) for path, shape in {"a": (20, 30), "b": (3, 3, 4, 8)}.items()
    }


def weights(m):
    return {(path, *index) for path, mask in m.items() for index in np.argwhere(mask).tolist()}


def test_jaccard_and_churn():
    a, b = masks(0), masks(1, 0.6)
    overlap = len(weights(a) & weights(b)) / len(weights(a) | weights(b))
    assert 0.1 < overlap < 0.5
    np.testing.assert_allclose(ne_jax.jaccard(a, b), overlap, rtol=1e-6)
    np.testing.assert_allclose(ne_jax.churn(b, a), 1 - overlap, rtol=1e-6)
    assert ne_jax.jaccard(a, a) == 1 and ne_jax.churn(a, a) == 0
    assert ne_jax.jaccard(a, {path: ~mask for path, mask in a.items()}) == 0


def test_jaccard_of_nothing():
    empty = masks(0, 0.0)
    assert ne_jax.jaccard(empty, empty) == 1 and ne_jax.churn({}, {}) == 0
    assert ne_jax.jaccard(empty, masks(0)) == 0


def test_jaccard_of_lanes():
    a, b = masks(0), masks(1)
    lanes = jax.tree.map(lambda x, y: jnp.stack([x, y]), a, b)
    ours = jax.jit(jax.vmap(ne_jax.jaccard, (0, None)))(lanes, a)
    np.testing.assert_allclose(ours, [1, float(ne_jax.jaccard(b, a))], rtol=1e-6)


def test_jaccard_of_different_layers():
    with pytest.raises(ValueError, match=r"different layers cannot be compared: \['a', 'b'\] and \['a'\]"):
        ne_jax.jaccard(masks(0), {"a": masks(0)["a"]})
