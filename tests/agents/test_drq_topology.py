"""DrQ-v2 with optimisers that grow and prune: the agent's own code knows nothing of them."""

import functools
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_agents import EVERY, QUICK, UPDATES, batches, drq, now, operations, pick, settings, start

import agents.drq
import agents.sac
import agents.td3
import ne_jax
from experiments.build.methods import density_schedule, network_settings
from experiments.train.seeds import over_seeds

SPARSE = {
    "actor": {"policy/hidden_0", "policy/hidden_1"},
    "critic": {"q1/hidden_0", "q1/hidden_1", "q2/hidden_0", "q2/hidden_1"},
}
SEEDS = 2


@functools.cache
def seeds():
    """Fresh states, batches [update, seed] and keys [update, seed]."""
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(start("ne", seed) for seed in range(SEEDS)))
    each = [batches(UPDATES, seed) for seed in range(SEEDS)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves, axis=1), *each)
    return states, stacked, jax.random.split(jax.random.key(5), (UPDATES, SEEDS))


@functools.cache
def alone(seed):
    """The states of one seed before its first update and after each."""
    states, batch, keys = seeds()
    path = [pick(states, seed)]
    for t in range(UPDATES):
        state, _ = solo_update()(path[-1], pick(batch, (t, seed)), keys[t, seed], now(t))
        path.append(state)
    return path


@functools.cache
def solo_update():
    return QUICK(drq(method="ne").update)


def masks_of(state, name):
    return ne_jax.masks(getattr(state, name).opt_state)


@pytest.mark.parametrize("module", [agents.drq, agents.sac, agents.td3])
def test_agent_does_not_know_of_its_topology(module):
    source = pathlib.Path(module.__file__).read_text()
    assert not re.findall(r".*(?:grow|prun|mask|spars|plastic).*", source, re.IGNORECASE)


@pytest.mark.slow
def test_zeros_stay_and_layers_grow_on_schedule():
    schedule: Any = density_schedule(network_settings(settings("ne"), "actor"), UPDATES)
    for name, modules in SPARSE.items():
        first, last = (masks_of(alone(0)[i], name) for i in (0, -1))
        assert set(first) == {f"{module}/dense/kernel" for module in modules}
        shapes = {path: mask.shape for path, mask in first.items()}
        rounds = jnp.arange(0, UPDATES, EVERY)
        planned = jax.vmap(functools.partial(ne_jax.counts_at, schedule, shapes))(rounds)
        for t, state in enumerate(alone(0)):
            check_zeros(state, name)
            for path, mask in masks_of(state, name).items():
                # after t updates, the last had the number t - 1
                assert np.sum(mask) == planned[path][max(t - 1, 0) // EVERY]
        assert ne_jax.density(first)["all"] == pytest.approx(0.2, abs=0.01)
        assert ne_jax.density(last)["all"] == pytest.approx(0.75, abs=0.01)
        for path, kernel in kernels(getattr(alone(0)[-1], name).params, last).items():
            born = np.asarray(last[path] & ~first[path])
            assert (kernel[born] != 0).mean() > 0.9
    assert all(masks_of(state, "encoder") == {} for state in alone(0))


def kernels(tree, masks):
    leaves = ne_jax.leaves_by_path(tree)
    return {path: np.asarray(leaves[path]) for path in masks}


def check_zeros(state, name):
    """Parameters, both moments and the target are exactly zero off the mask."""
    masks, adam = masks_of(state, name), getattr(state, name).opt_state.inner[0]
    trees = [getattr(state, name).params, adam.mu, adam.nu]
    for tree in [*trees, state.target_critic] if name == "critic" else trees:
        for path, kernel in kernels(tree, masks).items():
            assert not kernel[~np.asarray(masks[path])].any(), (name, path)


@pytest.mark.slow
def test_a_seed_among_others_equals_the_seed_alone():
    for how in ("vmap", "map"):
        state, batch, keys = seeds()
        update = QUICK(over_seeds(drq(method="ne").update, how, shared=1))
        for t in range(20):
            state, _ = update(state, pick(batch, t), keys[t], now(t))
        for seed in range(SEEDS):
            own, lane = alone(seed)[20], pick(state, seed)
            for name in SPARSE:
                jax.tree.map(np.testing.assert_array_equal, masks_of(own, name), masks_of(lane, name))
            jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-3, atol=2e-5), own, lane)
    first, second = (masks_of(alone(seed)[20], "critic") for seed in range(SEEDS))
    assert any((first[path] != second[path]).any() for path in first)


@pytest.mark.parametrize("how", ["vmap", "map"])
def test_a_round_stays_a_branch_with_many_seeds(how):
    agent, keys = drq(method="ne"), jax.random.split(jax.random.key(0), SEEDS)
    state = jax.eval_shape(lambda keys: jax.lax.map(agent.init, keys), keys)
    batch = jax.tree.map(lambda leaf: np.stack([leaf] * SEEDS), pick(batches(1), 0))
    update = over_seeds(agent.update, how, shared=1)
    jaxpr = jax.make_jaxpr(update)(state, batch, keys, now(1)).jaxpr
    traced = {(name, depth > 0) for name, depth, _ in operations(jaxpr)}
    assert ("cond", False) in traced
    assert ("cumsum", True) in traced and ("cumsum", False) not in traced


def test_activations_are_named_like_the_sparse_kernels():
    state, batch = start("ne"), pick(batches(1), 0)
    found = QUICK(drq(method="ne").activations)(state, batch)
    assert set(found) == {f"{name}/{module}" for name, modules in SPARSE.items() for module in modules}
    for name in SPARSE:
        for path, mask in masks_of(state, name).items():
            units = ne_jax.units_of(f"{name}/{path}", found)
            assert units is not None and units.shape == (len(batch.reward), mask.shape[-1])
            assert units.min() == 0 < units.max()


def test_methods_differ_in_their_optimisers_only():
    dense, sparse = start(), start("ne")
    for name in ("encoder", "critic", "actor"):
        shapes = [jax.tree.map(jnp.shape, getattr(state, name).params) for state in (dense, sparse)]
        assert shapes[0] == shapes[1]
        assert ne_jax.masks(getattr(dense, name).opt_state) == {}
    jax.tree.map(np.testing.assert_array_equal, dense.encoder, sparse.encoder)
    obs = jnp.asarray(batches(1).obs[0, 0])
    for step in (now(0), now(50), None):
        actions = [drq(method=method).act(sparse, obs, jax.random.key(0), step) for method in ("none", "ne")]
        np.testing.assert_array_equal(actions[0], actions[1])
    for name in SPARSE:  # a kept weight starts as it would in a dense net
        masks = masks_of(sparse, name)
        masked = ne_jax.apply(masks, getattr(dense, name).params)
        jax.tree.map(np.testing.assert_array_equal, masked, getattr(sparse, name).params)
