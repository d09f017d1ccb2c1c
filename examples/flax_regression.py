"""A plain Flax `TrainState`, and three lines that make its network grow while it learns.

python -m examples.flax_regression
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.training.train_state import TrainState

import ne_jax

UPDATES, EVERY = 400, 20


class MLP(nn.Module):
    """Two hidden layers."""

    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            x = nn.relu(nn.Dense(64)(x))
        return nn.Dense(1)(x)


@jax.jit
def train_step(state, inputs, targets):
    """One step of gradient descent: nothing in here knows that the network grows."""

    def mean_squared_error(params):
        return jnp.mean((state.apply_fn(params, inputs) - targets) ** 2)

    loss, gradients = jax.value_and_grad(mean_squared_error)(state.params)
    return state.apply_gradients(grads=gradients), loss


def main():
    """Train; return the last state and (updates made before, loss, density) of every round."""
    net, key = MLP(), jax.random.key(0)
    inputs = jax.random.uniform(jax.random.key(1), (256, 2), minval=-1, maxval=1)
    targets = jnp.sin(4 * inputs[:, :1]) * inputs[:, 1:]

    # The three lines: a sparse start, a schedule of growth, the optimiser around yours.
    params = ne_jax.sparsify(key, net.init(key, inputs), ne_jax.erdos_renyi(density=0.2))
    growth = ne_jax.neuroplastic(ne_jax.cosine_growth(0.2, 0.75, until=300))
    tx = ne_jax.plastic(optax.adam(3e-3), growth, every=EVERY)

    state, history = TrainState.create(apply_fn=net.apply, params=params, tx=tx), []
    for update in range(UPDATES):
        state, loss = train_step(state, inputs, targets)
        if update % EVERY == 0:
            density = ne_jax.density(ne_jax.masks(state.opt_state))
            history.append((update, float(loss), float(density["all"])))
            print(f"update {update:3}  loss {loss:.4f}  density {density['all']:.3f}")
    for path, share in ne_jax.density(ne_jax.masks(state.opt_state)).items():
        print(f"{path}: {share:.3f} of its weights")
    return state, history


if __name__ == "__main__":
    main()
