"""One round of `neuroplastic` against a brute-force account of what it must do."""

import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import FIRST, SECOND, SHAPES, scheduled, top_k

import ne_jax

BIASES = {FIRST: "params/hidden_0/dense/bias", SECOND: "params/hidden_1/dense/bias"}
MODULES = {FIRST: "hidden_0", SECOND: "hidden_1"}
SCHEDULE = ne_jax.cosine_growth(0.3, 0.8, until=100)


def network(seed, step, idle_share=0.4) -> Any:
    """Masks that hold what SCHEDULE wanted a little earlier, gradients with ties, some units idle."""
    rng = np.random.default_rng(seed)
    held = scheduled(SHAPES, 0.3, 0.8, max(step - 10, 0) / 100)
    params, gradients, masks, activations = {}, {}, {}, {}
    for path, shape in SHAPES.items():
        masks[path] = top_k(rng.random(shape), round(held[path]))
        params[path] = np.where(masks[path], rng.normal(size=shape), 0).astype(np.float32)
        gradients[path] = rng.integers(-5, 6, shape).astype(np.float32)
        params[BIASES[path]] = rng.normal(size=shape[-1:]).astype(np.float32)
        gradients[BIASES[path]] = np.ones(shape[-1:], np.float32)
        h = np.maximum(rng.normal(size=(20, shape[-1])), 0) + 0.01
        activations[MODULES[path]] = (h * (rng.random(shape[-1]) >= idle_share)).astype(np.float32)
    return ne_jax.Network(params, gradients, masks, activations)


def evolve_of(schedule, **settings):
    return round_of_rule(ne_jax.neuroplastic(schedule, **settings))


def round_of_rule(rule):
    """(key, step, network) -> what a rule without state makes of the network."""
    return lambda key, step, network: rule.evolve((), key, step, jax.tree.map(jnp.asarray, network))[1]


@functools.cache
def round_of(omega, tau, birth):
    return jax.jit(evolve_of(SCHEDULE, omega=omega, tau=tau, birth=birth))


def as_numpy(evolved):
    return jax.tree.map(np.asarray, evolved)


def account(before, after, path):
    """(pruned, born) of a layer. Only an absent weight is born, so a fresh one that was there has been pruned."""
    fresh, old = after.fresh[path], before.masks[path]
    return fresh & old, fresh & after.masks[path]


@pytest.mark.parametrize("omega, tau", [(0.4, 0.0), (0.75, 0.8), (0.0, 0.0)])
def test_a_round_by_brute_force(omega, tau):
    evolve, capped, exhausted = round_of(omega, tau, "zero"), 0, 0
    for seed in range(25):
        step = 10 * (seed % 10) + 10
        before = network(seed, step, idle_share=(0.1, 0.4)[seed % 2])
        after = as_numpy(evolve(jax.random.key(seed), step, before))
        target = scheduled(SHAPES, 0.3, 0.8, step / 100)
        for path in SHAPES:
            old, new = before.masks[path], after.masks[path]
            pruned, born = account(before, after, path)
            magnitude = np.abs(before.activations[MODULES[path]].astype(np.float64)).mean(0)
            dormant = magnitude / magnitude.mean() <= tau
            candidates = old & dormant[None]
            net = round(target[path]) - old.sum()
            # The cap: the largest p with p <= omega * (net + p).
            cap = max(p for p in range(old.size) if p * (1 - omega) <= omega * net + 1e-9)
            assert pruned.sum() == min(cap, candidates.sum()) and not (pruned & ~candidates).any()
            capped, exhausted = capped + (cap < candidates.sum()), exhausted + (0 < candidates.sum() <= cap)
            partly = pruned.any(0) & (candidates & ~pruned).any(0)
            assert partly.sum() <= 1  # a unit is emptied before the next is touched
            kept = old & ~pruned
            np.testing.assert_array_equal(born, top_k(np.abs(before.gradients[path]), net + pruned.sum(), ~kept))
            np.testing.assert_array_equal(new, kept | born)
            assert abs(new.sum() - target[path]) <= 0.5 + 1e-3
            np.testing.assert_array_equal(after.params[path], np.where(kept, before.params[path], 0))
            emptied = pruned.any(0) & ~kept.any(0)
            bias = before.params[BIASES[path]]
            np.testing.assert_array_equal(after.params[BIASES[path]], np.where(emptied, 0, bias))
            np.testing.assert_array_equal(after.fresh[BIASES[path]], emptied)
    assert omega == 0 or (capped > 3 and exhausted > 3)


def test_units_are_pruned_in_random_order():
    evolve, before = round_of(0.4, 0.0, "zero"), network(0, 20, idle_share=0.6)
    idle = [np.flatnonzero(before.activations[m].max(0) == 0) for m in MODULES.values()]
    touched = [set(), set()]
    for seed in range(40):
        after = as_numpy(evolve(jax.random.key(seed), 20, before))
        for i, path in enumerate(SHAPES):
            pruned, _ = account(before, after, path)
            assert 0 < pruned.any(0).sum() < len(idle[i])
            touched[i] |= set(np.flatnonzero(pruned.any(0)))
    assert touched == [set(units) for units in idle]


def test_same_key_same_round():
    evolve, before = round_of(0.4, 0.0, "lecun"), network(3, 30)
    one, same, other = (as_numpy(evolve(jax.random.key(k), 30, before)) for k in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, one, same)
    assert (one.params[SECOND] != other.params[SECOND]).any()


def test_lecun_birth():
    """Newborn weights have the scale of the layer's initialiser, whatever the number of axes; the old ones stay."""
    shapes, rng = {"dense/kernel": (256, 64), "conv/kernel": (3, 3, 16, 96)}, np.random.default_rng(0)
    masks = {p: rng.random(s) < 0.1 for p, s in shapes.items()}
    params = {p: np.where(m, np.float32(9), np.float32(0)) for p, m in masks.items()}
    gradients = {p: rng.normal(size=s).astype(np.float32) for p, s in shapes.items()}
    schedule = ne_jax.linear_growth(ne_jax.uniform(0.1), ne_jax.uniform(0.9), 10)
    before: Any = ne_jax.Network(*[params, gradients, masks, None])
    after = as_numpy(jax.jit(evolve_of(schedule, birth="lecun"))(jax.random.key(0), 10, before))
    drawn = []
    for path, fan_in in {"dense/kernel": 256, "conv/kernel": 144}.items():
        born = after.masks[path] & ~masks[path]
        weights = after.params[path][born]
        assert weights.size > 10_000 and (weights != 0).all()
        assert weights.std() * np.sqrt(fan_in) == pytest.approx(1, abs=0.04)
        assert abs(weights.mean()) * np.sqrt(fan_in) < 0.04
        assert (after.params[path][masks[path]] == 9).all() and (after.params[path][~after.masks[path]] == 0).all()
        drawn.append(weights[:10_000])
    assert abs(np.corrcoef(*drawn)[0, 1]) < 0.05  # each layer draws its own


HALF = ne_jax.constant_share(0.5)


@pytest.mark.parametrize(
    ("rule", "step"),
    [
        (ne_jax.rigl(HALF, birth="lecun"), 110),
        (ne_jax.set_(HALF), 110),
        (ne_jax.neuroplastic(SCHEDULE, birth="lecun", rewire=HALF), 110),
        (ne_jax.neuroplastic(SCHEDULE, birth="lecun", prune="magnitude", omega=0.7), 50),
    ],
    ids=["rigl", "set", "rewire", "magnitude"],
)
def test_what_is_dropped_and_chosen_again_at_once_stays_as_it_is(rule, step):
    """And so does a layer that is full."""
    before: Any = network(4, step, idle_share=0)
    full = np.random.default_rng(0).normal(size=SHAPES[FIRST]).astype(np.float32)
    before.masks[FIRST], before.params[FIRST] = np.ones(full.shape, bool), full
    after = as_numpy(jax.jit(round_of_rule(rule))(jax.random.key(1), step, before))
    for path in SHAPES:
        old, new = before.masks[path], after.masks[path]
        np.testing.assert_array_equal(after.params[path][old & new], before.params[path][old & new])
        np.testing.assert_array_equal(after.fresh[path], old ^ new)
    assert after.masks[FIRST].all() and not after.fresh[BIASES[FIRST]].any()
    old, new = before.masks[SECOND], after.masks[SECOND]
    grown = new.sum() - old.sum()
    dropped = old.sum() // 2 if step == 110 else int(grown * 0.7 / 0.3)
    assert 0 < (old & ~new).sum() < dropped, "nothing was dropped and chosen again"


def test_set_drops_its_share_of_each_sign():
    """Mocanu et al., algorithm 1: of 21 positive weights the 6 smallest, of 9 negative ones the 2 largest."""
    rng, kernel = np.random.default_rng(3), np.zeros(40 * 40, np.float32)
    places = rng.choice(kernel.size, 30, replace=False)
    kernel[places[:21]], kernel[places[21:]] = rng.uniform(0.1, 1, 21), rng.uniform(-9, -5, 9)
    order = sorted(places, key=lambda place: abs(kernel[place]))
    expected = [p for p in order if kernel[p] > 0][:6] + [p for p in order if kernel[p] < 0][:2]
    path = "only/kernel"
    weights: Any = kernel.reshape(40, 40)
    before = ne_jax.Network({path: weights}, {path: 0 * weights}, {path: weights != 0}, None)
    after = as_numpy(round_of_rule(ne_jax.set_(ne_jax.constant_share(0.3)))(jax.random.key(1), 1, before))
    gone = np.flatnonzero(before.masks[path] & ~after.masks[path])
    assert sorted(gone) == sorted(expected), (
        "none of the 1,578 places for 8 births is one of those dropped, for this key"
    )
    born = after.masks[path] & ~before.masks[path]
    assert born.sum() == 8 and (after.params[path][born] != 0).all()


def test_bias_lifts_units_without_weights_also_where_nothing_is_pruned():
    before: Any = network(5, 30)._replace(activations=None)
    before.masks[SECOND][:, :3] = False
    low = np.array([-1.0, 0.005, 2.0], np.float32)  # the third has enough
    before.params[BIASES[SECOND]][:3] = low
    after = as_numpy(evolve_of(SCHEDULE, prune="none", revive="bias")(jax.random.key(0), 30, before))
    expected = before.params[BIASES[SECOND]].copy()
    expected[:2] = 0.01
    dead = ~before.masks[SECOND].any(0)
    assert dead.sum() == 3
    np.testing.assert_array_equal(after.params[BIASES[SECOND]], expected)
    np.testing.assert_array_equal(np.flatnonzero(after.fresh[BIASES[SECOND]]), [0, 1])


def test_without_activity_nothing_is_pruned():
    evolve = round_of(0.4, 0.0, "zero")
    for step in (20, 60):
        before = network(1, step)._replace(activations=None)
        after = as_numpy(evolve(jax.random.key(0), step, before))
        for path in SHAPES:
            old, new = before.masks[path], after.masks[path]
            assert (new >= old).all() and new.sum() > old.sum()
        assert set(after.params) == set(SHAPES)


def test_nothing_changes_after_until():
    evolve = round_of(0.4, 0.0, "lecun")
    before = network(2, 110)  # holds what the schedule ends at
    for step in (100, 110, 10_000):
        after = as_numpy(evolve(jax.random.key(step), step, before))
        for path in SHAPES:
            np.testing.assert_array_equal(after.masks[path], before.masks[path])
            np.testing.assert_array_equal(after.params[path], before.params[path])
            np.testing.assert_array_equal(after.params[BIASES[path]], before.params[BIASES[path]])
        assert not any(f.any() for f in after.fresh.values())


def test_a_network_that_is_ahead_waits():
    before = network(4, 100)
    after = as_numpy(round_of(0.4, 0.0, "zero")(jax.random.key(0), 10, before))
    jax.tree.map(np.testing.assert_array_equal, after.masks, before.masks)


def test_missing_activations():
    before = network(0, 20)
    before = before._replace(activations={"hidden_1": before.activations["hidden_1"]})
    with pytest.raises(ValueError, match=rf"no activations for the sparse kernel {FIRST}, only for \['hidden_1'\]"):
        evolve_of(SCHEDULE)(jax.random.key(0), 20, before)


def test_activations_of_another_width():
    before = network(0, 20)
    before = before._replace(activations={**before.activations, "hidden_0": np.ones((4, 7), np.float32)})
    with pytest.raises(ValueError, match=r"has 16 units, and its layer 7 activations"):
        evolve_of(SCHEDULE)(jax.random.key(0), 20, before)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"omega": 1.0}, "omega must lie in"),
        ({"omega": -0.1}, "omega must lie in"),
        ({"tau": -0.5}, "tau must not be negative"),
        ({"birth": "he"}, "birth must be 'zero' or 'lecun'"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(ne_jax.neuroplastic)(SCHEDULE, **settings)  # without the suite's check of annotations


def test_static_has_no_rounds():
    assert ne_jax.static() == ne_jax.Rule(name="static")


def test_activity_is_handed_on():
    def activity(params, batch):
        return {"a": jnp.zeros(3)}

    assert ne_jax.neuroplastic(SCHEDULE, activity=activity).activity is activity
