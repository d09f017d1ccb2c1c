"""Every method against what it promises: what changes in a round, what must not, exact counts, moments, randomness."""

import functools
import itertools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ne_jax

EVERY, WIDTH = 3, (9, 8)
LAYERS = ("hidden_0/kernel", "hidden_1/kernel")
WHERE = ne_jax.kernels_under("hidden")


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        for i, width in enumerate(WIDTH):
            x = nn.relu(nn.Dense(width, name=f"hidden_{i}", bias_init=nn.initializers.normal(0.1))(x))
            self.sow("intermediates", f"h{i}", x)
        return nn.Dense(2, name="head")(x)


NET = Net()
BATCH = jax.random.normal(jax.random.key(9), (16, 5))


def initialise(key) -> Any:
    return NET.init(key, BATCH)["params"]


def activity(params, batch) -> Any:
    seen: Any
    _, seen = NET.apply({"params": params}, batch, mutable=["intermediates"])
    return {f"hidden_{i}": seen["intermediates"][f"h{i}"][0] for i in range(2)}


def loss(params, target):
    return ((NET.apply({"params": params}, BATCH) - target) ** 2).mean()


GROWTH = ne_jax.cosine_growth(0.3, 0.7, until=4 * EVERY)
SPARSE: dict[str, Any] = {
    "neuroplastic": lambda: ne_jax.neuroplastic(GROWTH, activity=activity, tau=0.3),
    "by_magnitude": lambda: ne_jax.neuroplastic(GROWTH, prune="magnitude"),
    "by_gradient": lambda: ne_jax.neuroplastic(GROWTH, prune="grama", tau=0.3),
    "lecun_revival": lambda: ne_jax.neuroplastic(GROWTH, activity=activity, tau=0.3, revive="lecun"),
    "random_grow": lambda: ne_jax.random_grow(GROWTH, activity=activity, tau=0.3),
    "rigl": lambda: ne_jax.rigl(ne_jax.cosine_share(0.3, until=100)),
    "set": lambda: ne_jax.set_(ne_jax.constant_share(0.3)),
    "magnitude_prune": lambda: ne_jax.magnitude_prune(ne_jax.cubic_pruning(0.4, until=4 * EVERY)),
    "with_redo": lambda: ne_jax.chain(
        ne_jax.neuroplastic(GROWTH, activity=activity), ne_jax.redo(activity, initialise, tau=0.3)
    ),
}
DENSE: dict[str, Any] = {
    "redo": lambda: ne_jax.redo(activity, initialise, tau=0.4),
    "grama": lambda: ne_jax.grama(activity, initialise, tau=0.4),
    "reset": lambda: ne_jax.reset(initialise),
    "shrink_and_perturb": lambda: ne_jax.shrink_and_perturb(initialise),
    "regenerative_l2": lambda: ne_jax.regenerative_l2(0.01),
}


@functools.cache
def programs(name, **settings):
    sparse = name in SPARSE
    rule = (SPARSE | DENSE)[name]()
    tx = ne_jax.plastic(optax.adam(1e-2), rule, EVERY, where=WHERE if sparse else None, **settings)

    def start(key):
        params = initialise(key)
        if sparse:
            first = 1.0 if name == "magnitude_prune" else 0.3
            params = ne_jax.sparsify(jax.random.fold_in(key, 1), params, ne_jax.erdos_renyi(first), WHERE)
        return params, tx.init(params)

    def update(params, state, target, key, step):
        gradients = jax.grad(loss)(params, target)
        updates, state = tx.update(gradients, state, params, step=step, batch=BATCH, key=key)
        return optax.apply_updates(params, updates), state

    return start, jax.jit(update), jax.jit(jax.vmap(update, in_axes=(0, 0, None, 0, None)))


TARGETS = jax.random.normal(jax.random.key(5), (6 * EVERY, 16, 2))


def history(name, seed=0, steps=5 * EVERY):
    """(params, state) before and after each update."""
    start, update, _ = programs(name)
    now = start(jax.random.key(seed))
    states = [now]
    for i in range(steps):
        now = update(*now, TARGETS[i], jax.random.key(100 + i), jnp.int32(i))
        states.append(now)
    return [jax.tree.map(np.asarray, (ne_jax.leaves_by_path(p), s)) for p, s in states]


def moments(state):
    adam = next(s for s in jax.tree.leaves(state.inner, is_leaf=lambda s: hasattr(s, "mu")) if hasattr(s, "mu"))
    return ne_jax.leaves_by_path(adam.mu), ne_jax.leaves_by_path(adam.nu)


@pytest.mark.parametrize("name", SPARSE)
def test_sparse_methods(name):
    states = history(name)
    rounds = 0
    for i, ((_, before), (params, after)) in enumerate(itertools.pairwise(states)):
        due = i > 0 and i % EVERY == 0
        for path in LAYERS:
            old, new = before.masks[path], after.masks[path]
            assert (params[path][~new] == 0).all()
            for moment in moments(after):
                assert (moment[path][~new] == 0).all()
                assert (moment[path][new & ~old] == 0).all()  # newborn
            if not due:
                np.testing.assert_array_equal(old, new)
                continue
            rounds += (old != new).any()
            if name in ("rigl", "set"):
                assert old.sum() == new.sum() and (old != new).any()
            elif name == "magnitude_prune":
                assert not (new & ~old).any()
            else:
                shapes = {p: before.masks[p].shape for p in LAYERS}
                assert new.sum() == max(int(ne_jax.counts_at(GROWTH, shapes, i)[path]), old.sum())
        if due:
            record = after.record
            pairs = [(before.masks[p], after.masks[p]) for p in LAYERS]
            assert record.born == sum((new & ~old).sum() for old, new in pairs)
            assert record.removed == sum((old & ~new).sum() for old, new in pairs)
            both, either = sum((o & n).sum() for o, n in pairs), sum((o | n).sum() for o, n in pairs)
            np.testing.assert_allclose(record.churn, 1 - both / either, rtol=1e-5, atol=1e-7)
            earlier = {p: np.any([s.masks[p] for _, s in states[: i + 1]], axis=0) for p in LAYERS}
            born_again = sum((after.masks[p] & ~before.masks[p] & earlier[p]).sum() for p in LAYERS)
            assert record.regrown == born_again
    assert rounds > 0


QUICK = ("neuroplastic", "with_redo", "set", "reset")


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in (*SPARSE, *DENSE)]
)
def test_a_vmapped_lane_is_the_solo_run_again_and_again(name):
    start, _, together = programs(name)
    seeds, steps = (0, 1), 2 * EVERY + 1
    lanes = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(start(jax.random.key(seed)) for seed in seeds))
    for i in range(steps):
        keys = jnp.stack([jax.random.key(100 + i)] * 2)
        lanes = together(*lanes, TARGETS[i], keys, jnp.int32(i))
    for lane, seed in enumerate(seeds):
        solo = history(name, seed, steps)[-1]
        for a, b in zip(
            jax.tree.leaves((ne_jax.leaves_by_path(lanes[0]), lanes[1])), jax.tree.leaves(solo), strict=True
        ):
            np.testing.assert_allclose(np.asarray(a)[lane], b, rtol=1e-4, atol=1e-5)
    again = history(name, 0, steps)[-1]
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(history(name, 0, steps)[-1]), strict=True):
        np.testing.assert_array_equal(a, b)


def one_round(name, **settings):
    """Params and moments before the round and after it, and the plain Adam step in its place."""
    start, update, _ = programs(name, **settings)
    now = start(jax.random.key(3))
    for i in range(EVERY):
        now = update(*now, TARGETS[i], jax.random.key(i), jnp.int32(i))
    plain = update(*now, TARGETS[EVERY], jax.random.key(7), jnp.int32(EVERY + 1))  # not a multiple: no round
    after = update(*now, TARGETS[EVERY], jax.random.key(7), jnp.int32(EVERY))
    return [(ne_jax.leaves_by_path(jax.tree.map(np.asarray, p)), s) for p, s in (now, plain, after)]


@pytest.mark.parametrize("name", ["redo", "grama"])
def test_recycling_by_brute_force(name):
    (before, _), (plain, _), (after, state) = one_round(name)
    drawn = ne_jax.leaves_by_path(initialise(jax.random.key(7)))
    gradients = ne_jax.leaves_by_path(jax.grad(loss)(unflat(before), TARGETS[EVERY]))
    h = activity(unflat(before), BATCH)
    expected, fresh = (
        {p: leaf.copy() for p, leaf in plain.items()},
        {p: np.zeros(v.shape, bool) for p, v in plain.items()},
    )
    idle = []
    for i in range(2):
        if name == "redo":
            magnitude = np.abs(np.asarray(h[f"hidden_{i}"], np.float64)).mean(0)
        else:
            magnitude = np.abs(np.asarray(gradients[LAYERS[i]], np.float64)).mean(0)
        idle.append(np.flatnonzero(magnitude / magnitude.mean() <= 0.4))
        for unit in idle[i]:
            expected[LAYERS[i]][:, unit], expected[f"hidden_{i}/bias"][unit] = drawn[LAYERS[i]][:, unit], 0
            fresh[LAYERS[i]][:, unit], fresh[f"hidden_{i}/bias"][unit] = True, True
    for i, following in enumerate((LAYERS[1], "head/kernel")):
        for unit in idle[i]:
            expected[following][unit], fresh[following][unit] = 0, True
    assert any(len(units) for units in idle) and not all(len(u) == w for u, w in zip(idle, WIDTH, strict=True))
    for path, leaf in expected.items():
        np.testing.assert_allclose(after[path], leaf, rtol=1e-5, atol=1e-6, err_msg=path)
        for moment in moments(state):
            assert (np.asarray(moment[path])[fresh[path]] == 0).all()
            assert (np.asarray(moment[path])[~fresh[path]] != 0).any()


def two_units(x):
    """A layer whose first unit is silent, with a norm, and the layer behind it."""
    return {
        "a": {"kernel": jnp.full((3, 2), x), "bias": jnp.full(2, x), "scale": jnp.full(2, x)},
        "head": {"kernel": jnp.full((2, 4), x), "bias": jnp.full(4, x)},
    }


def recycled(rule):
    """Parameters of 2 after one round, with an optimiser that does not move them."""
    tx, params = ne_jax.plastic(optax.sgd(0.0), rule, 1, where=None), two_units(2.0)
    batch = jnp.array([[0.0, 1.0], [0.0, 3.0]])
    gradients = jax.tree.map(jnp.ones_like, params)
    updates, _ = tx.update(gradients, tx.init(params), params, batch=batch, step=jnp.int32(1), key=jax.random.key(0))
    return {
        path: np.asarray(leaf) for path, leaf in ne_jax.leaves_by_path(optax.apply_updates(params, updates)).items()
    }


def test_a_recycled_units_bias_is_zero_whatever_is_drawn():
    rule = ne_jax.redo(
        lambda params, batch: {"a": batch}, lambda key: two_units(7.0), follows=lambda path, paths: "head/kernel"
    )
    after = recycled(rule)
    assert after["a/kernel"].tolist() == [[7, 2]] * 3 and after["head/kernel"].tolist() == [[0] * 4, [2] * 4]
    assert after["a/bias"].tolist() == [0, 2] and after["a/scale"].tolist() == [1, 2]
    assert (after["head/bias"] == 2).all()


def test_a_layer_of_another_network_is_recycled_in_two_halves():
    """What one network does with both layers, two rules do with one each."""

    def activity(params, batch):
        return {"a": batch, "outside": batch}

    def draw(key):
        return two_units(7.0)

    def nobody(path, paths):
        return None

    first = recycled(ne_jax.redo(activity, draw, follows=nobody, leads_out=lambda path, leaf: path == "a/kernel"))
    assert first["a/kernel"].tolist() == [[7, 2]] * 3 and (first["head/kernel"] == 2).all()
    second = ne_jax.redo(
        activity, draw, follows=nobody, leads_out=lambda path, leaf: True, taken={"head/kernel": "outside"}
    )
    assert recycled(second)["head/kernel"].tolist() == [[0] * 4, [2] * 4]
    wrong = ne_jax.redo(activity, draw, leads_out=lambda path, leaf: True, taken={"haed/kernel": "outside"})
    with pytest.raises(ValueError, match="redo: `taken` names haed/kernel, which is none of"):
        recycled(wrong)


def unflat(flat):
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        module, name = path.split("/")
        tree.setdefault(module, {})[name] = jnp.asarray(leaf)
    return tree


def test_reset_and_shrink_and_perturb():
    for name in ("reset", "shrink_and_perturb"):
        _, (plain, _), (after, state) = one_round(name)
        drawn = ne_jax.leaves_by_path(initialise(jax.random.key(7)))
        for path in plain:
            expected = drawn[path] if name == "reset" else 0.8 * plain[path] + 0.2 * drawn[path]
            np.testing.assert_allclose(after[path], expected, rtol=1e-5, atol=1e-6)
            assert all((np.asarray(moment[path]) == 0).all() for moment in moments(state))


def test_reset_of_the_head_leaves_the_rest():
    tx = ne_jax.plastic(
        optax.sgd(0.0), ne_jax.reset(initialise, where=lambda path, _: path.startswith("head/")), 1, where=None
    )
    params = initialise(jax.random.key(0))
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params, step=jnp.int32(1))
    moved = {path for path, u in ne_jax.leaves_by_path(updates).items() if np.any(u)}
    assert moved == {"head/kernel"}  # biases of the head begin at zero in any draw


def test_regenerative_l2_is_the_gradient_of_its_loss():
    params, initial = (initialise(jax.random.key(seed)) for seed in (0, 1))
    tx = ne_jax.plastic(optax.sgd(1.0), ne_jax.regenerative_l2(0.3), 1, where=None)
    gradients = jax.grad(loss)(params, TARGETS[0])

    def whole(p):
        distance = jax.tree.map(lambda a, b: ((a - b) ** 2).sum(), p, initial)
        return loss(p, TARGETS[0]) + 0.3 * sum(jax.tree.leaves(distance))

    updates, _ = tx.update(gradients, tx.init(initial), params)
    jax.tree.map(lambda u, g: np.testing.assert_allclose(-u, g, rtol=1e-4, atol=1e-5), updates, jax.grad(whole)(params))


class Injected(nn.Module):
    @nn.compact
    def __call__(self, x):
        parts = [nn.Dense(3, name=name)(x) for name in ("trunk", "fresh", "anchor")]
        return nn.Dense(1, name="out")(parts[0] + parts[1] - parts[2])


def test_plasticity_injection_trains_one_copy_at_a_time():
    net, at = Injected(), 3
    params = ne_jax.inject(net.init(jax.random.key(0), BATCH)["params"])
    np.testing.assert_array_equal(params["fresh"]["kernel"], params["anchor"]["kernel"])
    tx = ne_jax.plastic(optax.adam(1e-2), ne_jax.plasticity_injection(at), 1, where=None)
    state = tx.init(params)

    def injected_loss(params, target):
        return ((net.apply({"params": params}, BATCH) - target) ** 2).mean()

    for i in range(6):
        gradients = jax.grad(injected_loss)(params, TARGETS[i][:, :1])
        updates, state = tx.update(gradients, state, params, step=jnp.int32(i))
        moved = {name: bool(np.any(np.asarray(leaf["kernel"]))) for name, leaf in updates.items()}
        assert moved == {"trunk": i < at, "fresh": i >= at, "anchor": False, "out": True}
        params = optax.apply_updates(params, updates)
        if i < at:
            np.testing.assert_array_equal(params["fresh"]["kernel"], params["anchor"]["kernel"])


def test_accumulated_gradients_are_the_mean_of_the_newest():
    """A rule that writes the gradient it sees into the weights."""

    def show(key, step, network):
        seen = network.gradients["a"]
        return ne_jax.Evolved({"a": seen}, {}, {"a": jnp.ones(seen.shape, bool)})

    tx = ne_jax.plastic(
        optax.sgd(0.0), ne_jax.Rule(ne_jax.stateless(show)), 4, where=lambda path, _: path == "a", accumulate=3
    )
    params = {"a": jnp.ones((2, 2))}
    state, shown = tx.init(params), {}
    for i in range(9):
        updates, state = tx.update({"a": jnp.full((2, 2), 2.0**i)}, state, params, step=jnp.int32(i))
        moved = optax.apply_updates(params, updates)["a"][0, 0]
        if moved != 1:
            shown[i] = float(moved)
    # Rounds at 4 and 8 see updates 2 to 4 and 6 to 8.
    assert shown == pytest.approx({4: (4 + 8 + 16) / 3, 8: (64 + 128 + 256) / 3})


def dead_unit(revive: Any, grow: Any = "gradient"):
    """A layer whose unit 0 has lost all inputs and is silent; rounds of growth from there."""
    params = initialise(jax.random.key(2))
    kernel = jnp.where(jnp.arange(WIDTH[1]) == 0, 0, params["hidden_1"]["kernel"])
    mask = jax.random.uniform(jax.random.key(3), kernel.shape) < 0.4
    params["hidden_1"] = {"kernel": jnp.where(mask, kernel, 0), "bias": params["hidden_1"]["bias"].at[0].set(0.0)}
    growth = ne_jax.linear_growth(ne_jax.uniform(0.35), ne_jax.uniform(0.6), until=8)
    rule = ne_jax.neuroplastic(growth, prune="magnitude", omega=0.0, revive=revive, grow=grow)
    tx = ne_jax.plastic(optax.adam(1e-2), rule, 1, where=lambda path, _: path == "hidden_1/kernel")
    state, update, gradient = tx.init(params), jax.jit(tx.update), jax.jit(jax.grad(loss))
    for i in range(1, 9):
        gradients = gradient(params, TARGETS[i])
        if revive == "none" and grow == "gradient":
            assert not np.any(gradients["hidden_1"]["kernel"][:, 0])  # nothing asks for it
        updates, state = update(gradients, state, params, step=jnp.int32(i), key=jax.random.key(i))
        params = optax.apply_updates(params, updates)
    return np.asarray(state.masks["hidden_1/kernel"][:, 0]), np.asarray(activity(params, BATCH)["hidden_1"][:, 0])


def test_a_dead_unit_stays_dead_unless_it_is_revived():
    inputs, h = dead_unit("none")
    assert not inputs.any() and not h.any()
    inputs, h = dead_unit("bias")
    assert inputs.any() and h.any()
    inputs, _ = dead_unit("lecun")
    assert inputs.any()  # it may be off for this batch: its few weights have either sign


def test_what_cannot_be_composed_is_refused():
    injection = ne_jax.plasticity_injection(5)
    with pytest.raises(ValueError, match="plasticity_injection comes twice"):
        ne_jax.chain(injection, injection)
    with pytest.raises(ValueError, match="neuroplastic and rigl cannot share a network"):
        ne_jax.chain(SPARSE["neuroplastic"](), SPARSE["rigl"]())
    with pytest.raises(ValueError, match="cannot go with redo"):
        ne_jax.chain(injection, DENSE["redo"]())
    with pytest.raises(ValueError, match="at least one"):
        ne_jax.chain()


def test_spaced_rounds():
    rule = ne_jax.spaced(ne_jax.reset(initialise), 2 * EVERY)
    tx = ne_jax.plastic(optax.sgd(0.0), rule, EVERY, where=None)
    params, update = initialise(jax.random.key(0)), jax.jit(tx.update)
    state, moved = tx.init(params), []
    for i in range(4 * EVERY + 1):
        updates, state = update(jax.tree.map(jnp.zeros_like, params), state, params, step=jnp.int32(i))
        if np.any(updates["head"]["kernel"]):
            moved.append(i)
    assert moved == [2 * EVERY, 4 * EVERY]


def test_a_fresh_state_can_be_donated():
    tx = ne_jax.plastic(optax.adam(1e-2), SPARSE["rigl"](), 4, where=WHERE, accumulate=2)
    params = ne_jax.sparsify(jax.random.key(0), initialise(jax.random.key(1)), ne_jax.erdos_renyi(0.3), WHERE)
    update = jax.jit(lambda state, gradients: tx.update(gradients, state, params)[1], donate_argnums=0)
    assert int(update(tx.init(params), jax.tree.map(jnp.ones_like, params)).count) == 1
