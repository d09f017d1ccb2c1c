"""The gradients that are measured are those that an update descends, of the networks as they are."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import optax
import pytest
from small_agents import ACTIONS, CONFIG, OBS, QUICK, STATES, TD3, VISION, batches, drq, now, pick, td3

from agents.drq import make_drq
from agents.td3 import make_td3
from agents.updates import Optimiser, train_states

STILL = replace(VISION, shift_pad=0)
KINDS = {
    "td3": lambda make: make_td3(replace(TD3, policy_delay=1, smoothing_std=0.0), None, STATES, ACTIONS, make),
    "td3 from pixels": lambda make: make_td3(
        replace(TD3, policy_delay=1, smoothing_std=0.0), STILL, OBS, ACTIONS, make
    ),
    "drq": lambda make: make_drq(replace(CONFIG, std_initial=0.0, std_final=0.0), STILL, OBS, ACTIONS, make),
}


@pytest.mark.parametrize(
    "kind",
    [
        kind if kind == "td3" else pytest.param(kind, marks=pytest.mark.slow)
        for kind in ("td3", "drq", "td3 from pixels")
    ],
)
def test_gradients_are_what_an_update_descends(kind):
    """Without noise, a step of gradient descent at rate 1 is the gradient; the actor climbs a critic that stands."""
    batch = pick(batches(1, shape=STATES if kind == "td3" else OBS), 0)
    for moving in ("critic", "actor"):

        def optimiser(inner, name, network, initialise, plastic, moving=moving):
            return Optimiser(optax.sgd(1.0 if (name == "actor") == (moving == "actor") else 0.0))

        agent = KINDS[kind](optimiser)
        state: Any = QUICK(agent.init)(jax.random.key(1))
        gradients = QUICK(agent.gradients)(state, batch, jax.random.key(2), now(0))
        after, _ = QUICK(agent.update)(state, batch, jax.random.key(3), now(0))
        assert set(gradients) == set(train_states(state))
        for name, model in train_states(state).items():
            moved = jax.tree.map(lambda old, new: old - new, model.params, train_states(after)[name].params)
            if (name == "actor") == (moving == "actor"):
                jax.tree.map(
                    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), moved, gradients[name]
                )
                assert optax.tree.norm(moved) > 1e-3
            else:
                assert optax.tree.norm(moved) == 0


@pytest.mark.parametrize("kind", ["td3", "drq"])
def test_gradients_are_those_of_a_noisy_loss(kind):
    """The key decides the noise, and nothing else does."""
    batch = pick(batches(1, shape=STATES if kind == "td3" else OBS), 0)
    agent = td3() if kind == "td3" else drq()
    state: Any = QUICK(agent.init)(jax.random.key(1))
    gradients: Any = QUICK(agent.gradients)
    one, again, other = (gradients(state, batch, jax.random.key(key), now(0)) for key in (2, 2, 3))
    jax.tree.map(np.testing.assert_array_equal, one, again)
    assert optax.tree.norm(optax.tree.sub(one["critic"], other["critic"])) > 1e-6
