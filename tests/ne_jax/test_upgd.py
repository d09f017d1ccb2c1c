"""Utility-based perturbed gradient descent against numpy: utilities, protection, noise, and what is newborn."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from accounts import check, check_lanes_and_pause, flat, gradients_at, history, parameters

import ne_jax

BOTH = pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])


@BOTH
def test_utilities_and_protection(sparse):
    average: Any = {}
    count = 0

    def after(params, gradients, updates, t):
        nonlocal count
        count += 1
        for path in params:
            average[path] = 0.9 * average.get(path, 0) - 0.1 * gradients[path] * params[path]
        corrected = {path: u / (1 - 0.9**count) for path, u in average.items()}
        most = max(u.max() for u in corrected.values())
        assert most > 0
        protection = {path: 1 / (1 + np.exp(-u / most)) for path, u in corrected.items()}
        return {path: params[path] + 1.5 * (1 - protection[path]) * updates[path] for path in params}

    steps = check(ne_jax.upgd(sigma=0.0, decay=0.9, scale=1.5), after=after, sparse=sparse)
    for path, utility in steps[-1][1].rule.utility.items():
        np.testing.assert_allclose(utility, average[path], rtol=1e-3, atol=1e-5)


def one_update(sigma, gradient, kernel, scale=1.0):
    params: Any = {"kernel": jnp.asarray(kernel, jnp.float32)}
    tx = ne_jax.plastic(optax.sgd(0.5), ne_jax.upgd(sigma=sigma, scale=scale), 1, where=None)
    gradients = {"kernel": jnp.asarray(gradient, jnp.float32)}
    return np.asarray(tx.update(gradients, tx.init(params), params, key=jax.random.key(3))[0]["kernel"])


def test_the_most_useful_weight_moves_by_what_the_sigmoid_leaves_and_a_useless_one_by_half():
    # u = -g * w: 2, 0, 1 and -4, over their largest
    updates = one_update(0.0, [[-1.0, 3.0, -1.0, 4.0]], [[2.0, 0.0, 1.0, 1.0]])
    left = 1 / (1 + np.exp(np.array([1, 0, 0.5, -2])))
    np.testing.assert_allclose(updates[0], left * -0.5 * np.array([-1, 3, -1, 4]), rtol=1e-5)
    np.testing.assert_allclose(one_update(0.0, [[1.0]], [[0.0]], scale=2.0), [[-0.5]])  # as without UPGD


def test_where_no_weight_is_of_use_all_move_by_half():
    np.testing.assert_allclose(one_update(0.0, [[1.0, 2.0, 5.0]], [[1.0, 1.0, 0.0]]), [[-0.25, -0.5, -1.25]])


def test_noise_goes_where_there_is_no_use():
    """Half of the weights are as useful as any, half of no use; no gradient moves the latter."""
    useful = np.arange(64) < 32
    gradient = np.where(useful, -1.0, 0.0) * np.ones((256, 64))
    moved = [one_update(sigma, gradient, np.ones((256, 64)), scale=2.0) for sigma in (0.0, 0.01)]
    noise = moved[1] - moved[0]
    for units, freedom in ((useful, 1 / (1 + np.e)), (~useful, 0.5)):
        assert noise[:, units].std() == pytest.approx(2 * 0.01 * freedom, rel=0.05)
        assert abs(noise[:, units].mean()) < 1e-3


def test_noise_differs_from_update_to_update_and_from_leaf_to_leaf():
    steps = history(ne_jax.upgd(sigma=1.0), updates=2)
    first, second = (
        flat(after[0])["hidden_0/dense/bias"] - flat(before[0])["hidden_0/dense/bias"]
        for before, after in itertools.pairwise(steps)
    )
    other = flat(steps[1][0])["hidden_0/norm/bias"] - flat(steps[0][0])["hidden_0/norm/bias"]
    for one, two in ((first, second), (first, other)):
        assert abs(np.corrcoef(one, two)[0, 1]) < 0.9


@pytest.mark.slow
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_lanes_and_pause(sparse):
    topology = [ne_jax.set_(ne_jax.constant_share(0.3))] if sparse else []
    check_lanes_and_pause(ne_jax.chain(*topology, ne_jax.upgd(sigma=0.01), ne_jax.weight_decay(rate=0.01)), sparse)


def test_a_newborn_weight_is_of_no_use_and_an_absent_one_stays_zero():
    rule = ne_jax.chain(ne_jax.set_(ne_jax.constant_share(0.4)), ne_jax.upgd(sigma=0.1))
    steps, born = history(rule, sparse=True, updates=15), 0
    for (_, before), (params, state) in itertools.pairwise(steps):
        for path, mask in state.masks.items():
            new, utility = mask & ~before.masks[path], state.rule[1].utility[path]
            assert not flat(params)[path][~np.asarray(mask)].any() and not utility[~mask].any()
            assert not utility[new].any()
            born += new.sum()
    assert born > 5


def test_with_decay_in_a_chain_it_is_the_authors_step():
    """w = (1 - rate) * w + scale * (1 - V) * Adam's update; one update, where Adam's is the sign of the gradient."""
    rule = ne_jax.chain(ne_jax.upgd(sigma=0.0, decay=0.0), ne_jax.weight_decay(rate=0.25))
    params = parameters()
    tx = ne_jax.plastic(optax.adam(0.125, eps=0.0), rule, 1, where=None)
    updates, _ = tx.update(gradients_at(0), tx.init(params), params)
    w, g = flat(params), flat(gradients_at(0))
    most = max((-g[path] * w[path]).max() for path in w)
    for path, found in flat(optax.apply_updates(params, updates)).items():
        kept = 0.75 if path.endswith("kernel") else 1
        free = 1 / (1 + np.exp(-g[path] * w[path] / most))
        np.testing.assert_allclose(found, kept * w[path] - 2 * free * 0.125 * np.sign(g[path]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"sigma": -0.1}, "sigma must not be negative, got -0.1"),
        ({"decay": 1.0}, r"decay must lie in \[0, 1\), got 1.0"),
        ({"scale": 0.0}, "scale must be positive, got 0.0"),
    ],
)
def test_wrong_settings(knobs, message):
    with pytest.raises(ValueError, match=message):
        ne_jax.upgd(**knobs)
