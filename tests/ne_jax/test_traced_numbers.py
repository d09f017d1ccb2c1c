"""Numbers that are traced: one program for several, with rounds that stay a branch and do what known numbers do."""

import functools

import jax
import jax.numpy as jnp
import optax
import tiny
from oracles import primitives

import ne_jax

TAUS = (0.2, 0.9)


def initialise(key):
    shapes = {"hidden_0": (3, 6), "head": (6, 2)}
    return {name: {"kernel": jax.random.normal(key, shape)} for name, shape in shapes.items()}


def activity(params, batch):
    return {"hidden_0": jax.nn.relu(batch @ params["hidden_0"]["kernel"])}


BATCH = jax.random.normal(jax.random.key(0), (8, 3)) - 0.5
PARAMS = initialise(jax.random.key(1))


def method(tau):
    return ne_jax.plastic(optax.sgd(0.1), ne_jax.redo(activity, initialise, tau=tau), 2)


def updated(state, tau, step):
    """Parameters after one update, which may be due for a round."""
    updates, _ = method(tau).update(PARAMS, state, PARAMS, step=step, batch=BATCH, key=jax.random.key(2))
    return optax.apply_updates(PARAMS, updates)


def test_rounds_with_traced_numbers_are_those_with_known_ones_and_stay_a_branch():
    begin = functools.partial(updated, method(TAUS[0]).init(PARAMS))
    rows = jax.vmap(begin)
    found = primitives(jax.make_jaxpr(rows)(jnp.array(TAUS), jnp.array([1, 2])).jaxpr)
    assert ("erf_inv", True) in found, "a round draws new weights"
    assert ("erf_inv", False) not in found
    rows, known = jax.jit(rows), [jax.jit(functools.partial(begin, tau)) for tau in TAUS]
    for steps in ([2, 2], [2, 1], [1, 1]):
        together = rows(jnp.array(TAUS), jnp.array(steps))
        for i, each in enumerate(known):
            tiny.equal(tiny.lane(together, i), each(jnp.array(steps[i])), exact=False)
    after = [[each(jnp.array(step))["hidden_0"]["kernel"] for step in (1, 2)] for each in known]
    few, many = (int(jnp.sum(rest != recycled)) for rest, recycled in after)
    assert (few, many) == (3, 9), "one unit of three weights begins anew, and three of them"
