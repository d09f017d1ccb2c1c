"""Continual backprop, update by update, against an account in numpy of what its authors describe."""

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

UPDATES, DECAY, RATE, MATURITY, STEP = 320, 0.9, 0.01, 15, 0.0625
KNOBS: dict[str, Any] = {"replacement_rate": RATE, "maturity": MATURITY, "decay": DECAY}


class Dense(nn.Module):
    """Two hidden layers, the second without a bias behind it."""

    shape = (6, 5)

    @nn.compact
    def __call__(self, x):
        for i, width in enumerate((9, 7)):
            x = nn.relu(nn.Dense(width, name=f"hidden_{i}", bias_init=nn.initializers.normal(0.3))(x))
            self.sow("intermediates", f"h{i}", x)
        return nn.Dense(2, name="head", use_bias=False)(x)


class Conv(nn.Module):
    """A convolution behind a convolution, and a dense layer behind its flattened image."""

    shape = (4, 6, 6, 2)

    @nn.compact
    def __call__(self, x):
        for i, channels in enumerate((5, 4)):
            x = nn.relu(nn.Conv(channels, (3, 3), padding="VALID", name=f"conv_{i}")(x))
            self.sow("intermediates", f"h{i}", x)
        return nn.Dense(2, name="head")(x.reshape(len(x), -1))


class Split(nn.Module):
    """CReLU: two activations for each unit."""

    shape = (6, 5)

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(8, name="hidden_0")(x)
        x = jnp.concatenate([nn.relu(x), nn.relu(-x)], axis=-1)
        self.sow("intermediates", "h0", x)
        return nn.Dense(3, name="head")(x)


NETS: dict[str, Any] = {"dense": Dense(), "conv": Conv(), "split": Split()}
LAYERS = {
    "dense": {"hidden_0": "hidden_1", "hidden_1": "head"},
    "conv": {"conv_0": "conv_1", "conv_1": "head"},
    "split": {"hidden_0": "head"},
}


CASES = UnitNets(NETS, LAYERS)
initialise, activity, batch_at, loss = CASES.initialise, CASES.activity, CASES.batch_at, CASES.loss


def make(name, **knobs):
    return ne_jax.continual_backprop(
        functools.partial(activity, name), functools.partial(initialise, name), **(KNOBS | knobs)
    )


@functools.cache
def programs(name, inner="sgd", every=1):
    tx = ne_jax.plastic({"sgd": optax.sgd(STEP), "adam": optax.adam(1e-2)}[inner], make(name), every, where=None)

    def update(params, state, t, key, step):
        gradients = jax.grad(functools.partial(loss, name))(params, batch_at(name, t))
        extra = {} if step is None else {"step": step}
        updates, state = tx.update(gradients, state, params, batch=batch_at(name, t), key=key, **extra)
        return optax.apply_updates(params, updates), state, gradients

    return tx, update


@functools.cache
def history(name, inner="sgd", every=1, updates=UPDATES):
    """(params, state, gradients) of every update: what it starts from and the gradient there; last the end."""
    tx, update = programs(name, inner, every)
    update = jax.jit(functools.partial(update, step=None))
    params = initialise(name, jax.random.key(0))
    state, steps = tx.init(params), []
    for t in range(updates):
        after, state_after, gradients = update(params, state, t, key_at(t))
        steps.append((params, state, gradients))
        params, state = after, state_after
    return jax.tree.map(np.asarray, [*steps, (params, state, None)])


def reaches(name, layer, following):
    """(unit, input of the following layer) pairs, by name of the network and the order of its flattened axes."""
    inputs, units = following.shape[-2], layer.shape[-1]
    return [[i for i in range(inputs) if i % units == unit] for unit in range(units)]


class Account:
    """The algorithm in numpy: float64, loops over units."""

    def __init__(self, name, params):
        self.name, self.layers = name, LAYERS[name]
        self.units = {layer: params[layer]["kernel"].shape[-1] for layer in self.layers}
        self.utility = {layer: np.zeros(units) for layer, units in self.units.items()}
        self.age = {layer: np.zeros(units, int) for layer, units in self.units.items()}
        self.mean = {layer: np.zeros(params[to]["kernel"].shape[-2]) for layer, to in self.layers.items()}
        self.due = {layer: np.float32(0) for layer in self.layers}

    def update(self, params, activations, round_due):
        """Ages and utilities after an optimiser step to `params`; {layer: the units that go}."""
        chosen = {}
        for layer, to in self.layers.items():
            kernel, h = params[to]["kernel"].astype(np.float64), np.asarray(activations[layer], np.float64)
            inputs = h.reshape(-1, kernel.shape[-2])
            owned = reaches(self.name, params[layer]["kernel"], kernel)
            self.age[layer] += 1
            for unit in range(self.units[layer]):
                contribution = sum(np.abs(inputs[:, i]).mean() * np.abs(kernel[..., i, :]).sum() for i in owned[unit])
                self.utility[layer][unit] = DECAY * self.utility[layer][unit] + (1 - DECAY) * contribution
            self.mean[layer] = DECAY * self.mean[layer] + (1 - DECAY) * inputs.mean(0)
            mature = [u for u in range(self.units[layer]) if self.age[layer][u] > MATURITY]
            self.due[layer] = np.float32(self.due[layer] + np.float32(RATE) * np.float32(len(mature)))
            number = int(self.due[layer]) if round_due else 0
            corrected = {u: self.utility[layer][u] / (1 - DECAY ** self.age[layer][u]) for u in mature}
            chosen[layer] = sorted(mature, key=lambda u: (corrected[u], u))[:number]
            self.due[layer] -= np.float32(len(chosen[layer]))
        return chosen

    def replace(self, params, drawn, chosen):
        """The weights after the units have gone."""
        new = jax.tree.map(lambda leaf: np.array(leaf, np.float64), params)
        for layer, to in self.layers.items():
            kernel = params[to]["kernel"].astype(np.float64)
            owned = reaches(self.name, params[layer]["kernel"], kernel)
            for unit, i in [(gone, i) for gone in chosen[layer] for i in owned[gone]]:
                mean = self.mean[layer][i] / (1 - DECAY ** self.age[layer][unit])
                if "bias" in new[to]:
                    new[to]["bias"] += mean * kernel[..., i, :].reshape(-1, kernel.shape[-1]).sum(0)
        for layer in self.layers:
            for unit in chosen[layer]:
                new[layer]["kernel"][..., unit] = drawn[layer]["kernel"][..., unit]
                new[layer]["bias"][unit] = 0
        for layer, to in self.layers.items():
            owned = reaches(self.name, params[layer]["kernel"], params[to]["kernel"])
            for unit in chosen[layer]:
                self.utility[layer][unit] = self.age[layer][unit] = 0
                for i in owned[unit]:
                    new[to]["kernel"][..., i, :] = self.mean[layer][i] = 0
        return new


@pytest.mark.parametrize("name, every", [("dense", 1), ("dense", 40), ("conv", 1), ("split", 1)])
def test_update_by_update(name, every):
    updates = UPDATES if name == "dense" else 150
    steps = history(name, every=every, updates=updates)
    account, replaced, at = Account(name, steps[0][0]), dict.fromkeys(LAYERS[name], 0), []
    see = jax.jit(functools.partial(activity, name))
    draw = jax.jit(functools.partial(initialise, name))
    for t, ((params, _, gradients), (after, state, _)) in enumerate(itertools.pairwise(steps)):
        moved = jax.tree.map(lambda p, g: p - np.float32(STEP) * g, params, gradients)
        chosen = account.update(moved, see(params, batch_at(name, t)), t > 0 and t % every == 0)
        expected = moved
        if any(chosen.values()):
            expected = account.replace(moved, draw(key_at(t)), chosen)
            at.append((t, {layer: len(units) for layer, units in chosen.items()}))
            assert sorted(len(units) for units in chosen.values())[-1] == 1 or every > 1
        for layer, units in chosen.items():
            replaced[layer] += len(units)
            ours = state.rule[f"{layer}/kernel"]
            np.testing.assert_allclose(ours.utility, account.utility[layer], rtol=1e-4, atol=1e-6)
            np.testing.assert_array_equal(ours.age, account.age[layer])
            np.testing.assert_allclose(ours.mean, account.mean[layer], rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(ours.due, account.due[layer], atol=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), after, expected)
    assert at[0][0] >= MATURITY and all(t % every == 0 for t, _ in at)
    assert all(number >= (8 if name == "dense" else 2) for number in replaced.values())
    assert every == 1 or max(max(numbers.values()) for _, numbers in at) > 1


def test_what_begins_anew_has_an_optimiser_that_begins_anew():
    """Adam by hand from each weight's own birth, with the gradients that the network had."""
    steps = history("dense", "adam", updates=120)
    flat = [(ne_jax.leaves_by_path(p), ne_jax.leaves_by_path(s.births["0/count"]), g) for p, s, g in steps]
    compared = 0
    for path in ("hidden_0/kernel", "hidden_1/kernel", "hidden_1/bias", "head/kernel"):
        mu, nu, n = (np.zeros(flat[0][0][path].shape) for _ in range(3))
        for (params, births, gradients), (after, births_after, _) in itertools.pairwise(flat):
            g = ne_jax.leaves_by_path(gradients)[path].astype(np.float64)
            mu, nu, n = 0.9 * mu + 0.1 * g, 0.999 * nu + 0.001 * g**2, n + 1
            step = -1e-2 * (mu / (1 - 0.9**n)) / (np.sqrt(nu / (1 - 0.999**n)) + 1e-8)
            born = births[path] != births_after[path]
            young = ~born & (births[path] > 0)
            compared += young.sum()
            if path != "hidden_1/bias":  # which takes over what the units before it gave
                np.testing.assert_allclose(
                    after[path][~born], (params[path] + step)[~born], rtol=1e-4, atol=2e-6, err_msg=path
                )
            mu, nu, n = (np.where(born, 0, each) for each in (mu, nu, n))
    assert compared > 1_000


def test_a_unit_that_begins_anew_hardly_changes_the_output():
    steps, changes = history("dense"), []
    for t, ((params, before, gradients), (after, state, _)) in enumerate(itertools.pairwise(steps)):
        gone = state.rule["hidden_0/kernel"].age < before.rule["hidden_0/kernel"].age
        if gone.any():
            moved = jax.tree.map(lambda p, g: p - np.float32(STEP) * g, params, gradients)
            batches = jnp.concatenate([batch_at("dense", s) for s in range(t - 20, t)])
            was, now = (activity("dense", each, batches)["hidden_0"] for each in (moved, after))
            out = moved["hidden_1"]["kernel"], after["hidden_1"]["kernel"]
            shift = np.asarray(was @ out[0] + moved["hidden_1"]["bias"] - now @ out[1] - after["hidden_1"]["bias"])
            shift = shift[:, after["hidden_1"]["bias"] != 0]  # of units that stay
            without = np.asarray(was[:, gone] @ out[0][gone])[:, after["hidden_1"]["bias"] != 0]
            changes.append((np.abs(shift.mean(0)).mean(), np.abs(without.mean(0)).mean()))
    with_transfer, without = np.mean(changes, axis=0)
    assert len(changes) > 5 and with_transfer < 0.6 * without


@pytest.mark.parametrize("counter", [True, False], ids=["counter", "step"])
def test_lanes_and_a_lane_alone(counter):
    tx, update = programs("dense", "adam")
    alone = history("dense", "adam", updates=120)
    seeds = (0, 1)
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(initialise("dense", jax.random.key(s)) for s in seeds))
    state = jax.vmap(tx.init)(params)

    def one(params, state, t, key):
        return update(params, state, t, key, None if counter else t)[:2]

    together = jax.jit(jax.vmap(one, in_axes=(0, 0, None, 0)))
    for t in range(60):
        params, state = together(params, state, jnp.int32(t), jnp.stack([key_at(t, seed) for seed in seeds]))
    begun = {path: np.asarray(layer.age) < 60 for path, layer in state.rule.items()}
    assert any((flags[0] != flags[1]).any() for flags in begun.values())
    ours = jax.tree.map(lambda leaf: np.asarray(leaf[0]), (params, state.rule))
    expected = (alone[60][0], alone[60][1].rule)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), ours, expected)


def test_in_a_chain_and_in_a_sparse_network():
    """Beside a pull in every update, and with masks that it respects; rounds of its own."""
    name, where = "dense", ne_jax.kernels_under("hidden")
    rule = ne_jax.chain(
        ne_jax.set_(ne_jax.constant_share(0.3)), ne_jax.spaced(make(name), 10), ne_jax.regenerative_l2(0.01)
    )
    tx = ne_jax.plastic(optax.adam(1e-2), rule, 5, where=where)
    params = initialise(name, jax.random.key(0))
    params = ne_jax.sparsify(jax.random.key(1), params, ne_jax.uniform(0.5), where)
    held = {path: int(mask.sum()) for path, mask in ne_jax.masks(tx.init(params)).items()}

    @jax.jit
    def update(params, state, t, key):
        gradients = jax.grad(functools.partial(loss, name))(params, batch_at(name, t))
        updates, state = tx.update(gradients, state, params, batch=batch_at(name, t), key=key)
        return optax.apply_updates(params, updates), state

    state, begun = tx.init(params), []
    for t in range(120):
        old = state.rule[1]
        params, state = update(params, state, t, key_at(t))
        new = state.rule[1]
        gone = {path: np.asarray(new[path].age < old[path].age) for path in new}
        if any(flags.any() for flags in gone.values()):
            begun.append(t)
        for path, flags in gone.items():
            to = {"hidden_0/kernel": "hidden_1/kernel", "hidden_1/kernel": "head/kernel"}[path]
            assert not np.asarray(ne_jax.leaves_by_path(params)[to])[flags].any()
        for path, mask in state.masks.items():
            assert int(mask.sum()) == held[path]
            assert not np.asarray(ne_jax.leaves_by_path(params)[path])[~np.asarray(mask)].any()
    assert begun and all(t % 10 == 0 for t in begun)


@pytest.mark.parametrize(
    "knobs, message",
    [
        ({"replacement_rate": 1.5}, r"replacement_rate must lie in \[0, 1\], got 1.5"),
        ({"maturity": -1}, "maturity must not be a negative number of updates, got -1"),
        ({"decay": 1.0}, r"decay must lie in \[0, 1\), got 1.0"),
    ],
)
def test_wrong_settings(knobs, message):
    with pytest.raises(ValueError, match=message):
        make("dense", **knobs)


def test_networks_it_cannot_work_on():
    params = initialise("dense", jax.random.key(0))
    tx = ne_jax.plastic(optax.sgd(0.1), make("dense", follows=ne_jax.numbered()), 1, where=None)
    with pytest.raises(ValueError, match="continual_backprop finds no layer that another follows"):
        tx.init({"head": params["head"]})
    blind = ne_jax.continual_backprop(lambda params, batch: {"hidden_1": batch}, lambda key: params)
    tx = ne_jax.plastic(optax.sgd(0.1), blind, 1, where=None)
    with pytest.raises(ValueError, match=r"needs the activations of hidden_0/kernel, and there are only those of"):
        tx.update(params, tx.init(params), params, batch=jnp.zeros((2, 7)))


def normed(params, x):
    """Activations of a layer whose module holds a dense layer and a norm; the second time of another width."""
    dense, norm = params["hidden_0"]["dense"], params["hidden_0"]["norm"]
    h = x @ dense["kernel"] + dense["bias"]
    h = (h - h.mean(-1, keepdims=True)) / (h.std(-1, keepdims=True) + 1e-5)
    return {"hidden_0": jax.nn.relu(h * norm["scale"] + norm["bias"])}


def with_norm(key):
    return {
        "hidden_0": {
            "dense": {"kernel": jax.random.normal(key, (4, 6)), "bias": jnp.full(6, 0.5)},
            "norm": {"scale": jnp.full(6, 3.0), "bias": jnp.full(6, 0.25)},
        },
        "head": {"kernel": jnp.ones((6, 2)), "bias": jnp.zeros(2)},
    }


def follows(path, paths):
    return "head/kernel" if path.startswith("hidden_0") else None


def test_the_norm_of_a_unit_begins_anew_with_it():
    rule = ne_jax.continual_backprop(normed, with_norm, replacement_rate=0.2, maturity=3, follows=follows)
    params, tx = with_norm(jax.random.key(0)), ne_jax.plastic(optax.adam(0.0), rule, 1, where=None)
    state, x = tx.init(params), jax.random.normal(jax.random.key(1), (8, 4))
    for step in range(8):
        updates, state = tx.update(
            jax.tree.map(jnp.ones_like, params), state, params, batch=x, key=jax.random.key(step)
        )
        params = optax.apply_updates(params, updates)
    gone = np.asarray(params["head"]["kernel"])[:, 0] == 0
    assert 0 < gone.sum() < 6
    norm, bias = params["hidden_0"]["norm"], params["hidden_0"]["dense"]["bias"]
    np.testing.assert_array_equal(norm["scale"], np.where(gone, 1, 3))
    np.testing.assert_array_equal(norm["bias"], np.where(gone, 0, 0.25))
    np.testing.assert_array_equal(bias, np.where(gone, 0, 0.5))


def test_activations_of_another_width_are_refused():
    def halved(params, x):
        return {"hidden_0": normed(params, x)["hidden_0"][:, ::2]}  # 8 * 3 values, a multiple of the 6 that follow

    rule = ne_jax.continual_backprop(halved, with_norm, follows=follows)
    params, tx = with_norm(jax.random.key(0)), ne_jax.plastic(optax.adam(0.0), rule, 1, where=None)
    with pytest.raises(ValueError, match=r"gives activations of shape \(8, 3\), and 6 inputs follow"):
        tx.update(params, tx.init(params), params, batch=jnp.ones((8, 4)))
