"""`plastic` around many optimisers: what holds after every update, with and without lanes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from oracles import SHAPES, Net, erk_counts, leaves_of_shape, primitives, random_params, scheduled, top_k

import ne_jax

EVERY, UNTIL, UPDATES = 5, 40, 60
SPARSE = ne_jax.kernels_under("hidden")
X = jax.random.normal(jax.random.key(1), (32, 5))
Y = jnp.stack([jnp.sin(X[:, 0]), X[:, 1] * X[:, 2], X[:, 3]], 1)
GROWTH = ne_jax.cosine_growth(0.25, 0.8, UNTIL)
OPTIMISERS = {
    "adam": lambda: optax.adam(1e-2),
    "clip, adamw": lambda: optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(1e-2, weight_decay=0.1)),
    "sgd": lambda: optax.sgd(0.05, momentum=0.9, nesterov=True),
    "multi-step": lambda: optax.MultiSteps(optax.adam(1e-2, mu_dtype=jnp.bfloat16), 3).gradient_transformation(),
    # moves weights that have no gradient
    "rmsprop, drift": lambda: optax.chain(
        optax.rmsprop(1e-2, momentum=0.9), optax.stateless(lambda u, p: jax.tree.map(lambda x: x + 1e-4, u))
    ),
}


def initial(seed):
    """Sparse parameters; the first four units of the first layer never fire."""
    params, rng = random_params(Net(), X, seed=seed), np.random.default_rng(seed)
    for path, count in erk_counts(SHAPES, 0.25).items():
        layer = params["params"][path.split("/")[1]]["dense"]
        layer["kernel"] *= top_k(rng.random(SHAPES[path]), count)
    params["params"]["hidden_0"]["dense"]["bias"][:4] = -100
    return params


def make(name, rule=None):
    # A tau above zero prunes units that still learn, whose moments are not zero by themselves.
    growing = ne_jax.neuroplastic(GROWTH, activity=ne_jax.flax_activity(Net().apply), tau=1.0)
    return ne_jax.plastic(OPTIMISERS[name](), rule or growing, EVERY, where=SPARSE)


def gradients(params):
    return jax.grad(lambda p: jnp.mean((jnp.asarray(Net().apply(p, X)) - Y) ** 2))(params)


def trainer(tx, explicit=True):
    """(params, key) -> params and optimiser state after each update, stacked."""

    def update(carry, t):
        params, state, key = carry
        extra = {"step": t} if explicit else {}
        updates, state = tx.update(gradients(params), state, params, batch=X, key=jax.random.fold_in(key, t), **extra)
        params = optax.apply_updates(params, updates)
        return (params, state, key), (params, state)

    return lambda params, key: jax.lax.scan(update, (params, tx.init(params), key), jnp.arange(UPDATES))[1]


@functools.cache
def solo(name):
    return jax.jit(trainer(make(name)))


@functools.cache
def lanes():
    keys = jax.random.split(jax.random.key(7), 3)
    return jax.tree.map(lambda *leaves: np.stack(leaves), *map(initial, range(3))), keys


def lane(tree, i):
    return jax.tree.map(lambda x: x[i], tree)


def by_path(tree):
    return {p: np.asarray(x) for p, x in ne_jax.leaves_by_path(tree).items()}


@functools.cache
def history(name, i=0):
    """Of one lane's run on its own: the start, then parameters and optimiser state after each update, all by path."""
    params, keys = lanes()
    after, states = solo(name)(lane(params, i), keys[i])
    return by_path(lane(params, i)), by_path(after), by_path(states)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_after_every_update(name):
    start, params, states = history(name)
    np.testing.assert_array_equal(states["count"], np.arange(1, UPDATES + 1))
    stale = 0
    for path, shape in SHAPES.items():
        masks, mask = states[f"masks/{path}"], start[path] != 0
        moments = leaves_of_shape(states, (UPDATES, *shape))
        assert moments and all(m.any() for m in moments)
        for t in range(UPDATES):
            before, mask = mask, masks[t]
            assert (params[path][t][~mask] == 0).all(), t
            for moment in moments:
                assert (moment[t][~mask] == 0).all(), t
            if t == 0 or t % EVERY:
                np.testing.assert_array_equal(mask, before)
                continue
            target = scheduled(SHAPES, 0.25, 0.8, t / UNTIL)[path]
            assert abs(mask.sum() - target) <= 1
            born = mask & ~before
            assert born.any() or t > UNTIL - EVERY
            assert (params[path][t][born] == 0).all()
            for moment in moments:
                assert (moment[t][born] == 0).all(), t
            stale += sum((moment[t - 1][before & ~mask] != 0).sum() for moment in moments)
        assert ((params[path][-1] != 0) & (start[path] == 0)).any()  # born weights learn
    assert stale > 0  # moments of pruned weights were there to be cleared
    silent = params["params/hidden_0/dense/bias"][:, :4] < -50
    assert silent[EVERY - 1].all() and not silent[-1].all()  # an emptied unit gets its bias back


@functools.cache
def unplastic():
    params, keys = lanes()
    after, states = jax.jit(trainer(make("adam", ne_jax.static())))(lane(params, 0), keys[0])
    return by_path(after), by_path(states)


def test_a_round_touches_nothing_else():
    """Up to the first round, and in it for every weight that stays, all is as if there were no rounds."""
    (start, ours, our_states), (static, static_states) = history("adam"), unplastic()
    np.testing.assert_array_equal(our_states["inner/0/count"], np.arange(1, UPDATES + 1))
    for path, before in start.items():
        if path in SHAPES:
            stays = (before != 0) & our_states[f"masks/{path}"][EVERY] & (ours[path][EVERY] != 0)
        else:
            stays = ours[path][EVERY] != 0  # a bias that was reset is zero
        assert stays.any() and (path not in SHAPES or not stays.all())
        pairs = [(ours[path], static[path])]
        pairs += [(our_states[f"inner/0/{m}/{path}"], static_states[f"inner/0/{m}/{path}"]) for m in ("mu", "nu")]
        for a, b in pairs:
            np.testing.assert_allclose(a[:EVERY], b[:EVERY], atol=1e-6)
            np.testing.assert_allclose(a[EVERY][stays], b[EVERY][stays], atol=1e-6)


def test_static_keeps_its_masks():
    start, _, _ = history("adam")
    params, states = unplastic()
    for path in SHAPES:
        assert (states[f"masks/{path}"] == (start[path] != 0)).all()
        assert (params[path][:, start[path] == 0] == 0).all() and (params[path][-1] != start[path]).any()


def test_masks_of_lanes_differ():
    params, _ = lanes()
    masks = jax.jit(jax.vmap(make("adam").init))(params).masks
    for path, mask in masks.items():
        np.testing.assert_array_equal(mask, np.asarray(ne_jax.leaves_by_path(params)[path]) != 0)
        assert (np.asarray(mask[0]) != mask[1]).any() and (np.asarray(mask[1]) != mask[2]).any()


@pytest.mark.parametrize("explicit", [True, False], ids=["step", "counter"])
def test_a_lane_equals_the_solo_run(explicit):
    """And the counter in the state does what an explicit step does, which the solo runs are given."""
    params, keys = lanes()
    batched, states = map(by_path, jax.jit(jax.vmap(trainer(make("adam"), explicit)))(params, keys))
    for i in range(3):
        _, alone, alone_states = history("adam", i)
        for path in SHAPES:
            np.testing.assert_array_equal(states[f"masks/{path}"][i], alone_states[f"masks/{path}"])
        for path, values in alone.items():
            np.testing.assert_allclose(batched[path][i], values, atol=2e-5)


@pytest.mark.parametrize("explicit", [True, False], ids=["step", "counter"])
def test_jaxpr_keeps_the_branch(explicit):
    params, keys = lanes()
    tx = make("adam")
    state = jax.vmap(tx.init)(params)

    def update(params, state, key, step):
        extra = {"step": step} if explicit else {}
        return tx.update(params, state, params, batch=X, key=key, **extra)

    vmapped = jax.vmap(update, in_axes=(0, 0, 0, None))
    found = primitives(jax.make_jaxpr(jax.jit(vmapped))(params, state, keys, jnp.int32(3)).jaxpr)
    assert ("cond", False) in found and ("cumsum", True) in found
    assert ("cumsum", False) not in found and ("dot_general", False) not in found  # nor are activations computed
