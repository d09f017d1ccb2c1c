"""Rules that change every update, against accounts in numpy: float64, Adam by hand."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import ne_jax

Leaves = dict[str, np.ndarray]
RATE, UPDATES = 2.0**-6, 60
SPARSE = ne_jax.kernels_under("hidden")
SHAPES = {
    "conv_0": {"kernel": (2, 3, 2, 4), "bias": (4,)},
    "hidden_0": {"dense": {"kernel": (5, 8), "bias": (8,)}, "norm": {"scale": (8,), "bias": (8,)}},
    "hidden_1": {"dense": {"kernel": (8, 6), "bias": (6,)}, "norm": {"scale": (6,), "bias": (6,)}},
    "head": {"kernel": (6, 2), "bias": (2,)},
}


def normal(*seed: int, scale: float = 0.3) -> Any:
    rng = np.random.default_rng(seed)

    def draw(shape: tuple[int, ...]) -> Any:
        return jnp.asarray(scale * rng.normal(size=shape), jnp.float32)

    return jax.tree.map(draw, SHAPES, is_leaf=lambda shape: isinstance(shape, tuple))


def parameters(seed: int = 0, sparse: bool = False) -> Any:
    params = normal(seed)
    return ne_jax.sparsify(jax.random.key(seed), params, ne_jax.uniform(0.6), SPARSE) if sparse else params


def gradients_at(t: int, seed: int = 0) -> Any:
    """Noise about a mean, so that weights drift."""
    return jax.tree.map(lambda mean, noise: mean + noise, normal(seed, 7, scale=0.05), normal(seed, 1, t, scale=0.1))


def key_at(t: int, seed: int = 0) -> Any:
    return jax.random.fold_in(jax.random.key(seed), t)


def flat(tree: Any) -> Leaves:
    return {path: np.array(leaf, np.float64) for path, leaf in ne_jax.leaves_by_path(tree).items()}


def transformation(rule: ne_jax.Rule, sparse: bool = False, every: int = 7) -> Any:
    return ne_jax.plastic(optax.adam(RATE), rule, every, where=SPARSE if sparse else None)


def history(rule: ne_jax.Rule, sparse: bool = False, seed: int = 0, updates: int = UPDATES) -> list[Any]:
    """(params, state) before each update and after the last."""
    tx, params = transformation(rule, sparse), parameters(seed, sparse)
    update, steps = jax.jit(tx.update), [(params, tx.init(params))]
    for t in range(updates):
        params, state = steps[-1]
        changes, state = update(gradients_at(t, seed), state, params, key=key_at(t, seed))
        steps.append((optax.apply_updates(params, changes), state))
    return steps


class Adam:
    """Kingma and Ba 2015, algorithm 1."""

    def __init__(self) -> None:
        self.count, self.first, self.second = 0, {}, {}

    def __call__(self, gradients: Leaves) -> Leaves:
        self.count += 1
        for path, g in gradients.items():
            self.first[path] = 0.9 * self.first.get(path, 0) + 0.1 * g
            self.second[path] = 0.999 * self.second.get(path, 0) + 0.001 * g**2
        return {
            path: -RATE
            * (self.first[path] / (1 - 0.9**self.count))
            / (np.sqrt(self.second[path] / (1 - 0.999**self.count)) + 1e-8)
            for path in gradients
        }


def check(
    rule: ne_jax.Rule,
    gradient: Callable[[Leaves, Leaves], Leaves] = lambda params, gradients: gradients,
    after: Callable[[Leaves, Leaves, Leaves, int], Leaves] = lambda params, gradients, updates, t: {
        path: params[path] + updates[path] for path in params
    },
    *,
    sparse: bool = False,
    restarts: Callable[[int], bool] = lambda t: False,
) -> list[Any]:
    """The rule's parameters after every update are those of the account; its history.

    Args:
        gradient: (parameters, loss gradients) to the gradients that Adam is to see.
        after: (parameters, loss gradients, Adam's updates, update) to the parameters after it.
        restarts: whether Adam begins anew after an update.
    """
    steps, adam = history(rule, sparse), Adam()
    params = flat(steps[0][0])
    exists = {path: leaf != 0 for path, leaf in params.items()} if sparse else {}
    for t, (found, _) in enumerate(steps[1:]):
        gradients = flat(gradients_at(t))
        wanted = gradient(params, gradients)
        updates = adam({p: np.where(exists[p], g, 0) if p in exists else g for p, g in wanted.items()})
        params = after(params, gradients, updates, t)
        adam = Adam() if restarts(t) else adam
        for path, leaf in flat(found).items():
            if path in exists:
                params[path] = np.where(exists[path], params[path], 0)
                assert (leaf[~exists[path]] == 0).all()
            np.testing.assert_allclose(leaf, params[path], rtol=1e-4, atol=3e-5, err_msg=f"{path} after update {t}")
    return steps


def check_lanes_and_pause(rule: ne_jax.Rule, sparse: bool = False) -> None:
    """Two lanes of a `vmap` are each the lane alone, and after a pause training goes on bit for bit."""
    seeds, updates = (0, 1), 20
    alone = [history(rule, sparse, seed, updates) for seed in seeds]
    tx = transformation(rule, sparse)

    def lanes(each: Callable[[int], Any]) -> Any:
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(each, seeds))

    together = jax.jit(jax.vmap(lambda g, state, params, key: tx.update(g, state, params, key=key)))
    params = lanes(functools.partial(parameters, sparse=sparse))
    state = jax.vmap(tx.init)(params) if not sparse else lanes(lambda seed: tx.init(parameters(seed, True)))
    for t in range(updates):
        changes, state = together(
            lanes(functools.partial(gradients_at, t)), state, params, lanes(functools.partial(key_at, t))
        )
        params = optax.apply_updates(params, changes)
    for lane in range(len(seeds)):
        ours = jax.tree.map(lambda leaf, lane=lane: leaf[lane], (params, state.rule))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
            ours,
            (alone[lane][-1][0], alone[lane][-1][1].rule),
        )
    leaves, structure = jax.tree.flatten(alone[0][updates // 2])
    params, state = jax.tree.unflatten(structure, [jnp.asarray(np.array(leaf)) for leaf in leaves])
    update = jax.jit(tx.update, donate_argnums=1)
    for t in range(updates // 2, updates):
        changes, state = update(gradients_at(t), state, params, key=key_at(t))
        params = optax.apply_updates(params, changes)
    jax.tree.map(np.testing.assert_array_equal, (params, state), alone[0][-1])
