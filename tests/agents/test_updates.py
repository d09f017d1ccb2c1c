"""What the agents share: optimisers, targets, schedules and exploration noise."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ne_jax
from agents.types import Clock
from agents.updates import (
    Optimiser,
    TrainState,
    apply_gradients,
    clipped_double_q_target,
    create_train_state,
    exploration_action,
    linear_schedule,
    make_network,
    polyak_update,
    truncated_normal,
)


def test_twin_target_takes_the_lower_twin_and_no_gradient():
    reward, discount = jnp.array([1.0, 2.0, 3.0]), jnp.array([0.9, 0.0, 0.5])
    twins = jnp.array([[4.0, 5.0, -6.0], [3.0, 7.0, 8.0]])
    np.testing.assert_allclose(clipped_double_q_target(reward, discount, twins), [1 + 0.9 * 3, 2, 3 - 0.5 * 6])
    gradients = jax.grad(lambda *args: clipped_double_q_target(*args).sum(), argnums=(0, 1, 2))(reward, discount, twins)
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("step", [0, 1, 2_000, 125_000, 499_999, 500_000, 500_001, 10_000_000])
def test_linear_schedule_is_the_published_formula(step):
    mix = np.clip(step / 500_000.0, 0.0, 1.0)  # utils.schedule("linear(1.0,0.1,500000)", step) of DrQ-v2
    expected = (1.0 - mix) * 1.0 + mix * 0.1
    assert linear_schedule(1.0, 0.1, 500_000, step) == pytest.approx(expected, rel=1e-6)
    assert jax.jit(lambda s: linear_schedule(1.0, 0.1, 500_000, s))(np.int32(step)) == pytest.approx(expected, rel=1e-6)


def test_noise_is_clipped_at_its_bound():
    mean = jnp.linspace(-0.6, 0.6, 5000)
    for clip, std in ((0.3, 1.0), (0.1, 2.0)):
        noise = truncated_normal(jax.random.key(0), mean, jnp.float32(std), clip) - mean
        assert jnp.abs(noise).max() == pytest.approx(clip, abs=1e-6)
        assert jnp.abs(noise.mean()) < 0.03 and (jnp.abs(noise) < 0.99 * clip).mean() == pytest.approx(
            mass(clip / std), abs=0.03
        )


def mass(bound):
    """Share of a standard normal within +-0.99 * bound."""
    return np.mean(np.abs(np.random.default_rng(0).normal(size=100_000)) < 0.99 * bound)


def test_noise_without_clip_has_the_given_deviation():
    noise = truncated_normal(jax.random.key(1), jnp.zeros((5000, 2)), jnp.float32(0.2))
    assert noise.std() == pytest.approx(0.2, rel=0.05) and noise.mean() == pytest.approx(0, abs=0.01)
    assert jnp.abs(noise).max() > 0.5


def test_actions_stay_inside_the_bounds():
    mean = jnp.tile(jnp.array([-1.0, 0.0, 1.0]), (1000, 1))
    for clip in (0.3, None):
        action = truncated_normal(jax.random.key(2), mean, jnp.float32(1.0), clip)
        assert jnp.abs(action).max() == pytest.approx(1 - 1e-6, abs=1e-7)
        assert (jnp.abs(action) == jnp.float32(1 - 1e-6)).mean() > 0.2


def test_gradient_passes_straight_through_the_bound():
    mean = jnp.array([-1.0, -0.99, 0.0, 0.5, 0.99, 1.0])
    gradient = jax.grad(lambda m: truncated_normal(jax.random.key(3), m, jnp.float32(1.0), 0.3).sum())(mean)
    np.testing.assert_array_equal(gradient, 1)


def test_without_noise_the_action_is_the_mean():
    mean = jnp.linspace(-0.9, 0.9, 7)
    np.testing.assert_allclose(truncated_normal(jax.random.key(0), mean, jnp.float32(0), 0.3), mean, atol=1e-7)


@pytest.mark.parametrize("random", [True, jnp.array(True)])
def test_exploring_at_random_is_uniform_whatever_the_policy_says(random):
    keys = jax.random.split(jax.random.key(0), 5000)
    actions = jax.vmap(lambda key: exploration_action(key, jnp.array([0.9, -0.9]), 0.1, random))(keys)
    for column in np.asarray(actions).T:
        assert np.abs(np.histogram(column, 10, (-1, 1))[0] - 500).max() < 100
    assert abs(np.corrcoef(np.asarray(actions).T)[0, 1]) < 0.06


def test_exploring_is_the_policy_with_noise_inside_the_bounds():
    keys, mean = jax.random.split(jax.random.key(0), 5000), jnp.array([0.2, 0.95])
    actions = np.asarray(jax.vmap(lambda key: exploration_action(key, mean, 0.1, False))(keys))
    assert actions[:, 0].mean() == pytest.approx(0.2, abs=0.006) and actions[:, 0].std() == pytest.approx(0.1, rel=0.05)
    assert actions[:, 1].max() == pytest.approx(1, abs=2e-6) and actions.max() <= 1
    at_bound = (np.random.default_rng(0).normal(size=100_000) > 0.5).mean()
    assert (actions[:, 1] > 1 - 2e-6).mean() == pytest.approx(at_bound, abs=0.03)
    np.testing.assert_allclose(exploration_action(keys[0], mean, 0.0, False), mean, atol=1e-7)


def sparse_model():
    params = {"hidden": {"kernel": jnp.array([[1.0, 0.0], [2.0, 3.0]]), "bias": jnp.array([0.5, -0.5])}}
    tx = ne_jax.plastic(optax.sgd(0.1), ne_jax.static(), every=1)
    return TrainState(params, tx.init(params)), Optimiser(tx)


def test_follow_is_an_exponential_average():
    model = TrainState({"w": jnp.array([1.0, -2.0])}, optax.adam(1e-3).init({"w": jnp.zeros(2)}))
    target = {"w": jnp.array([0.5, 4.0])}
    np.testing.assert_allclose(polyak_update(target, model, 0.1)["w"], [0.9 * 0.5 + 0.1, 0.9 * 4 - 0.2], rtol=1e-6)
    np.testing.assert_allclose(polyak_update(target, model, 1.0)["w"], model.params["w"])


def test_follow_holds_at_zero_what_the_optimiser_does():
    model, _ = sparse_model()
    target = {"hidden": {"kernel": jnp.full((2, 2), 10.0), "bias": jnp.zeros(2)}}
    moved = polyak_update(target, model, 0.1)["hidden"]
    np.testing.assert_allclose(moved["kernel"], [[9.1, 0.0], [9.2, 9.3]], rtol=1e-6)
    np.testing.assert_allclose(moved["bias"], [0.05, -0.05], rtol=1e-6)


def test_descend_takes_one_step_of_the_optimiser():
    model, optimiser = sparse_model()
    gradients = jax.tree.map(lambda p: jnp.ones_like(p), model.params)
    after = apply_gradients(optimiser, model, gradients, batch=(), key=jax.random.key(0), step=Clock(0, 0))
    np.testing.assert_allclose(after.params["hidden"]["kernel"], [[0.9, 0.0], [1.9, 2.9]], rtol=1e-6)
    np.testing.assert_allclose(after.params["hidden"]["bias"], [0.4, -0.6], rtol=1e-6)
    assert after.opt_state.count == model.opt_state.count + 1


def test_descend_tells_the_optimiser_batch_key_and_updates_made():
    def update(updates, state, params=None, *, batch, key, step):
        return jax.tree.map(lambda u: -u * batch[0].sum() * step, updates), (params, key)

    tx = optax.GradientTransformationExtraArgs(lambda params: (params, jax.random.key(0)), update)
    model = create_train_state(Optimiser(tx), jax.random.key(0), {"w": jnp.array([1.0])})
    batch, key = (jnp.array([2.0, 3.0]),), jax.random.key(7)
    after = apply_gradients(
        Optimiser(tx), model, {"w": jnp.array([0.5])}, batch=batch, key=key, step=Clock(env=100, update=4)
    )
    assert after.params["w"] == 1 - 0.5 * 5 * 4
    assert after.opt_state[0] == model.params and after.opt_state[1] == key


def test_begin_prepares_the_parameters_before_the_optimiser_sees_them():
    tx = optax.GradientTransformation(lambda params: params, lambda updates, state, params=None: (updates, state))
    optimiser = Optimiser(tx, lambda key, params: jax.tree.map(lambda p: p * jax.random.uniform(key), params))
    model = create_train_state(optimiser, jax.random.key(5), {"w": jnp.array([2.0])})
    assert model.params["w"] == model.opt_state["w"] == 2 * jax.random.uniform(jax.random.key(5))
    assert create_train_state(Optimiser(tx), jax.random.key(5), {"w": jnp.array([2.0])}).params["w"] == 2


def test_a_gradient_that_is_not_finite_freezes_the_network_from_then_on():
    model, optimiser = sparse_model()
    model = create_train_state(optimiser, jax.random.key(0), model.params)
    step = partial(apply_gradients, optimiser, batch=(), key=jax.random.key(0), step=Clock(0, 0))
    good = jax.tree.map(jnp.ones_like, model.params)
    learned = step(model, good)
    assert not learned.frozen and (learned.params["hidden"]["bias"] != model.params["hidden"]["bias"]).all()
    for value in (jnp.nan, jnp.inf):
        bad = {"hidden": good["hidden"] | {"bias": jnp.array([1.0, value])}}
        frozen = step(learned, bad)
        for after in (frozen, step(frozen, good)):
            assert after.frozen
            jax.tree.map(np.testing.assert_array_equal, after.params, learned.params)
    sgd = Optimiser(optax.sgd(0.1))
    alone = create_train_state(sgd, jax.random.key(0), {"w": jnp.ones((2, 2))})
    bad = {"w": jnp.full((2, 2), jnp.nan)}
    kept = apply_gradients(sgd, alone, bad, batch=(), key=jax.random.key(0), step=Clock(0, 0))
    assert kept.frozen and (kept.params["w"] == 1).all(), "a network without biases"


def test_a_network_that_is_made_inside_a_program_can_be_drawn_in_a_branch():
    """As agents are whose settings are traced: what `vmap` batches by a rule of its own closes over nothing of it."""
    module = nn.Dense(2)

    def program(key, due):
        drawn = []

        def make_optimiser(inner, name, module, initialise, plastic):
            drawn.append(initialise)
            return Optimiser(inner)

        make_network("actor", module, (jnp.zeros((1, 3)),), optax.sgd(0.1), make_optimiser, plastic=True)
        return jax.lax.cond(due, lambda key: drawn[0](key)["kernel"], lambda key: jnp.zeros((3, 2)), key)

    keys = jax.random.split(jax.random.key(0), 2)
    found = jax.jit(jax.vmap(program, (0, None)))(keys, jnp.array(True))
    wanted = [jax.tree.leaves(module.init(key, jnp.zeros((1, 3))))[1] for key in keys]
    np.testing.assert_allclose(found, jnp.stack(wanted), rtol=1e-6)
