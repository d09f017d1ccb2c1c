"""Slow, plain references in Python and float64, and the small networks that the tests share."""

import functools
import math

import flax.linen as nn
import jax
import numpy as np


def top_k(scores, k, among=None):
    """The `k` best positions by sorting a Python list; NaN is worst, ties go to the lower flat index."""
    flat = [-math.inf if math.isnan(s) else float(s) for s in np.asarray(scores, np.float64).ravel()]
    allowed = [True] * len(flat) if among is None else np.asarray(among).ravel().tolist()
    best = sorted((i for i in range(len(flat)) if allowed[i]), key=lambda i: (-flat[i], i))
    chosen = np.zeros(len(flat), bool)
    chosen[best[: int(k)]] = True
    return chosen.reshape(np.shape(scores))


def erk_densities(shapes, density):
    """min(1, eps * sum(n) / prod(n)), with eps by bisection on the total."""

    def at(eps):
        return {p: min(1.0, eps * sum(s) / math.prod(s)) for p, s in shapes.items()}

    def held(eps):
        return sum(d * math.prod(shapes[p]) for p, d in at(eps).items())

    wanted = density * sum(map(math.prod, shapes.values()))
    low, high = 0.0, max(math.prod(s) / sum(s) for s in shapes.values())
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if held(middle) < wanted else (low, middle)
    return at(high)


def erk_counts(shapes, density):
    return _erk_counts(tuple(shapes.items()), density)


@functools.cache
def _erk_counts(items, density):
    shapes = dict(items)
    return {p: max(1, round(d * math.prod(shapes[p]))) for p, d in erk_densities(shapes, density).items()}


def cosine(x):
    return x + math.sin(math.pi * x) / math.pi


def scheduled(shapes, first, last, x, shape=cosine):
    """Weights per layer, as real numbers, when a share `x` of the growth's time is over."""
    a, b = erk_counts(shapes, first), erk_counts(shapes, last)
    return {p: a[p] + (b[p] - a[p]) * shape(min(x, 1.0)) for p in shapes}


def primitives(jaxpr, in_cond=False):
    """Every (primitive name, whether it lies in a branch of a cond) of a jaxpr, sub-jaxprs of any kind included."""
    found = set()
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        found.add((name, in_cond))
        for sub in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda v: hasattr(v, "eqns")):
            if hasattr(sub, "eqns"):
                found |= primitives(getattr(sub, "jaxpr", sub), in_cond or name == "cond")
    return found


def leaves_of_shape(tree, shape):
    """The floating point leaves of `tree` that have `shape`: an optimiser's moments of that parameter."""
    return [x for x in map(np.asarray, jax.tree.leaves(tree)) if x.shape == shape and x.dtype.kind not in "biu"]


class Layer(nn.Module):
    """Dense and relu, sowing the activations as `flax_activity` wants them."""

    width: int

    @nn.compact
    def __call__(self, x):
        h = nn.relu(nn.Dense(self.width, name="dense")(x))
        self.sow("intermediates", "activation", h)
        return h


class Net(nn.Module):
    """Two sparse hidden layers and a dense head; every kernel has a shape of its own."""

    @nn.compact
    def __call__(self, x):
        x = Layer(16, name="hidden_0")(x)
        return nn.Dense(3, name="head")(Layer(12, name="hidden_1")(x))


def random_params(net, *inputs, seed=0):
    """Parameters of a Flax network, normal / sqrt(fan-in), drawn by numpy: initialisers take long to compile."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs)
    return jax.tree.map(
        lambda leaf: (rng.normal(size=leaf.shape) / math.sqrt(math.prod(leaf.shape[:-1]))).astype(np.float32), shapes
    )


FIRST, SECOND = "params/hidden_0/dense/kernel", "params/hidden_1/dense/kernel"
SHAPES = {FIRST: (5, 16), SECOND: (16, 12)}
