"""What a round bears or resets trains, step by step, as under an optimiser that was started then."""

import collections
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ne_jax

EVERY, UPDATES = 6, 27
SHAPES = {"a": {"kernel": (4, 3), "bias": (3,)}, "b": {"kernel": (3, 3)}, "log_alpha": ()}
PATHS = ("a/bias", "a/kernel", "b/kernel", "log_alpha")


def adam(rate: Any, **settings):
    return optax.adam(rate, **settings)


def warm(step):
    return 1e-2 * (1 + step)


def labels(params):
    return {"a": "x", "b": "y", "log_alpha": "x"}


DECAYED = {"a": {"kernel": True, "bias": False}, "b": {"kernel": True}, "log_alpha": False}
OPTIMISERS: dict[str, Any] = {
    "adam": lambda: adam(1e-2),
    "adamw": lambda: optax.adamw(1e-2, weight_decay=0.1, mask=DECAYED),
    "nadam": lambda: optax.nadam(1e-2, b1=0.7, b2=0.9),
    "amsgrad": lambda: optax.amsgrad(1e-2),
    "adabelief": lambda: optax.adabelief(1e-2),
    "radam": lambda: optax.radam(1e-2, b2=0.9),
    "rmsprop": lambda: optax.rmsprop(1e-2, bias_correction=True),
    "clip": lambda: optax.chain(optax.clip_by_global_norm(0.3), adam(1e-2)),
    "schedule": lambda: adam(warm),
    "two counts": lambda: optax.chain(optax.clip_by_global_norm(0.3), optax.scale_by_adam(b1=0.5), adam(warm)),
    "multi": lambda: optax.multi_transform({"x": adam(warm), "y": optax.nadam(1e-2)}, labels),
    "masked": lambda: optax.masked(optax.chain(optax.clip_by_global_norm(0.3), adam(warm)), DECAYED),
    "finite": lambda: optax.apply_if_finite(adam(1e-2), 3),
    "multi-step": lambda: optax.MultiSteps(adam(1e-2), 2).gradient_transformation(),
}
CLOCKS = {  # the counts that go on, by path in the optimiser's state
    "schedule": ["1/count"],
    "two counts": ["2/1/count"],
    "multi": ["inner_states/x/inner_state/1/count"],
    "masked": ["inner_state/1/1/count"],
    "multi-step": ["mini_step", "gradient_step"],
}


def tree(leaf):
    return jax.tree.map(leaf, SHAPES, is_leaf=lambda shape: isinstance(shape, tuple))


def parameters(seed=0):
    rng = np.random.default_rng(seed)
    return tree(lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32))


def gradients_at(t, seed=0):
    rng = np.random.default_rng([seed, t])
    return tree(lambda shape: jnp.asarray(rng.normal(size=shape) * 10 ** rng.uniform(-3, 1, shape), jnp.float32))


def cohorts(key, step, network):
    """Each round other weights start anew, at values of their own."""
    fresh, params = {}, {}
    for i, (path, leaf) in enumerate(sorted(network.params.items())):
        flags, values = jax.random.split(jax.random.fold_in(key, i))
        fresh[path] = jax.random.uniform(flags, leaf.shape) < 0.3
        params[path] = jnp.where(fresh[path], jax.random.normal(values, leaf.shape), leaf)
    return ne_jax.Evolved(params, {}, fresh)


COHORTS = ne_jax.Rule(ne_jax.stateless(cohorts))


@functools.cache
def history(name, seed=0):
    """Parameters, updates and the plastic state of every update; which weights each round bore."""
    tx = ne_jax.plastic(OPTIMISERS[name](), COHORTS, EVERY, where=None, seed=seed)
    params, update = parameters(seed), jax.jit(tx.update)
    state, steps, born = tx.init(params), [], {}
    for t in range(UPDATES):
        updates, after = update(gradients_at(t, seed), state, params)
        if t and t % EVERY == 0:
            key = jax.random.fold_in(jax.random.key(seed), t)
            born[t] = cohorts(key, t, ne_jax.Network(ne_jax.leaves_by_path(params), {}, {}, None)).fresh
        steps.append((params, updates, state))
        params, state = optax.apply_updates(params, updates), after
    return steps, {t: {path: np.asarray(flags) for path, flags in each.items()} for t, each in born.items()}


def started(name, params, state, t):
    """The optimiser's state as it would be if it were new at update `t`, but for the clocks."""
    now = ne_jax.leaves_by_path(state.inner)
    return ne_jax.replace_leaves(OPTIMISERS[name]().init(params), {path: now[path] for path in CLOCKS.get(name, [])})


FIRST = ("adam", "nadam", "clip", "schedule", "multi", "multi-step")  # one of each kind; the others are slow


@pytest.mark.parametrize(
    "name", [name if name in FIRST else pytest.param(name, marks=pytest.mark.slow) for name in OPTIMISERS]
)
def test_each_cohort_trains_as_under_a_new_optimiser(name):
    steps, born = history(name)
    last = {path: np.zeros(leaf.shape, int) for path, leaf in ne_jax.leaves_by_path(steps[0][0]).items()}
    update, compared = jax.jit(OPTIMISERS[name]().update), 0
    for begin in (0, *born):
        if begin:
            for path, flags in born[begin].items():
                last[path] = np.where(flags, begin, last[path])
        first = begin + 1 if begin else 0
        reference = started(name, steps[first][0], steps[first][2], first)
        ours_last = {path: flags.copy() for path, flags in last.items()}
        for t in range(first, UPDATES):
            params, updates, _ = steps[t]
            expected, reference = update(gradients_at(t), reference, params)
            if t in born:  # what a round replaces is not the optimiser's
                ours_last = {path: np.where(born[t][path], t, old) for path, old in ours_last.items()}
            ours, expected = ne_jax.leaves_by_path(updates), ne_jax.leaves_by_path(expected)
            for path in PATHS:
                same = ours_last[path] == begin
                compared += same.sum() if begin else 0
                np.testing.assert_allclose(
                    np.asarray(ours[path])[same], np.asarray(expected[path])[same], rtol=2e-4, atol=1e-9, err_msg=path
                )
    assert compared > 100


def test_what_no_round_has_touched_trains_as_without_rounds_to_the_last_bit():
    steps, born = history("adam")
    update, reference = jax.jit(optax.adam(1e-2).update), optax.adam(1e-2).init(steps[0][0])
    touched = {path: np.zeros(flags.shape, bool) for path, flags in born[EVERY].items()}
    for t, (params, updates, _) in enumerate(steps):
        expected, reference = update(gradients_at(t), reference, params)
        touched = {path: flags | (t in born and born[t][path]) for path, flags in touched.items()}
        for path, ours in ne_jax.leaves_by_path(updates).items():
            same = ~touched[path]
            np.testing.assert_array_equal(
                np.asarray(ours)[same], np.asarray(ne_jax.leaves_by_path(expected)[path])[same]
            )
    assert any(flags.any() and not flags.all() for flags in touched.values())


def test_without_a_count_per_weight_the_steps_would_be_too_long():
    """That is what the tests above would not miss: cleared moments under the old count of 200 updates."""
    tx, ones = optax.adam(1.0), {"w": jnp.ones(2)}
    state: Any = tx.init(ones)
    state = (state[0]._replace(count=jnp.int32(200)), *state[1:])
    steps = []
    for _ in range(13):
        updates, state = tx.update(ones, state, ones)
        steps.append(-float(updates["w"][0]))
    assert steps[0] > 1.3 and max(steps) > 2.5
    plastic = ne_jax.plastic(optax.adam(1.0), ne_jax.reset(lambda key: ones), 200, where=None)
    update, state = jax.jit(plastic.update), plastic.init(ones)
    for t in range(214):
        updates, state = update(ones, state, ones)
        assert t == 200 or float(updates["w"][0]) == pytest.approx(-1, rel=1e-3), t


@pytest.mark.parametrize(
    "name", ["adam", *(pytest.param(each, marks=pytest.mark.slow) for each in ("two counts", "multi-step"))]
)
def test_lanes_and_a_lane_alone(name):
    tx = ne_jax.plastic(OPTIMISERS[name](), COHORTS, EVERY, where=None)
    update = jax.jit(jax.vmap(lambda g, s, p, key: tx.update(g, s, p, key=key)))
    seeds = (0, 3)

    def lanes(each):
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(each, seeds))

    params = lanes(parameters)
    state = jax.vmap(tx.init)(params)
    for t in range(UPDATES):
        keys = lanes(lambda seed, t=t: jax.random.fold_in(jax.random.key(seed), t))
        updates, state = update(lanes(functools.partial(gradients_at, t)), state, params, keys)
        for lane, seed in enumerate(seeds):
            alone = history(name, seed)[0][t][1]
            for path, ours in ne_jax.leaves_by_path(updates).items():
                np.testing.assert_allclose(ours[lane], ne_jax.leaves_by_path(alone)[path], rtol=2e-4, atol=1e-7)
        params = optax.apply_updates(params, updates)


def test_only_rounds_have_births_and_only_counts_that_correct_bias():
    params = parameters()

    def births(inner, rule=COHORTS):
        return ne_jax.plastic(inner, rule, EVERY, where=None).init(params).births

    assert births(optax.adam(1e-2), ne_jax.static()) is None
    assert births(optax.adam(1e-2), ne_jax.regenerative_l2(0.1)) is None
    assert births(optax.sgd(1e-2, momentum=0.9)) is None
    assert births(optax.chain(optax.trace(0.9), optax.scale_by_schedule(warm))) is None
    assert set(births(adam(warm))) == {"0/count"}
    assert set(births(OPTIMISERS["two counts"]())) == {"1/count", "2/0/count"}
    multi = births(OPTIMISERS["multi"]())
    assert {count.split("/")[1]: set(leaves) for count, leaves in multi.items()} == {
        "x": {"a/bias", "a/kernel", "log_alpha"},
        "y": {"b/kernel"},
    }


def test_an_optimiser_that_cannot_be_had_per_weight_is_an_error_at_init():
    def steered(steer):
        def update(updates, state, params=None):
            state = optax.ScaleByAdamState(state.count + 1, updates, updates)
            return jax.tree.map(lambda u: steer(state.count, u), updates), state

        return optax.GradientTransformation(optax.scale_by_adam().init, update)

    branch = steered(lambda count, u: jax.lax.cond(count % 2 == 0, lambda: u, lambda: -u))
    with pytest.raises(ValueError, match="decides a branch by the count that corrects its bias"):
        ne_jax.plastic(branch, COHORTS, EVERY, where=None).init(parameters())
    table = steered(lambda count, u: u * jnp.arange(5.0)[count])
    with pytest.raises(ValueError, match=r"is not elementwise; use one that counts as adam does"):
        ne_jax.plastic(table, COHORTS, EVERY, where=None).init(parameters())
    ne_jax.plastic(table, ne_jax.static(), EVERY, where=None).init(parameters())  # no rounds, no need


def test_a_number_for_all_weights_cannot_depend_on_the_count_of_one():
    State = collections.namedtuple("State", "count mu extra")

    def update(updates, state, params=None):
        return updates, state._replace(count=state.count + 1, extra=state.extra + 0.5**state.count)

    def init(params):
        return State(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params), jnp.zeros(()))

    with pytest.raises(ValueError, match="keeps at extra one number for all weights"):
        ne_jax.plastic(optax.GradientTransformation(init, update), COHORTS, EVERY, where=None).init(parameters())
