"""Where a rule starts networks anew, targets follow at once; in all other updates they follow slowly."""

import jax
import numpy as np
import pytest
import small_agents
from small_agents import ACTIONS, OBS, QUICK, STATES, batches, now

import ne_jax
from agents.sac import SACSettings, make_sac

SAC = SACSettings(learning_rate=small_agents.RATE, hidden=(16, 12), random_steps=10)


def equal(a, b):
    same = jax.tree.map(lambda x, y: bool((np.asarray(x) == np.asarray(y)).all()), a, b)
    return jax.tree.leaves(same)


def agent_of(algorithm, method, every):
    config = small_agents.settings(method)
    config.plasticity.reset_every = every
    optimisers = small_agents.make_optimisers(config, small_agents.UPDATES)
    if algorithm == "drq":
        return small_agents.make_drq(small_agents.CONFIG, small_agents.VISION, OBS, ACTIONS, optimisers)
    if algorithm == "sac":
        return make_sac(SAC, None, STATES, ACTIONS, optimisers)
    return small_agents.make_td3(small_agents.TD3, None, STATES, ACTIONS, optimisers)


@pytest.mark.parametrize("method", ["reset", pytest.param("shrink_and_perturb", marks=pytest.mark.slow)])
@pytest.mark.parametrize("algorithm", ["td3", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sac", "drq"))])
def test_targets_of_renewed_networks_are_copies(algorithm, method):
    every = 4
    agent = agent_of(algorithm, method, every)
    update, state = QUICK(agent.update), QUICK(agent.init)(jax.random.key(0))
    data = batches(2 * every + 1, shape=OBS if algorithm == "drq" else STATES)
    for number in range(2 * every + 1):
        batch = jax.tree.map(lambda leaf, i=number: leaf[i], data)
        before = state.critic.params
        state, _ = update(state, batch, jax.random.key(number), now(number))
        anew = number > 0 and number % every == 0
        flags = [bool(flag) for flag in ne_jax.renewed(state.critic.opt_state).values()]
        assert flags and all(flag == anew for flag in flags)
        same = equal(state.target_critic, state.critic.params)
        assert all(same) if anew else not all(same)
        if anew:  # or there would have been nothing to follow
            assert not any(equal(jax.tree.map(lambda leaf: leaf[..., 0], before), _first(state.critic.params)))
        if algorithm == "td3" and number % 2 == 0:  # the actor's updates
            same = equal(state.target_actor, state.actor.params)
            assert all(same) if anew else not all(same)


def _first(params):
    return jax.tree.map(lambda leaf: leaf[..., 0], params)


def test_last_layers_alone_follow_when_only_they_begin_anew():
    config = small_agents.settings("reset")
    config.plasticity.update(dict(reset_every=4, reset_layers="last"))
    optimisers = small_agents.make_optimisers(config, small_agents.UPDATES)
    agent = small_agents.make_td3(small_agents.TD3, None, STATES, small_agents.ACTIONS, optimisers)
    update, state = QUICK(agent.update), QUICK(agent.init)(jax.random.key(0))
    data = batches(5, shape=STATES)
    for number in range(5):
        batch = jax.tree.map(lambda leaf, i=number: leaf[i], data)
        state, _ = update(state, batch, jax.random.key(number), now(number))
    target, params = (ne_jax.leaves_by_path(each) for each in (state.target_critic, state.critic.params))
    assert set(ne_jax.renewed(state.critic.opt_state)) == {path for path in params if "head" in path.split("/")}
    for path in params:
        assert (np.asarray(target[path]) == np.asarray(params[path])).all() == ("head" in path.split("/")), path
