"""Density over time against the formulas in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import cosine, erk_counts, scheduled

import ne_jax

SHAPES = {"thin": (17, 6), "a": (50, 1024), "b": (1024, 1024), "conv": (3, 3, 32, 32)}
MAKERS = {"cosine": (ne_jax.cosine_growth, cosine), "linear": (ne_jax.linear_growth, lambda x: x)}


def counts(schedule, steps, shapes=SHAPES):
    at = jax.jit(jax.vmap(lambda step: ne_jax.counts_at(schedule, shapes, step)))
    return {p: np.asarray(n) for p, n in at(jnp.asarray(steps, jnp.int32)).items()}


@pytest.mark.parametrize("make, shape", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("until", [1, 7, 1000, 500_000])
def test_counts_follow_the_formula(make, shape, until):
    steps = np.unique(np.linspace(0, until * 1.2, 301).astype(int))
    ours = counts(make(0.2, 0.75, until), steps)
    for i, step in enumerate(steps):
        exact = scheduled(SHAPES, 0.2, 0.75, step / until, shape)
        for path in SHAPES:
            assert abs(ours[path][i] - exact[path]) <= 1, (path, step)


@pytest.mark.parametrize("make, shape", MAKERS.values(), ids=MAKERS)
def test_small_layers_are_exact(make, shape):
    shapes, steps = {"a": (20, 30), "b": (30, 40)}, range(0, 300)
    ours = counts(make(0.1, 0.9, 250), steps, shapes)
    for step in steps:
        exact = scheduled(shapes, 0.1, 0.9, step / 250, shape)
        for path in shapes:
            assert abs(ours[path][step] - exact[path]) <= 0.5 + 1e-3, (path, step)


@pytest.mark.parametrize("make, shape", MAKERS.values(), ids=MAKERS)
def test_ends_are_exact(make, shape):
    first, last = erk_counts(SHAPES, 0.2), erk_counts(SHAPES, 0.75)
    ours = counts(make(0.2, 0.75, 3_000_017), [0, 3_000_017, 4_000_000, 2**31 - 1])
    for path in SHAPES:
        assert ours[path].tolist() == [first[path]] + [last[path]] * 3


@pytest.mark.parametrize("make", [ne_jax.cosine_growth, ne_jax.linear_growth])
def test_density_never_falls(make):
    ours = counts(make(0.2, 0.75, 100_000), range(0, 110_000, 100))
    for path, n in ours.items():
        assert (np.diff(n) >= 0).all(), path
    assert ours["b"][-1] > 2 * ours["b"][0]


def test_cosine_growth_is_fast_then_slow():
    n = counts(ne_jax.cosine_growth(ne_jax.uniform(0.2), ne_jax.uniform(0.8), 100), [0, 25, 50, 75, 100])["b"]
    rises = np.diff(n) / (0.6 * 2**20)
    # The integral of 1 + cos(pi x) over each quarter.
    quarter = 0.25 + np.array([1, math.sqrt(2) - 1]) * math.sin(math.pi / 4) / math.pi
    np.testing.assert_allclose(rises, [*quarter, *(0.5 - quarter[::-1])], atol=1e-5)


def test_steps_may_be_traced_or_not():
    schedule = ne_jax.cosine_growth(0.2, 0.75, 1000)
    jitted = jax.jit(lambda step: ne_jax.counts_at(schedule, SHAPES, step))(jnp.int32(321))
    plain = ne_jax.counts_at(schedule, SHAPES, 321)
    assert {p: int(n) for p, n in plain.items()} == {p: int(n) for p, n in jitted.items()}
    assert all(n.dtype == jnp.int32 for n in jitted.values())


def test_constant_stays():
    ours = counts(ne_jax.constant(0.3), [0, 1, 10**6])
    for path, n in erk_counts(SHAPES, 0.3).items():
        assert ours[path].tolist() == [n] * 3


def test_ends_may_be_densities_of_their_own():
    schedule = ne_jax.linear_growth(ne_jax.uniform(0.5), lambda shapes: {p: 1.0 for p in shapes}, 10)
    ours = counts(schedule, [0, 5, 10], {"a": (10, 10)})
    assert ours["a"].tolist() == [50, 75, 100]


@pytest.mark.parametrize("make", [ne_jax.cosine_growth, ne_jax.linear_growth])
def test_wrong_settings(make):
    with pytest.raises(ValueError, match="`until` must be a positive"):
        make(0.2, 0.75, 0)
    with pytest.raises(ValueError, match=r"final density 0\.2 lies below the initial 0\.75"):
        make(0.75, 0.2, 10)
    with pytest.raises(ValueError, match="density must lie in"):
        make(0.2, 1.5, 10)
    with pytest.raises(ValueError, match="density must lie in"):
        ne_jax.constant(0.0)
