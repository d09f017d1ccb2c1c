"""The lines that the README promises, in someone else's training loop: `flax.training.train_state.TrainState`."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.train_state import TrainState
from oracles import scheduled

import ne_jax


class MLP(nn.Module):
    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            x = nn.relu(nn.Dense(32)(x))
        return nn.Dense(1)(x)


SHAPES = {"params/Dense_0/kernel": (4, 32), "params/Dense_1/kernel": (32, 32), "params/Dense_2/kernel": (32, 1)}


def kernels_of(params):
    return [layer["kernel"] for layer in params["params"].values()]


def test_train_state():
    net, key, obs = MLP(), jax.random.key(0), jax.random.normal(jax.random.key(1), (128, 4))
    labels = jnp.sin(2 * obs[:, :1]) * obs[:, 1:2]

    params = ne_jax.sparsify(key, net.init(key, obs), ne_jax.erdos_renyi(density=0.2))
    growth = ne_jax.neuroplastic(ne_jax.cosine_growth(0.2, 0.75, until=300))
    tx = ne_jax.plastic(optax.adam(3e-3), growth, every=20)
    state = TrainState.create(apply_fn=net.apply, params=params, tx=tx)

    @jax.jit
    def train(state):
        def loss(params):
            return jnp.mean((state.apply_fn(params, obs) - labels) ** 2)

        value, gradients = jax.value_and_grad(loss)(state.params)
        return state.apply_gradients(grads=gradients), value

    losses, masks = [], {}
    for update in range(400):
        state, value = train(state)
        losses.append(float(value))
        if update % 20 == 0:
            masks = jax.tree.map(np.asarray, ne_jax.masks(state.opt_state))
            kernels = {path: np.asarray(p) for path, p in ne_jax.leaves_by_path(state.params).items()}
            exact = scheduled(SHAPES, 0.2, 0.75, update / 300)
            assert masks.keys() == SHAPES.keys()
            for path, mask in masks.items():
                assert abs(mask.sum() - exact[path]) <= 1
                assert (kernels[path][~mask] == 0).all()
    assert np.mean(losses[-20:]) < 0.3 * losses[0]
    assert abs(sum(np.count_nonzero(x) for x in kernels_of(params)) / 1184 - 0.2) < 0.002
    assert abs(sum(mask.sum() for mask in masks.values()) / 1184 - 0.75) < 0.002

    fresh = target = jax.tree.map(lambda p: p + 1, params)
    target = ne_jax.apply(ne_jax.masks(state.opt_state), target)
    for name, layer in target["params"].items():
        before = fresh["params"][name]
        mask = np.asarray(ne_jax.masks(state.opt_state)[f"params/{name}/kernel"])
        np.testing.assert_array_equal(layer["kernel"], np.where(mask, before["kernel"], 0))
        np.testing.assert_array_equal(layer["bias"], before["bias"])
