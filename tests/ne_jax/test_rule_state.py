"""Rules that remember: states through `plastic`, `chain` and `spaced`, in lanes, after a pause, and donated."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from oracles import primitives

import ne_jax
from ne_jax import transform

EVERY, UPDATES = 4, 15
SHAPES = {"a": {"kernel": (3, 2), "bias": (2,)}, "b": {"kernel": (2, 2)}}


def tree(leaf):
    return jax.tree.map(leaf, SHAPES, is_leaf=lambda shape: isinstance(shape, tuple))


def parameters(seed=0):
    rng = np.random.default_rng(seed)
    return tree(lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32))


def gradients_at(t, seed=0):
    rng = np.random.default_rng([seed, t])
    return tree(lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32))


def summing(path="a/kernel", name="summing"):
    """Adds up the gradients of a leaf in every update, and in a round puts the sum in the leaf's place."""

    def init(params, masks):
        return {"updates": jnp.zeros((), jnp.int32), "sum": jnp.zeros_like(params[path]), "first": params[path]}

    def observe(state, step, network):
        return state | {"updates": state["updates"] + 1, "sum": state["sum"] + network.gradients[path]}

    def evolve(state, key, step, network):
        noise = jax.random.normal(key, state["sum"].shape)
        fresh = jnp.ones(noise.shape, bool)
        return (
            state | {"sum": jnp.zeros_like(noise)},
            ne_jax.Evolved({path: state["sum"] + noise}, {}, {path: fresh}),
        )

    return ne_jax.Rule(evolve, init=init, observe=observe, name=name)


def halving():
    def evolve(key, step, network):
        kernel = network.params["a/kernel"]
        return ne_jax.Evolved({"a/kernel": kernel / 2}, {}, {"a/kernel": jnp.ones(kernel.shape, bool)})

    return ne_jax.Rule(ne_jax.stateless(evolve), name="halving")


RULES: dict[str, Any] = {
    "alone": summing,
    "chain": lambda: ne_jax.chain(summing(), halving(), ne_jax.regenerative_l2(0.125), summing("b/kernel", "other")),
    "spaced": lambda: ne_jax.chain(halving(), ne_jax.spaced(summing(), 2 * EVERY)),
}


def make(name):
    # A power of two, so that a compiler that joins a product and a sum into one operation rounds no differently.
    return ne_jax.plastic(optax.sgd(0.125), RULES[name](), EVERY, where=None)


def key_at(t, seed=0):
    return jax.random.fold_in(jax.random.key(seed), t)


@functools.cache
def history(name, seed=0):
    """(params, state) before each update and after the last."""
    tx, params = make(name), parameters(seed)
    update, state = jax.jit(tx.update), tx.init(params)
    steps = [(params, state)]
    for t in range(UPDATES):
        updates, state = update(gradients_at(t, seed), state, params, key=key_at(t, seed))
        params = optax.apply_updates(params, updates)
        steps.append((params, state))
    return steps


def equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("name", RULES)
def test_what_is_observed_comes_back_in_rounds(name):
    steps, due, total, state = history(name), 2 * EVERY if name == "spaced" else EVERY, 0, None
    for t in range(UPDATES):
        total = total + np.asarray(gradients_at(t)["a"]["kernel"])
        state = steps[t + 1][1].rule
        own = state if name == "alone" else state[0] if name == "chain" else state[1]
        assert int(own["updates"]) == t + 1
        equal(own["first"], steps[0][0]["a"]["kernel"])
        if t and t % due == 0:
            # The rule is the first of its chain, or the second of two.
            key = key_at(t) if name != "spaced" else jax.random.fold_in(key_at(t), 2**31 - 1)
            expected = total + np.asarray(jax.random.normal(key, (3, 2)))
            halved = expected / 2 if name == "chain" else expected
            np.testing.assert_allclose(steps[t + 1][0]["a"]["kernel"], halved, rtol=1e-5, atol=1e-6)
            total = 0
        np.testing.assert_allclose(own["sum"], total + np.zeros((3, 2)), rtol=1e-5, atol=1e-6)
    if name == "chain":
        assert state is not None and state[1] == () and int(state[3]["updates"]) == UPDATES
        equal(state[2]["a/bias"], steps[0][0]["a"]["bias"])  # what regenerative_l2 pulls to


@pytest.mark.parametrize("counter", [True, False], ids=["counter", "step"])
@pytest.mark.parametrize("name", RULES)
def test_a_lane_is_the_lane_alone_exactly(name, counter):
    tx, seeds = make(name), (0, 1, 2)

    def lanes(each):
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(each, seeds))

    def one(gradients, state, params, key, step):
        return tx.update(gradients, state, params, key=key, **({} if counter else {"step": step}))

    update = jax.jit(jax.vmap(one, in_axes=(0, 0, 0, 0, None)))
    params = lanes(parameters)
    state = jax.vmap(tx.init)(params)
    for t in range(UPDATES):
        keys = lanes(functools.partial(key_at, t))
        updates, state = update(lanes(functools.partial(gradients_at, t)), state, params, keys, jnp.int32(t))
        params = optax.apply_updates(params, updates)
        for lane, seed in enumerate(seeds):
            alone = history(name, seed)[t + 1]
            equal(jax.tree.map(lambda leaf, lane=lane: leaf[lane], (params, state)), alone)


@pytest.mark.parametrize("name", RULES)
def test_after_a_pause_it_goes_on_exactly(name):
    middle = 2 * EVERY + 1
    leaves, structure = jax.tree.flatten(history(name)[middle])
    params, state = jax.tree.unflatten(structure, [jnp.asarray(np.array(leaf)) for leaf in leaves])
    update = jax.jit(make(name).update, donate_argnums=1)
    for t in range(middle, UPDATES):
        updates, state = update(gradients_at(t), state, params, key=key_at(t))
        params = optax.apply_updates(params, updates)
    equal((params, state), history(name)[-1])


@pytest.mark.parametrize("name", RULES)
def test_a_new_state_can_be_donated_beside_the_parameters(name):
    tx = make(name)

    def update(params, state, gradients, key):
        updates, state = tx.update(gradients, state, params, key=key)
        return optax.apply_updates(params, updates), state

    params = parameters()
    after = jax.jit(update, donate_argnums=(0, 1))(params, tx.init(params), gradients_at(0), key_at(0))
    equal(after, history(name)[1])


def test_without_observe_activations_stay_in_the_round():
    def activity(params, batch):
        return {"a": batch @ params["a"]["kernel"]}

    def found(rule):
        tx, params = ne_jax.plastic(optax.adam(0.1), rule, EVERY, where=None), parameters()
        jaxpr = jax.make_jaxpr(lambda g, s, p: tx.update(g, s, p, batch=jnp.ones((5, 3))))(
            params, tx.init(params), params
        )
        return primitives(jaxpr.jaxpr)

    def evolve(key, step, network):
        assert network.activations is not None
        return ne_jax.Evolved({}, {}, {})

    rule = ne_jax.Rule(ne_jax.stateless(evolve), activity)
    observing = rule._replace(observe=lambda state, step, network: network.activations["a"].mean(), init=zero)
    assert ("dot_general", False) not in found(rule)
    assert ("dot_general", False) in found(observing) and ("dot_general", True) not in found(observing)
    assert ("cond", False) not in found(observing._replace(evolve=None))


def zero(params, masks):
    return jnp.zeros(())


def observed(rule, **settings):
    """What a rule sees in the second update, after which there is a round."""
    tx, params = ne_jax.plastic(optax.sgd(0.5), rule, 1, where=None, **settings), parameters()
    state = tx.init(params)
    return params, tx.update(gradients_at(0), state, params, step=jnp.int32(1), batch=jnp.ones(2))[1].rule


def test_a_rule_observes_moved_weights_this_updates_gradient_and_activations_before_it_acts():
    def observe(state, step, network):
        return (network.params["b/kernel"], network.gradients["b/kernel"], network.activations["x"], jnp.asarray(step))

    def evolve(state, key, step, network):
        return (*state, network.params["b/kernel"] - state[0]), ne_jax.Evolved({}, {}, {})

    rule = ne_jax.Rule(
        evolve,
        lambda params, batch: {"x": batch * params["b"]["kernel"][0]},
        init=lambda params, masks: (*[jnp.zeros((2, 2))] * 2, jnp.zeros(2), jnp.int32(0), jnp.zeros((2, 2))),
        observe=lambda state, step, network: (*observe(state, step, network), state[4]),
    )
    rule = rule._replace(evolve=lambda state, key, step, network: evolve(state[:4], key, step, network))
    params, (kernel, gradient, x, step, difference) = observed(rule)
    equal(gradient, gradients_at(0)["b"]["kernel"])
    np.testing.assert_allclose(kernel, params["b"]["kernel"] - 0.5 * gradient, rtol=1e-6)
    equal(x, params["b"]["kernel"][0])
    assert step == 1 and not difference.any()


def renewing(rule, every=2, updates=9):
    """Updates after which each leaf is said to have begun anew."""
    tx, params = ne_jax.plastic(optax.adam(0.1), rule, every, where=None), parameters()
    chained = optax.chain(optax.clip(1.0), tx)
    state, update = chained.init(params), jax.jit(optax.with_extra_args_support(chained).update)
    found = {path: [] for path in ne_jax.renewed(state)}
    for t in range(updates):
        updates_, state = update(gradients_at(t), state, params)
        for path, flag in ne_jax.renewed(state).items():
            assert flag.shape == () and flag.dtype == bool
            if flag:
                found[path].append(t)
                now = ne_jax.leaves_by_path(optax.apply_updates(params, updates_))[path]
                np.testing.assert_allclose(now, ANEW[path], rtol=1e-5, atol=1e-6)
        params = optax.apply_updates(params, updates_)
    return found


def initialise(key):
    return parameters(9)


ANEW = ne_jax.leaves_by_path(parameters(9))


def test_renewed_says_when_a_whole_leaf_began_anew():
    def last(path, leaf):
        return path.startswith("b/")

    every_round = [2, 4, 6, 8]
    assert renewing(ne_jax.reset(initialise)) == dict.fromkeys(("a/kernel", "a/bias", "b/kernel"), every_round)
    assert renewing(ne_jax.reset(initialise, where=last)) == {"b/kernel": every_round}
    assert renewing(ne_jax.spaced(ne_jax.reset(initialise, where=last), 4)) == {"b/kernel": [4, 8]}
    # Every round halves a kernel, which is no new beginning.
    mixed = ne_jax.chain(halving(), ne_jax.spaced(ne_jax.reset(initialise, where=last), 4))
    assert renewing(mixed) == {"b/kernel": [4, 8]}
    assert renewing(halving()) == {}
    whole = renewing(ne_jax.shrink_and_perturb(initialise, shrink=0.0, perturb=1.0))
    assert whole == dict.fromkeys(("a/kernel", "a/bias", "b/kernel"), every_round)
    assert ne_jax.renewed(optax.adam(1e-3).init(parameters())) == {}


def test_a_leaf_that_is_renewed_against_the_rules_word_is_an_error():
    def evolve(key, step, network):
        kernel = network.params["a/kernel"]
        flags = {"a/kernel": jnp.ones(kernel.shape, bool)}
        return ne_jax.Evolved({"a/kernel": kernel}, {}, flags, renewed={"a/kernel": jnp.ones((), bool)})

    tx, params = ne_jax.plastic(optax.sgd(0.1), ne_jax.Rule(ne_jax.stateless(evolve)), 1, where=None), parameters()
    with pytest.raises(ValueError, match=r"says that a/kernel began anew; let its `renews` choose it"):
        tx.update(gradients_at(0), tx.init(params), params)


def noisy(name):
    """To every update of a kernel adds noise times the updates so far; what is there already counts twice."""

    def adjust(state, key, step, network, updates):
        assert network.activations is None
        more = {"a/kernel": 2 * updates["a/kernel"] + state * jax.random.normal(key, (3, 2))}
        return state + 1, more

    return ne_jax.Rule(init=zero, adjust=adjust, name=name)


def test_adjusted_updates_have_the_last_word_each_rule_with_its_own_state_and_key():
    chain = ne_jax.chain(noisy("one"), ne_jax.regenerative_l2(0.25), noisy("other"))
    tx, params = ne_jax.plastic(optax.sgd(0.125), chain, EVERY, where=None), parameters()
    state, update = tx.init(params), jax.jit(tx.update)
    first = np.asarray(params["a"]["kernel"], np.float64)
    for t in range(UPDATES):
        old, gradient = params, gradients_at(t)
        updates, state = update(gradient, state, params, key=key_at(t))
        params = optax.apply_updates(params, updates)
        kernel = np.asarray(old["a"]["kernel"], np.float64)
        wanted = -0.125 * (np.asarray(gradient["a"]["kernel"]) + 0.5 * (kernel - first))
        for place in (0, 2):
            key = jax.random.fold_in(jax.random.fold_in(key_at(t), transform.ADJUST), place)
            wanted = 2 * wanted + t * np.asarray(jax.random.normal(key, (3, 2)))
        np.testing.assert_allclose(params["a"]["kernel"], kernel + wanted, rtol=1e-4, atol=1e-4)
        assert state.rule[0] == state.rule[2] == t + 1
    assert state.births is None  # no rounds, no births
