"""Experience review against float64 numpy: probabilities from FAU samples, decisions, halved batches."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ne_jax.experience_review import make_review, repeat_half


def made(mode="gate", **settings) -> Any:
    return make_review(mode, **settings)


def fed(review, samples):
    """The states after each of the samples."""

    def one(state, fau):
        state = review.observe(state, fau)
        return state, state

    return jax.jit(lambda samples: jax.lax.scan(one, review.init(), samples)[1])(jnp.asarray(samples, jnp.float32))


@pytest.mark.parametrize(("awaken", "gain"), [(0.4, 0.9), (0.7, 3.0), (1.0, 0.1)])
def test_gate_reviews_more_the_fewer_units_are_active(awaken, gain):
    samples = np.linspace(0, 1, 101, dtype=np.float32)  # the gate itself among them
    below = [float(fau) < float(np.float32(awaken)) for fau in samples]
    expected = [(1 - 1 / (1 + gain * math.exp(awaken - float(fau)))) * low for fau, low in zip(samples, below)]
    found = fed(made(awaken=awaken, gain=gain), samples).probability
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)
    assert sum(below) in range(30, 101) and np.all(np.diff(found[: sum(below)]) < 0)


def slope_oracle(samples, window, most):
    """Probability after each sample, in float64."""
    steepest, found = 0.0, []
    for count in range(1, len(samples) + 1):
        if count < window:
            found.append(0.0)
            continue
        slope = abs(np.polyfit(np.arange(window), np.asarray(samples[count - window : count], np.float64), 1)[0])
        steepest = max(steepest, slope)
        found.append(most * (1 - slope / steepest))
    return found


@pytest.mark.parametrize(("window", "most"), [(2, 1.0), (5, 0.5), (10, 0.3)])
@pytest.mark.parametrize("size", [0.2, 1e-3])  # how much the curve moves: slopes of any size are told apart
def test_slope_reviews_more_the_steadier_the_curve(window, most, size):
    rng = np.random.default_rng(window)
    samples = np.clip(0.5 + np.cumsum(rng.normal(0, size / 4, 40)) * np.linspace(1, 0, 40), 0, 1).astype(np.float32)
    found = np.asarray(fed(made("slope", window=window, most=most), samples).probability)
    np.testing.assert_allclose(found, slope_oracle(samples, window, most), atol=1e-6, rtol=0)
    assert (found[: window - 1] == 0).all() and found[window - 1] == 0, "the first slope is the largest so far"
    assert found.max() > 0.5 * most and (found <= most).all()


def test_slope_of_a_curve_that_never_moved_is_as_steady_as_can_be():
    states = fed(made("slope", window=4, most=0.7), [0.1] * 6)
    np.testing.assert_allclose(states.probability, [0, 0, 0, 0.7, 0.7, 0.7], rtol=1e-6)
    assert (states.steepest == 0).all()


def test_steps_outside_the_window_are_forgotten_but_for_the_steepest_slope():
    samples = [0.9, 0.1, *[0.1] * 4]
    states = fed(made("slope", window=3, most=1.0), samples)
    np.testing.assert_allclose(states.probability, [0, 0, 0, 1, 1, 1], atol=1e-6)
    np.testing.assert_allclose(states.steepest[2:], 0.4, rtol=1e-6)
    np.testing.assert_allclose(states.samples[-1], [0.1] * 3)
    np.testing.assert_array_equal(states.count, np.arange(1, 7))
    np.testing.assert_allclose(states.fau, samples)


@pytest.mark.parametrize("mode", ["gate", "slope"])
def test_decisions_come_as_often_as_the_probability_says(mode):
    review = made(mode, fraction=0.25, window=2, most=0.6, auto_batch=True)
    # Slopes 0.2 and then 0.1: half of the steepest, so `slope` reviews with 0.3.
    state = jax.tree.map(lambda leaf: leaf[-1], fed(review, [0.1, 0.3, 0.2]))
    expected = 0.3 if mode == "slope" else 1 - 1 / (1 + 0.9 * math.exp(0.2))
    keys = jax.random.split(jax.random.key(0), 20_000)
    decisions = jax.jit(jax.vmap(functools.partial(review.decide, state)))(keys)
    assert abs(decisions.review.mean() - expected) < 4 * math.sqrt(0.25 / 20_000)
    np.testing.assert_allclose(decisions.probability, expected, rtol=1e-6)
    np.testing.assert_array_equal(decisions.span[:, 0], 0)
    np.testing.assert_array_equal(decisions.span[:, 1], np.where(decisions.review, np.float32(0.25), 1))
    assert decisions.half.all()


@pytest.mark.parametrize("mode", ["gate", "slope", "none"])
def test_nothing_is_reviewed_or_halved_before_the_first_sample(mode):
    review = made(mode, auto_batch=True)
    decide = jax.jit(jax.vmap(review.decide, in_axes=(None, 0)))
    decisions = decide(review.init(), jax.random.split(jax.random.key(1), 500))
    assert not decisions.review.any() and not decisions.half.any()
    np.testing.assert_array_equal(decisions.span, np.tile([0.0, 1.0], (500, 1)))


def test_batches_are_halved_below_nine_tenths_of_the_gate():
    review = made("none", awaken=0.5, auto_batch=True)
    samples = [0.44, 0.46, 0.3, 0.6]
    states = fed(review, samples)
    decisions = jax.vmap(review.decide)(states, jax.random.split(jax.random.key(0), 4))
    assert decisions.half.tolist() == [True, False, True, False]
    assert not decisions.review.any(), "mode none halves, and reviews nothing"
    assert made("gate").decide(made("gate").init(), jax.random.key(0)).half is None


def test_half_a_batch_has_the_mean_gradient_of_half_the_transitions():
    rng = np.random.default_rng(0)
    batch = {"x": rng.normal(size=(8, 3)).astype(np.float32), "y": rng.normal(size=8).astype(np.float32)}

    def loss(w, batch):
        return ((batch["x"] @ w - batch["y"]) ** 2).mean()

    weights = jnp.asarray(rng.normal(size=3), jnp.float32)
    halved = jax.jit(repeat_half)(batch, jnp.array(True))
    np.testing.assert_array_equal(halved["x"], np.concatenate([batch["x"][:4]] * 2))
    first = jax.tree.map(lambda leaf: leaf[:4], batch)
    np.testing.assert_allclose(jax.grad(loss)(weights, halved), jax.grad(loss)(weights, first), rtol=1e-5)
    whole = repeat_half(jax.tree.map(jnp.asarray, batch), jnp.array(False))
    jax.tree.map(np.testing.assert_array_equal, whole, batch)
    with pytest.raises(ValueError, match=r"review.auto_batch halves batches, so batch_size must be even, got 7"):
        repeat_half(jnp.zeros((7, 2)), jnp.array(True))


@pytest.mark.parametrize("mode", ["gate", "slope"])
def test_a_vmapped_lane_is_the_seed_alone(mode):
    review = made(mode, window=3, auto_batch=True)
    samples = np.random.default_rng(4).uniform(0, 0.8, (12, 5)).astype(np.float32)  # [time, seeds]
    keys = jax.random.split(jax.random.key(2), 5)

    def run(samples, key):
        state, _ = jax.lax.scan(lambda state, fau: (review.observe(state, fau), None), review.init(), samples)
        return state, review.decide(state, key)

    together = jax.jit(jax.vmap(run, in_axes=(1, 0)))(samples, keys)
    assert together[0].fau.shape == (5,)
    assert len(np.unique(together[0].probability)) > 1, "seeds alike would not tell"
    alone = [jax.jit(run)(samples[:, i], keys[i]) for i in range(5)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *alone)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-7), together, stacked)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(mode="recall"), "review.mode must be none, slope or gate, got 'recall'"),
        (dict(every=0), "review.every must be a positive number of updates, got 0"),
        (dict(fraction=0.0), r"review.fraction must lie in \(0, 1\], got 0.0"),
        (dict(fraction=1.01), r"review.fraction must lie in \(0, 1\], got 1.01"),
        (dict(awaken=-0.1), r"review.awaken .* must lie in \[0, 1\], got -0.1"),
        (dict(awaken=1.1), r"review.awaken .* must lie in \[0, 1\], got 1.1"),
        (dict(gain=0.0), "review.gain must be positive, got 0.0"),
        (dict(window=1), "review.window must be at least 2, for one sample has no slope, got 1"),
        (dict(most=0.0), r"review.most must lie in \(0, 1\], got 0.0"),
        (dict(most=1.5), r"review.most must lie in \(0, 1\], got 1.5"),
    ],
)
def test_bad_settings_are_named(change, message):
    for mode in ("none", "slope", "gate"):  # whatever the mode, for a wrong number is wrong
        with pytest.raises(ValueError, match=message):
            make_review(**{"mode": mode, **change})


def test_without_anything_to_do_there_is_no_review():
    assert make_review("none") is None
    for mode, auto_batch in (("none", True), ("gate", False), ("slope", False)):
        assert made(mode, auto_batch=auto_batch) is not None
    made(fraction=1.0, awaken=0.0, window=2, most=1.0, every=1)
