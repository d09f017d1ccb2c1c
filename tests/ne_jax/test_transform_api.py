"""`plastic` as an optax citizen: composition, extra arguments, errors."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ne_jax

KEY = jax.random.key(0)
KERNEL = jnp.array([[1.0, 0.0], [0.0, -2.0], [3.0, 0.0]])
MASK = np.asarray(KERNEL) != 0
PARAMS = {"a": {"kernel": KERNEL, "bias": jnp.ones(2)}}
ONES = jax.tree.map(jnp.ones_like, PARAMS)
STATIC = ne_jax.static()


def by_value():
    """An optimiser with an extra argument of its own."""

    def update(updates: Any, state: Any, params: Any = None, *, value: Any, **extra: Any) -> Any:
        return jax.tree.map(lambda u, p: u * value + 0 * p, updates, params), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def test_static_and_dense_is_the_inner_optimiser():
    params = jax.tree.map(lambda p: p + 0.5, PARAMS)
    plain, ours = optax.adamw(1e-2), ne_jax.plastic(optax.adamw(1e-2), STATIC, every=1)
    state, state2, params2 = plain.init(params), ours.init(params), params
    for t in range(4):
        gradients = jax.tree.map(lambda p, t=t: jnp.cos(p + t), params)
        updates, state = plain.update(gradients, state, params)
        updates2, state2 = ours.update(gradients, state2, params2)
        jax.tree.map(np.testing.assert_array_equal, (updates, state), (updates2, state2.inner))
        params, params2 = optax.apply_updates(params, updates), optax.apply_updates(params2, updates2)
    assert int(state2.count) == 4


def test_extra_arguments_reach_the_inner_optimiser():
    tx = ne_jax.plastic(by_value(), STATIC, every=1)
    updates, _ = tx.update(ONES, tx.init(PARAMS), PARAMS, value=3.0, step=jnp.int32(0), batch=1, key=KEY)
    np.testing.assert_array_equal(updates["a"]["kernel"], 3.0 * MASK)
    np.testing.assert_array_equal(updates["a"]["bias"], [3.0, 3.0])


def test_plain_optimisers_ignore_extra_arguments():
    tx = ne_jax.plastic(optax.sgd(1.0), STATIC, every=1)
    updates, _ = tx.update(ONES, tx.init(PARAMS), PARAMS, value=3.0)
    np.testing.assert_array_equal(updates["a"]["kernel"], -1.0 * MASK)


def reset_bias(key, step, network):
    """A rule that changes one leaf and leaves the others out."""
    return ne_jax.Evolved({"a/bias": jnp.full(2, 7.0)}, {}, {"a/bias": jnp.array([True, False])})


def test_a_rule_may_change_one_leaf():
    tx = ne_jax.plastic(optax.adam(0.1), ne_jax.Rule(ne_jax.stateless(reset_bias)), every=2)
    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(3):
        assert params["a"]["bias"][0] <= 1
        updates, state = tx.update(ONES, state, params)
        params = optax.apply_updates(params, updates)
    mu = state.inner[0].mu["a"]
    assert params["a"]["bias"][0] == 7 and params["a"]["bias"][1] < 1
    assert mu["bias"][0] == 0 and mu["bias"][1] > 0.2
    np.testing.assert_array_equal(np.asarray(mu["kernel"]) > 0.2, MASK)
    np.testing.assert_array_equal(state.masks["a/kernel"], MASK)


@pytest.mark.parametrize("explicit", [True, False])
def test_rounds_come_after_every_updates(explicit):
    seen = []

    def evolve(key, step, network):
        jax.debug.callback(lambda s: seen.append(int(s)), step)
        return ne_jax.Evolved({}, {}, {})

    tx = ne_jax.plastic(optax.sgd(0.1), ne_jax.Rule(ne_jax.stateless(evolve)), every=3)
    update = jax.jit(lambda s, t: tx.update(ONES, s, PARAMS, **({"step": t} if explicit else {}))[1])
    state = tx.init(PARAMS)
    for t in range(11):
        state = update(state, t)
    jax.effects_barrier()
    assert seen == [3, 6, 9]


def test_a_rule_sees_dense_gradients_and_moved_weights():
    seen = {}

    def evolve(key, step, network):
        jax.debug.callback(lambda **values: seen.update(values), **network._asdict(), step=step)
        return ne_jax.Evolved({}, {}, {})

    tx = ne_jax.plastic(
        optax.sgd(0.25), ne_jax.Rule(ne_jax.stateless(evolve), lambda params, batch: {"a": batch}), every=1
    )
    tx.update(ONES, tx.init(PARAMS), PARAMS, step=jnp.int32(5), batch=jnp.arange(4.0))
    jax.effects_barrier()
    np.testing.assert_array_equal(seen["gradients"]["a/kernel"], np.ones((3, 2)))
    np.testing.assert_array_equal(seen["params"]["a/kernel"], np.asarray(KERNEL) - 0.25 * MASK)
    np.testing.assert_array_equal(seen["activations"]["a"], np.arange(4.0))
    np.testing.assert_array_equal(seen["masks"]["a/kernel"], MASK)
    assert seen["step"] == 5


def plastic_adam():
    return ne_jax.plastic(optax.adam(0.1), ne_jax.neuroplastic(ne_jax.constant(0.5)), every=2)


TWO = {"net": PARAMS, "rest": {"b": {"kernel": jnp.ones((2, 2))}}}
WRAPPED = {
    "bare": (plastic_adam, PARAMS, "a/kernel"),
    "chain": (lambda: optax.chain(optax.clip(1.0), plastic_adam(), optax.scale(0.5)), PARAMS, "a/kernel"),
    "multi": (
        lambda: optax.multi_transform({"p": plastic_adam(), "d": optax.adam(0.1)}, {"net": "p", "rest": "d"}),
        TWO,
        "net/a/kernel",
    ),
    "masked": (lambda: optax.masked(plastic_adam(), {"net": True, "rest": False}), TWO, "net/a/kernel"),
}


@pytest.mark.parametrize("wrap, params, path", WRAPPED.values(), ids=WRAPPED)
def test_masks_through_wrappers(wrap, params, path):
    tx = optax.with_extra_args_support(wrap())
    state = tx.init(params)
    updates, state = tx.update(jax.tree.map(jnp.ones_like, params), state, params, step=jnp.int32(1), key=KEY)
    found = ne_jax.masks(state)
    assert list(found) == [path]
    np.testing.assert_array_equal(found[path], MASK)
    np.testing.assert_array_equal(np.asarray(ne_jax.leaves_by_path(updates)[path]) != 0, MASK)
    target = ne_jax.apply(found, jax.tree.map(lambda p: p + 5, params))
    np.testing.assert_array_equal(ne_jax.leaves_by_path(target)[path], (np.asarray(KERNEL) + 5) * MASK)


def test_masks_of_two_networks():
    one = ne_jax.plastic(optax.adam(0.1), STATIC, every=2)
    tx = optax.multi_transform({"x": one, "y": one}, {"net": "x", "rest": "y"})
    assert sorted(ne_jax.masks(tx.init(TWO))) == ["net/a/kernel", "rest/b/kernel"]


def test_no_masks_without_plastic():
    assert ne_jax.masks(optax.chain(optax.clip(1.0), optax.adam(1e-3)).init(PARAMS)) == {}


def test_missing_params():
    tx = plastic_adam()
    with pytest.raises(ValueError, match="needs the parameters"):
        tx.update(ONES, tx.init(PARAMS))


def test_missing_batch():
    rule = ne_jax.neuroplastic(ne_jax.constant(0.5), activity=lambda params, batch: {"a": batch})
    tx = ne_jax.plastic(optax.adam(0.1), rule, every=2)
    with pytest.raises(ValueError, match="looks at activations"):
        tx.update(ONES, tx.init(PARAMS), PARAMS)


def test_wrong_settings():
    for every in (0, -1):
        with pytest.raises(ValueError, match="`every` must be a positive"):
            ne_jax.plastic(optax.adam(0.1), STATIC, every=every)
    tx = ne_jax.plastic(optax.adam(0.1), STATIC, every=1, where=ne_jax.kernels_under("b"))
    with pytest.raises(ValueError, match="chooses no leaf"):
        tx.init(PARAMS)
    with pytest.raises(ValueError, match="a/kernel is zero throughout"):
        plastic_adam().init(jax.tree.map(jnp.zeros_like, PARAMS))


def grow_one(key, step, network):
    """A round that removes a weight, bears another and leaves the rest."""
    kernel, mask = network.params["a/kernel"], network.masks["a/kernel"]
    fresh = jnp.zeros(mask.shape, bool).at[0, 0].set(True).at[0, 1].set(True)
    mask = mask.at[0, 0].set(False).at[0, 1].set(True)
    return ne_jax.Evolved({"a/kernel": jnp.where(fresh, 0.5 * mask, kernel)}, {"a/kernel": mask}, {"a/kernel": fresh})


def test_what_changed_goes_back_to_the_optimisers_own_initial_value():
    tx = ne_jax.plastic(
        optax.adagrad(0.1, initial_accumulator_value=0.25), ne_jax.Rule(ne_jax.stateless(grow_one)), every=1
    )
    state, params = tx.init(PARAMS), PARAMS
    for step in range(2):  # the round comes with the second update
        updates, state = tx.update(ONES, state, params, step=jnp.int32(step), key=KEY)
        params = optax.apply_updates(params, updates)
    kept = np.asarray(jax.tree.leaves(state.inner)[1])
    np.testing.assert_array_equal(params["a"]["kernel"][0], [0.0, 0.5])
    np.testing.assert_array_equal(kept[0], [0.25, 0.25])
    assert kept[1, 1] == 2.25 and kept[2, 0] == 2.25


def test_factored_optimiser_state_is_an_error_at_init():
    params = {"kernel": jnp.ones((256, 256))}
    with pytest.raises(ValueError, match="one with a value per weight"):
        ne_jax.plastic(optax.adafactor(1e-3), STATIC, every=1).init(params)


def test_an_adjusted_weight_keeps_its_optimiser_state():
    def lift(key, step, network):
        bias = network.params["a/bias"]
        return ne_jax.Evolved({"a/bias": bias + 3}, {}, {}, adjusted={"a/bias": jnp.array([True, False])})

    def after(rule):
        tx = ne_jax.plastic(optax.adam(0.1), rule, every=1)
        updates, state = tx.update(ONES, tx.init(PARAMS), PARAMS, step=jnp.int32(1), key=KEY)
        return optax.apply_updates(PARAMS, updates), state.inner

    (lifted, state), (plain, plain_state) = after(ne_jax.Rule(ne_jax.stateless(lift))), after(STATIC)
    np.testing.assert_allclose(lifted["a"]["bias"], plain["a"]["bias"] + np.array([3.0, 0.0]), rtol=1e-6)
    np.testing.assert_array_equal(lifted["a"]["kernel"], plain["a"]["kernel"])
    jax.tree.map(np.testing.assert_array_equal, state, plain_state)
