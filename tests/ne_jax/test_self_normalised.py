"""Self-normalised resets, update by update, against an account in numpy that keeps lists of silences."""

import functools
import itertools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from accounts import key_at
from unit_nets import UnitNets

import ne_jax

UPDATES, STEP, PERCENTILE, REFRESH, LONGEST = 160, 0.0625, 0.75, 20, 9
KNOBS: dict[str, Any] = {"percentile": PERCENTILE, "refresh": REFRESH, "longest": LONGEST}


class Dense(nn.Module):
    shape = (2, 5)

    @nn.compact
    def __call__(self, x):
        for i, width in enumerate((9, 7)):
            x = nn.relu(nn.Dense(width, name=f"hidden_{i}", bias_init=nn.initializers.normal(0.6))(x))
            self.sow("intermediates", f"h{i}", x)
        return nn.Dense(2, name="head")(x)


class Conv(nn.Module):
    shape = (1, 4, 4, 2)

    @nn.compact
    def __call__(self, x):
        for i, channels in enumerate((6, 5)):
            bias = nn.initializers.uniform(-1.5)
            x = nn.relu(nn.Conv(channels, (2, 2), padding="VALID", name=f"conv_{i}", bias_init=bias)(x))
            self.sow("intermediates", f"h{i}", x)
        return nn.Dense(2, name="head")(x.reshape(len(x), -1))


NETS: dict[str, Any] = {"dense": Dense(), "conv": Conv()}
LAYERS = {"dense": {"hidden_0": "hidden_1", "hidden_1": "head"}, "conv": {"conv_0": "conv_1", "conv_1": "head"}}


CASES = UnitNets(NETS, LAYERS)
initialise, activity, batch_at, loss = CASES.initialise, CASES.activity, CASES.batch_at, CASES.loss


def make(name, **knobs):
    return ne_jax.self_normalised_resets(
        functools.partial(activity, name), functools.partial(initialise, name), **(KNOBS | knobs)
    )


@functools.cache
def programs(name, inner="sgd", every=1):
    tx = ne_jax.plastic({"sgd": optax.sgd(STEP), "adam": optax.adam(1e-2)}[inner], make(name), every, where=None)

    def update(params, state, t, key):
        gradients = jax.grad(functools.partial(loss, name))(params, batch_at(name, t))
        updates, state = tx.update(gradients, state, params, batch=batch_at(name, t), key=key, step=t)
        return optax.apply_updates(params, updates), state, gradients

    return tx, update


@functools.cache
def history(name, inner="sgd", every=1, updates=UPDATES, seed=0):
    """(params, state, gradients) of every update: what it starts from and the gradient there; last the end."""
    tx, update = programs(name, inner, every)
    params, update, steps = initialise(name, jax.random.key(seed)), jax.jit(update), []
    state = tx.init(params)
    for t in range(updates):
        after, state_after, gradients = update(params, state, jnp.int32(t), key_at(t, seed))
        steps.append((params, state, gradients))
        params, state = after, state_after
    return jax.tree.map(np.asarray, [*steps, (params, state, None)])


class Account:
    """The algorithm: for each unit its age, the lengths of the silences that have ended, and its threshold."""

    def __init__(self, units):
        self.age = {layer: [0] * n for layer, n in units.items()}
        self.ended: Any = {layer: [[] for _ in range(n)] for layer, n in units.items()}
        self.threshold = {layer: [LONGEST // 2] * n for layer, n in units.items()}
        self.moves = {"down": 0, "up": 0, "floor": 0}

    def update(self, activations, t, every):
        chosen = {layer: [] for layer in self.age}
        for layer, ages in self.age.items():
            for unit in range(len(ages)):
                if (np.asarray(activations[layer])[..., unit] > 0).any():
                    self.end(layer, unit)
                else:
                    ages[unit] += 1
            if t == 0 or t % every:
                continue
            for unit in range(len(ages)):
                if ages[unit] >= self.threshold[layer][unit]:
                    chosen[layer].append(unit)
                    self.end(layer, unit)
            if t % REFRESH == 0:
                self.refresh(layer)
        return chosen

    def end(self, layer, unit):
        if self.age[layer][unit] > 0:
            self.ended[layer][unit].append(min(self.age[layer][unit], LONGEST))
        self.age[layer][unit] = 0

    def refresh(self, layer):
        for unit, silences in enumerate(self.ended[layer]):
            lengths = range(1, LONGEST + 1)
            within = [n for n in lengths if silences and sum(s <= n for s in silences) / len(silences) >= PERCENTILE]
            old, quantile = self.threshold[layer][unit], min(within, default=1)
            new = quantile if quantile < old else min(2 * old, LONGEST)
            self.moves["down" if new < old else "up"] += new != old
            self.moves["floor"] += not silences
            self.threshold[layer][unit] = new
            silences.clear()


def replace(name, params, drawn, chosen):
    new = jax.tree.map(lambda leaf: np.array(leaf, np.float64), params)
    for layer in LAYERS[name]:
        for unit in chosen[layer]:
            new[layer]["kernel"][..., unit], new[layer]["bias"][unit] = drawn[layer]["kernel"][..., unit], 0
    for layer, to in LAYERS[name].items():
        units, inputs = new[layer]["kernel"].shape[-1], new[to]["kernel"].shape[-2]
        for unit in chosen[layer]:
            new[to]["kernel"][..., [i for i in range(inputs) if i % units == unit], :] = 0
    return new


@pytest.mark.parametrize("name, every", [("dense", 1), ("dense", 4), ("conv", 1)])
def test_update_by_update(name, every):
    steps = history(name, every=every)
    account = Account({layer: steps[0][0][layer]["kernel"].shape[-1] for layer in LAYERS[name]})
    see, draw = jax.jit(functools.partial(activity, name)), jax.jit(functools.partial(initialise, name))
    reset, thresholds = dict.fromkeys(LAYERS[name], 0), set()
    for t, ((params, _, gradients), (after, state, _)) in enumerate(itertools.pairwise(steps)):
        chosen = account.update(see(params, batch_at(name, t)), t, every)
        expected = jax.tree.map(lambda p, g: p - np.float32(STEP) * g, params, gradients)
        if any(chosen.values()):
            expected = replace(name, expected, draw(key_at(t)), chosen)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), after, expected)
        for layer, units in chosen.items():
            reset[layer] += len(units)
            ours = state.rule[f"{layer}/kernel"]
            np.testing.assert_array_equal(ours.age, account.age[layer])
            np.testing.assert_array_equal(ours.threshold, account.threshold[layer])
            counts = [[silences.count(n + 1) for n in range(LONGEST)] for silences in account.ended[layer]]
            np.testing.assert_array_equal(ours.gaps, counts)
            thresholds |= set(account.threshold[layer])
    assert all(number > 3 for number in reset.values()) and len(thresholds) >= 4
    assert account.moves["down"] > 5 and account.moves["up"] > 5 and account.moves["floor"] > 0


def test_a_reset_unit_has_a_fresh_optimiser():
    """Adam by hand from each weight's own birth."""
    steps, compared = history("dense", "adam", updates=60), 0
    flat = [(ne_jax.leaves_by_path(p), ne_jax.leaves_by_path(s.births["0/count"]), g) for p, s, g in steps]
    for path in ("hidden_0/kernel", "hidden_1/kernel", "hidden_1/bias", "head/kernel"):
        mu, nu, n = (np.zeros(flat[0][0][path].shape) for _ in range(3))
        for (params, births, gradients), (after, births_after, _) in itertools.pairwise(flat):
            g = ne_jax.leaves_by_path(gradients)[path].astype(np.float64)
            mu, nu, n = 0.9 * mu + 0.1 * g, 0.999 * nu + 0.001 * g**2, n + 1
            step = -1e-2 * (mu / (1 - 0.9**n)) / (np.sqrt(nu / (1 - 0.999**n)) + 1e-8)
            born = births[path] != births_after[path]
            compared += (~born & (births[path] > 0)).sum()
            np.testing.assert_allclose(after[path][~born], (params[path] + step)[~born], rtol=1e-4, atol=1e-5)
            mu, nu, n = (np.where(born, 0, each) for each in (mu, nu, n))
    assert compared > 300


def test_lanes_and_pause():
    tx, update = programs("dense", "adam")
    seeds, updates = (0, 1), 50
    alone = [history("dense", "adam", updates=60, seed=seed) for seed in seeds]
    stack = functools.partial(jax.tree.map, lambda *leaves: jnp.stack(leaves))
    params = stack(*(initialise("dense", jax.random.key(seed)) for seed in seeds))
    state, together = jax.vmap(tx.init)(params), jax.jit(jax.vmap(update, in_axes=(0, 0, None, 0)))
    for t in range(updates):
        params, state, _ = together(params, state, jnp.int32(t), jnp.stack([key_at(t, seed) for seed in seeds]))
    assert (state.rule["hidden_0/kernel"].threshold[0] != state.rule["hidden_0/kernel"].threshold[1]).any()
    for lane in range(2):
        ours = jax.tree.map(lambda leaf, lane=lane: np.asarray(leaf[lane]), (params, state.rule))
        expected = (alone[lane][updates][0], alone[lane][updates][1].rule)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), ours, expected)
    params, state, _ = jax.tree.map(jnp.asarray, (*alone[0][30][:2], 0))
    single = jax.jit(update, donate_argnums=1)
    for t in range(30, 60):
        params, state, _ = single(params, state, jnp.int32(t), key_at(t))
    jax.tree.map(np.testing.assert_array_equal, (params, state), alone[0][-1][:2])


def test_in_a_chain_and_in_a_sparse_network():
    name, where = "dense", ne_jax.kernels_under("hidden")
    rule = ne_jax.chain(
        ne_jax.set_(ne_jax.constant_share(0.3)), ne_jax.spaced(make(name), 10), ne_jax.regenerative_l2(0.01)
    )
    tx = ne_jax.plastic(optax.adam(1e-2), rule, 5, where=where)
    params = initialise(name, jax.random.key(0))
    params = ne_jax.sparsify(jax.random.key(1), params, ne_jax.uniform(0.5), where)
    state, reset = tx.init(params), 0
    held = {path: int(mask.sum()) for path, mask in state.masks.items()}

    @jax.jit
    def update(params, state, t, key):
        gradients = jax.grad(functools.partial(loss, name))(params, batch_at(name, t))
        updates, state = tx.update(gradients, state, params, batch=batch_at(name, t), key=key, step=t)
        return optax.apply_updates(params, updates), state

    for t in range(60):
        old, before = state.rule[1], jax.tree.map(np.asarray, params)
        params, state = update(params, state, jnp.int32(t), key_at(t))
        if t and t % 10 == 0:
            for path, to in {"hidden_0/kernel": "hidden_1/kernel", "hidden_1/kernel": "head/kernel"}.items():
                silent = ~(np.asarray(activity(name, before, batch_at(name, t))[path.split("/")[0]]) > 0).any(axis=0)
                gone = silent & (np.asarray(old[path].age) + 1 >= np.asarray(old[path].threshold))
                assert not np.asarray(ne_jax.leaves_by_path(params)[to])[gone].any()
                assert not np.asarray(state.rule[1][path].age)[gone].any()
                reset += gone.sum()
        for path, mask in state.masks.items():
            assert int(mask.sum()) == held[path]
            assert not np.asarray(ne_jax.leaves_by_path(params)[path])[~np.asarray(mask)].any()
    assert reset > 3


def test_a_unit_with_two_activations_fires_where_either_does():
    params: Any = {"hidden_0": {"kernel": jnp.ones((2, 3))}, "head": {"kernel": jnp.ones((6, 1))}}
    rule = ne_jax.self_normalised_resets(lambda params, batch: {"hidden_0": batch}, lambda key: params)
    tx = ne_jax.plastic(optax.sgd(0.0), rule, 1, where=None)
    # Units are 0, 1, 2, 0, 1, 2: the first fires by its second activation, the last in the second row.
    batch = jnp.array([[0.0, 0, 0, 1, 0, 0], [0, -1, 2, 0, 0, 0]])
    _, state = tx.update(params, tx.init(params), params, batch=batch)
    np.testing.assert_array_equal(state.rule["hidden_0/kernel"].age, [0, 1, 0])


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"percentile": 1.0}, r"percentile must lie in \(0, 1\), got 1.0"),
        ({"refresh": 0}, "refresh must be a positive number of updates, got 0"),
        ({"longest": 0}, "longest must be a positive number of updates, got 0"),
    ],
)
def test_wrong_settings(knobs, message):
    with pytest.raises(ValueError, match=message):
        make("dense", **knobs)


def test_networks_it_cannot_work_on():
    params = initialise("dense", jax.random.key(0))
    tx = ne_jax.plastic(optax.sgd(0.1), make("dense", follows=ne_jax.numbered()), 1, where=None)
    with pytest.raises(ValueError, match="self_normalised_resets finds no layer that another follows"):
        tx.init({"head": params["head"]})
    for seen in ({"hidden_1": jnp.ones((2, 7))}, {"hidden_0": jnp.ones((2, 4)), "hidden_1": jnp.ones((2, 7))}):
        blind = ne_jax.self_normalised_resets(lambda params, batch, seen=seen: seen, lambda key: params)
        tx = ne_jax.plastic(optax.sgd(0.1), blind, 1, where=None)
        with pytest.raises(ValueError, match="needs the activations of the 9 units of hidden_0/kernel"):
            tx.update(params, tx.init(params), params, batch=jnp.zeros((2, 5)))
