"""Rounds that a rule asks for at once: in their lane alone, in chains, between updates that are gathered."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from oracles import primitives

import ne_jax

EVERY, UPDATES = 4, 12


def asking(limit, name="asking"):
    """Adds up the gradients of the only leaf; when the sum exceeds `limit`, it is urgent. A round puts the gradient
    that it sees in the leaf's place."""

    def evolve(state, key, step, network):
        new = network.gradients["kernel"]
        return jnp.zeros(()), ne_jax.Evolved({"kernel": new}, {}, {"kernel": jnp.ones(new.shape, bool)})

    return ne_jax.Rule(
        evolve,
        init=lambda params, masks: jnp.zeros(()),
        observe=lambda state, step, network: state + network.gradients["kernel"][0, 0],
        urgent=lambda state: state > limit,
        name=name,
    )


def train(rule, gradients, accumulate=1, step=True):
    """The leaf after each update of plain gradient descent that goes nowhere."""
    tx = ne_jax.plastic(optax.sgd(0.0), rule, EVERY, where=None, accumulate=accumulate)

    def update(params, state, gradient, t):
        updates, state = tx.update({"kernel": gradient}, state, params, **({"step": t} if step else {}))
        return optax.apply_updates(params, updates), state

    params = {"kernel": jnp.full((1, 2), -1.0)}
    state, seen, run = tx.init(params), [], jax.jit(update)
    for t, gradient in enumerate(gradients):
        params, state = run(params, state, jnp.full((1, 2), gradient), t)
        seen.append(float(params["kernel"][0, 0]))
    return seen


def test_a_round_comes_at_once_and_the_others_at_their_time():
    gradients = np.ones(UPDATES)
    gradients[6] = 9.0
    # Rounds at 4 and 8, where the sum begins anew, and at 6, where it is 1 + 9.
    assert train(asking(8.0), gradients) == [-1] * 4 + [1, 1, 9, 9, 1, 1, 1, 1]
    assert train(asking(8.0), gradients, step=False) == train(asking(8.0), gradients)


def test_an_urgent_round_between_gathered_gradients_sees_the_newest():
    gradients = np.arange(1.0, 1 + UPDATES)
    gradients[5] = 100.0
    seen = train(asking(90.0), gradients, accumulate=2)
    assert seen[4] == (4 + 5) / 2 and seen[5] == 100.0 and seen[8] == (8 + 9) / 2


def test_in_a_chain_what_is_spaced_keeps_its_time():
    gradients = np.ones(UPDATES)
    gradients[6] = 9.0

    def doubling(key, step, network):
        return ne_jax.Evolved({"kernel": 2 * network.params["kernel"]}, {}, {"kernel": jnp.ones((1, 2), bool)})

    rule = ne_jax.Rule(ne_jax.stateless(doubling), name="doubling")
    assert train(ne_jax.chain(asking(8.0), rule), gradients)[4:9] == [2, 2, 18, 18, 2]
    spaced = ne_jax.chain(asking(8.0), ne_jax.spaced(rule, 2 * EVERY))
    assert train(spaced, gradients)[4:9] == [1, 1, 9, 9, 2]
    # Spaced itself, it is not kept from what is urgent.
    spaced = ne_jax.chain(rule, ne_jax.spaced(asking(8.0), 2 * EVERY))
    assert train(spaced, gradients)[4:9] == [-2, -2, 9, 9, 1]


@pytest.mark.parametrize("which", [(), (1,), (0, 2)])
def test_lanes_are_urgent_on_their_own_and_it_stays_a_branch(which):
    tx = ne_jax.plastic(optax.sgd(0.0), asking(8.0), EVERY, where=None)

    def update(params, state, gradient):
        updates, state = tx.update({"kernel": gradient}, state, params, step=2)
        return optax.apply_updates(params, updates), state

    params = {"kernel": jnp.full((3, 1, 2), -1.0)}
    state = jax.vmap(tx.init)(params)
    gradient = jnp.asarray([[[9.0 if lane in which else 1.0] * 2] for lane in range(3)])
    together = jax.vmap(update)
    new, state = jax.jit(together)(params, state, gradient)
    expected = [9.0 if lane in which else -1.0 for lane in range(3)]
    np.testing.assert_array_equal(new["kernel"][:, 0, 0], expected)
    np.testing.assert_array_equal(state.rule, [0.0 if lane in which else 1.0 for lane in range(3)])
    assert ("cond", False) in primitives(jax.make_jaxpr(together)(params, state, gradient).jaxpr)
