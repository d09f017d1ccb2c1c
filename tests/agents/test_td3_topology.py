"""TD3 with optimisers that grow and prune: whatever the delay, targets have the topology of what they follow."""

import functools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_agents import QUICK, STATES, TD3, UPDATES, batches, now, pick, settings, td3

import ne_jax
from experiments.build.methods import density_schedule, network_settings

SEEDS = 2
CONFIG = replace(TD3, ema=0.9, tau=0.1)
# The delay and the updates per round. Rounds of the last one also come between the delayed updates.
TIMES = [(1, 5), (2, 6), (3, 6), (2, 5)]


def agent(delay, every):
    return td3(replace(CONFIG, policy_delay=delay), "ne", every=every)


@functools.cache
def fresh():
    """The delay has no part in how agents begin."""
    return QUICK(jax.vmap(agent(2, 6).init))(jax.random.split(jax.random.key(4), SEEDS))


@functools.cache
def seeds():
    """Batches [update, seed] and keys [update, seed]."""
    each = [batches(UPDATES, seed, STATES) for seed in range(SEEDS)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves, axis=1), *each)
    return stacked, jax.random.split(jax.random.key(5), (UPDATES, SEEDS))


@functools.cache
def path(delay, every):
    """The states of all seeds before the first update and after each."""
    batch, keys = seeds()
    update, states = QUICK(jax.vmap(agent(delay, every).update, (0, 0, 0, None))), [fresh()]
    for t in range(UPDATES):
        states.append(update(states[-1], pick(batch, t), keys[t], now(t))[0])
    return states


def masks_of(state, name) -> dict[str, np.ndarray]:
    return {key: np.asarray(mask) for key, mask in ne_jax.masks(getattr(state, name).opt_state).items()}


@pytest.mark.parametrize(
    ("delay", "every"), [TIMES[0], *(pytest.param(*each, marks=pytest.mark.slow) for each in TIMES[1:])]
)
def test_zeros_stay_in_everything_that_is_kept(delay, every):
    for number, state in enumerate(path(delay, every)):
        for name, target in (("critic", state.target_critic), ("actor", state.target_actor)):
            model = getattr(state, name)
            adam = model.opt_state.inner[0]
            trees = {"parameters": model.params, "first": adam.mu, "second": adam.nu, "target": target}
            if name == "actor":
                trees["average"] = state.average["actor"]
            masks = masks_of(state, name)
            assert len(masks) == {"critic": 4, "actor": 2}[name]
            for what, tree in trees.items():
                leaves = ne_jax.leaves_by_path(tree)
                for key, mask in masks.items():
                    assert not np.asarray(leaves[key])[~mask].any(), (number, name, what, key)


def test_weights_leave_in_rounds_between_the_delayed_updates():
    """Or the test above would have nothing to find."""
    before, after = (masks_of(path(2, 5)[number], "critic") for number in (5, 6))
    assert any((mask & ~after[key]).any() for key, mask in before.items())


@pytest.mark.parametrize(("delay", "every"), [TIMES[0], TIMES[2], pytest.param(*TIMES[1], marks=pytest.mark.slow)])
def test_layers_grow_on_schedule(delay, every):
    schedule: Any = density_schedule(network_settings(settings("ne", every), "actor"), UPDATES)
    for name in ("critic", "actor"):
        shapes = {key: mask.shape[1:] for key, mask in masks_of(fresh(), name).items()}
        rounds = jnp.arange(0, UPDATES, every)
        planned = jax.vmap(functools.partial(ne_jax.counts_at, schedule, shapes))(rounds)
        for number, state in enumerate(path(delay, every)):
            for key, mask in masks_of(state, name).items():
                # after n updates, the last had the number n - 1
                expected = planned[key][max(number - 1, 0) // every]
                np.testing.assert_array_equal(mask.sum(axis=(1, 2)), expected)


@pytest.mark.parametrize(("delay", "every"), TIMES)
def test_newborn_weights_reach_the_targets_and_the_average(delay, every):
    first, last = fresh(), path(delay, every)[-1]
    trees = {"critic": [last.target_critic], "actor": [last.target_actor, last.average["actor"]]}
    for name, copies in trees.items():
        for key, mask in masks_of(last, name).items():
            born = mask & ~masks_of(first, name)[key]
            for copy in copies:
                assert born.any() and (np.asarray(ne_jax.leaves_by_path(copy)[key])[born] != 0).mean() > 0.9


def test_a_seed_among_others_equals_the_seed_alone():
    batch, keys = seeds()
    update, lanes = QUICK(agent(2, 6).update), path(2, 6)[20]
    for seed in range(SEEDS):
        state = pick(fresh(), seed)
        for t in range(20):
            state, _ = update(state, pick(batch, (t, seed)), keys[t, seed], now(t))
        for name in ("critic", "actor"):
            jax.tree.map(np.testing.assert_array_equal, masks_of(state, name), masks_of(pick(lanes, seed), name))
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-3, atol=2e-5), state, pick(lanes, seed))
    masks = masks_of(lanes, "critic")
    assert any((mask[0] != mask[1]).any() for mask in masks.values())
