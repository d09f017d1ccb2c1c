"""Lifelong NE, update by update, against an account in numpy of what its docstring says."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from oracles import primitives

import ne_jax
from ne_jax.rules import lifelong

WIDTHS, EVERY, UPDATES, SWITCH, STEP, PULL = (5, 8, 7, 2), 10, 90, 60, 0.0625, 0.01
LAYERS = {"hidden_0/kernel": "hidden_1/kernel", "hidden_1/kernel": "head/kernel"}
NAMES = ("hidden_0", "hidden_1", "head")
SCHEDULE = ne_jax.cosine_growth(0.4, 0.8, 50)
KNOBS: dict[str, Any] = {"tau": 0.5, "turnover": 0.2, "maturity": 15, "pull": PULL, "novelty": 0.4, "outgoing": 1.5}


def initialise(key):
    params = {}
    for name, ins, outs in zip(NAMES, WIDTHS, WIDTHS[1:]):
        key, kernel, bias = jax.random.split(key, 3)
        params[name] = {
            "kernel": jax.random.normal(kernel, (ins, outs)) / ins**0.5,
            "bias": 0.3 * jax.random.normal(bias, (outs,)),
        }
    return params


def activity(params, batch):
    h0 = jax.nn.relu(batch @ params["hidden_0"]["kernel"] + params["hidden_0"]["bias"])
    h1 = jax.nn.relu(h0 @ params["hidden_1"]["kernel"] + params["hidden_1"]["bias"])
    return {"hidden_0": h0, "hidden_1": h1}


def loss(params, batch):
    out = activity(params, batch)["hidden_1"] @ params["head"]["kernel"] + params["head"]["bias"]
    return ((out - jnp.sin(batch[:, :2])) ** 2).mean()


def batch_at(t, seed=0):
    x = np.random.default_rng([seed, t]).normal(size=(16, WIDTHS[0])).astype(np.float32)
    return jnp.asarray(x + 4.0 if t >= SWITCH else x)


def begin(seed=0):
    key = jax.random.key(seed)

    def where(path, leaf):
        return path in LAYERS

    return ne_jax.sparsify(key, initialise(jax.random.fold_in(key, 1)), SCHEDULE.initial, where), where


@functools.cache
def history(**knobs):
    """Parameters, gradients and optimiser's state, before and after each update."""
    params, where = begin()
    rule = ne_jax.lifelong_ne(SCHEDULE, initialise, **(KNOBS | knobs))
    tx = ne_jax.plastic(optax.sgd(STEP), rule, EVERY, where=where)

    @jax.jit
    def update(params, state, batch, key):
        gradients = jax.grad(loss)(params, batch)
        updates, state = tx.update(gradients, state, params, batch=batch, key=key)
        return optax.apply_updates(params, updates), state, gradients

    state = tx.init(params)
    steps: list[Any] = [(params, state, None)]
    for t in range(UPDATES):
        params, state, gradients = update(params, state, batch_at(t), jax.random.key(1000 + t))
        steps.append((params, state, gradients))
    return steps


@pytest.fixture(autouse=True)
def short_warm_up(monkeypatch):
    monkeypatch.setattr(lifelong, "WARM_UP", 45)
    history.cache_clear()


def flat(tree):
    return {path: np.asarray(leaf, np.float64) for path, leaf in ne_jax.leaves_by_path(tree).items()}


def as_drawn(t, masks):
    """What the round at update t draws: kernels of sparse layers so that units with few weights speak as loud."""
    drawn = flat(initialise(jax.random.fold_in(jax.random.key(1000 + t), 1)))
    for path, mask in masks.items():
        drawn[path] = np.where(mask, drawn[path] * np.sqrt(mask.shape[0] / np.maximum(mask.sum(axis=0), 1)), 0)
    return drawn


def test_every_update_is_as_described():
    steps, renewals, recycled = history(), 0, 0
    births = flat(steps[0][0])
    age = {path: np.zeros(np.shape(births[path])[1], int) for path in LAYERS}
    due = dict.fromkeys(LAYERS, 0.0)
    fast, slow, square, novelty, since = 0.0, 0.0, 0.0, 0.0, 0
    for t in range(UPDATES):
        old, new = flat(steps[t][0]), flat(steps[t + 1][0])
        masks = {path: np.asarray(mask) for path, mask in steps[t][1].masks.items()}
        after = {path: np.asarray(mask) for path, mask in steps[t + 1][1].masks.items()}
        gradients = flat(steps[t + 1][2])
        moved = {p: old[p] - STEP * (gradients[p] + 2 * PULL * (old[p] - births[p])) * masks.get(p, 1) for p in old}
        for path in LAYERS:
            age[path] += 1
        since += 1
        x = np.asarray(batch_at(t), np.float64)
        fast, slow = 0.9 * fast + 0.1 * x.mean(axis=0), 0.99 * slow + 0.01 * x.mean(axis=0)
        square = 0.99 * square + 0.01 * (x**2).mean(axis=0)
        if since > 45:
            novelty = np.abs(fast - slow).sum() / np.sqrt(square - slow**2).sum()
        anew = novelty > 0.4
        if (t == 0 or t % EVERY) and not anew:
            for path in old:
                np.testing.assert_allclose(new[path], moved[path], rtol=1e-4, atol=1e-6)
                assert path not in LAYERS or (after[path] == masks[path]).all()
            continue
        renewals += anew
        counts = ne_jax.counts_at(SCHEDULE, {path: mask.shape for path, mask in masks.items()}, t)
        flags = {}
        for path in LAYERS:
            mature, drive = age[path] > 15, np.abs(gradients[path.replace("kernel", "bias")])
            due[path] += 0.2 * len(age[path])
            ripe = [i for i in np.argsort(drive, kind="stable") if mature[i]]
            chosen = {*ripe[: int(due[path])], *np.flatnonzero(mature & (drive <= 0.5 * drive.mean()))}
            due[path] = np.clip(due[path] - len(chosen), 0, len(age[path]))
            flags[path] = np.isin(np.arange(len(age[path])), list(chosen)) | anew
            recycled += len(chosen)
        expected = {path: leaf.copy() for path, leaf in moved.items()}
        for path in LAYERS:
            fresh, mask = flags[path], after[path]
            assert mask.sum() == counts[path]  # exactly on schedule
            survivors = masks[path] & ~fresh
            assert (mask & survivors == survivors).all()  # nothing else goes
            bundle = max(int(counts[path]) // len(fresh), 1)
            room = int(counts[path] - survivors.sum())
            assert mask[:, fresh].sum() >= min(room, bundle * fresh.sum())
            grown = mask & ~survivors & ~fresh
            left = ~mask & ~fresh
            if grown.any() and left.any():  # where the gradient asks
                assert np.abs(gradients[path])[grown].min() >= np.abs(gradients[path])[left].max() - 1e-6
            born = mask & ~survivors
            expected[path] = np.where(born, new[path], np.where(mask, expected[path], 0))
            enters = next((flags[before] for before, after_it in LAYERS.items() if after_it == path), False)
            assert (new[path][born & ~np.reshape(enters, (-1, 1))] != 0).all()
            expected[path.replace("kernel", "bias")][fresh] = 0
        drawn = as_drawn(t, after)
        for path, following in LAYERS.items():
            expected[following][flags[path]] = 1.5 * drawn[following][flags[path]]
        if not anew:
            for path in old:
                np.testing.assert_allclose(new[path], expected[path], rtol=1e-4, atol=1e-6)
        fresh = {p: after[p] ^ (masks[p] & ~flags[p]) | (masks[p] & ~after[p]) for p in LAYERS}
        for path, following in LAYERS.items():
            bias = path.replace("kernel", "bias")
            births[path] = np.where(fresh[path], new[path], births[path])
            births[bias] = np.where(flags[path], new[bias], births[bias])
            births[following] = np.where(
                flags[path][:, None] & after.get(following, True), new[following], births[following]
            )
            age[path] = np.where(flags[path], 0, age[path])
        if anew:
            births, since = dict(new), 0
        novelty = 0.0
    assert renewals == 1 and recycled > 10


def test_a_fresh_start_is_a_network_as_initialise_draws_it_and_targets_follow():
    steps = history()
    rounds = [t for t in range(UPDATES) if bool(ne_jax.renewed(steps[t + 1][1])["head/kernel"])]
    assert len(rounds) == 1 and SWITCH <= rounds[0] < SWITCH + 3  # at once, and not only in the next round
    (params, state, _) = steps[rounds[0] + 1]
    masks = {path: np.asarray(mask) for path, mask in state.masks.items()}
    drawn = as_drawn(rounds[0], masks)
    for path, leaf in flat(params).items():
        np.testing.assert_allclose(leaf, drawn[path], rtol=1e-5 if path in masks else 1e-6)
        assert path not in masks or masks[path].any(axis=0).all()  # no unit is left without inputs
    assert all(np.asarray(flag) for flag in ne_jax.renewed(state).values())


@pytest.mark.parametrize("knobs", [{"novelty": 0.0}, {"novelty": 1e6}], ids=["off", "never reached"])
def test_without_novelty_nothing_begins_anew(knobs):
    steps = history(**knobs)
    assert not any(bool(flag) for _, state, _ in steps[1:] for flag in ne_jax.renewed(state).values())
    assert bool(ne_jax.renewed(steps[-1][1])) == (knobs["novelty"] > 0)


def test_lanes_of_a_vmap_equal_each_alone_and_rounds_stay_a_branch():
    rule = ne_jax.lifelong_ne(SCHEDULE, initialise, **KNOBS)
    where = begin()[1]
    # With the usual eps, Adam makes whole steps of gradients that are nothing but rounding.
    tx = ne_jax.plastic(optax.adam(1e-2, eps=1e-3), rule, EVERY, where=where)

    def update(params, state, batch, key, step):
        gradients = jax.grad(loss)(params, batch)
        updates, state = tx.update(gradients, state, params, batch=batch, key=key, step=step)
        return optax.apply_updates(params, updates), state

    def stacked(trees):
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

    alone, lanes = [], stacked([begin(seed)[0] for seed in range(2)])
    state = stacked([tx.init(begin(seed)[0]) for seed in range(2)])
    together = jax.jit(jax.vmap(update, in_axes=(0, 0, 0, 0, None)))
    keys = [jnp.stack([jax.random.key(100 * seed + t) for seed in range(2)]) for t in range(UPDATES)]
    for t in range(UPDATES):
        batch = jnp.stack([batch_at(t, seed) for seed in range(2)])
        lanes, state = together(lanes, state, batch, keys[t], t)
    one = jax.jit(update)
    for seed in range(2):
        params = begin(seed)[0]
        own = tx.init(params)
        for t in range(UPDATES):
            params, own = one(params, own, batch_at(t, seed), keys[t][seed], t)
        alone.append((params, own))
    for seed in range(2):
        for path, leaf in flat(alone[seed][0]).items():
            np.testing.assert_allclose(flat(lanes)[path][seed], leaf, rtol=1e-3, atol=1e-5)
        for path, mask in alone[seed][1].masks.items():
            np.testing.assert_array_equal(state.masks[path][seed], mask)
    found = primitives(
        jax.make_jaxpr(jax.vmap(update, in_axes=(0, 0, 0, 0, None)))(
            lanes, state, jnp.stack([batch_at(0)] * 2), keys[0], 5
        ).jaxpr
    )
    assert ("cond", False) in found and ("cumsum", True) in found
    outside = {name for name, in_cond in found if not in_cond}
    assert not outside & {"sort", "cumsum", "top_k", "scan", "while", "random_bits"}, (
        "nothing that costs, but in rounds"
    )


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"tau": -1.0}, "tau must not be negative"),
        ({"turnover": 1.5}, "turnover must lie in"),
        ({"maturity": -1}, "maturity must not be negative"),
        ({"pull": -0.1}, "pull must not be negative"),
        ({"novelty": -1.0}, "novelty must not be negative"),
    ],
)
def test_settings_out_of_range_are_refused(knobs, said):
    with pytest.raises(ValueError, match=said):
        ne_jax.lifelong_ne(SCHEDULE, initialise, **knobs)
