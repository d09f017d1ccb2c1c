"""A `flax.nnx` model with its `nnx.Optimizer`, growing while it tells three spiral arms apart.

python -m examples.nnx_classification
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import ne_jax

UPDATES, EVERY, ARMS = 300, 15, 3


class Classifier(nnx.Module):
    """Two hidden layers."""

    def __init__(self, rngs: nnx.Rngs):
        self.hidden_0 = nnx.Linear(2, 64, rngs=rngs)
        self.hidden_1 = nnx.Linear(64, 64, rngs=rngs)
        self.head = nnx.Linear(64, ARMS, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.hidden_1(nnx.relu(self.hidden_0(x)))))


def spirals(key, points):
    """Points on noisy spiral arms, and the number of each one's arm."""
    key_radius, key_arm, key_noise = jax.random.split(key, 3)
    radius = jax.random.uniform(key_radius, (points,), minval=0.1)
    arm = jax.random.randint(key_arm, (points,), 0, ARMS)
    angle = 4 * radius + 2 * jnp.pi * arm / ARMS + 0.1 * jax.random.normal(key_noise, (points,))
    return radius[:, None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1), arm


@nnx.jit
def train_step(model, optimizer, points, arms):
    """One step of gradient descent: nothing in here knows that the network grows."""

    def cross_entropy(model):
        return optax.softmax_cross_entropy_with_integer_labels(model(points), arms).mean()

    loss, gradients = nnx.value_and_grad(cross_entropy)(model)
    optimizer.update(model, gradients)
    return loss


def main():
    """Train; return model, optimiser and (updates made before, loss, density) of every round."""
    model = Classifier(nnx.Rngs(0))
    points, arms = spirals(jax.random.key(1), 512)

    # The three lines: a sparse start, a schedule of growth, the optimiser around yours.
    nnx.update(model, ne_jax.sparsify(jax.random.key(0), nnx.state(model, nnx.Param), ne_jax.erdos_renyi(density=0.1)))
    growth = ne_jax.neuroplastic(ne_jax.cosine_growth(0.1, 0.5, until=225))
    tx = ne_jax.plastic(optax.adam(3e-3), growth, every=EVERY)

    optimizer, history = nnx.Optimizer(model, tx, wrt=nnx.Param), []
    for update in range(UPDATES):
        loss = train_step(model, optimizer, points, arms)
        if update % EVERY == 0:
            density = ne_jax.density(ne_jax.masks(nnx.as_pure(optimizer.opt_state)))
            history.append((update, float(loss), float(density["all"])))
            print(f"update {update:3}  loss {loss:.4f}  density {density['all']:.3f}")
    for path, share in ne_jax.density(ne_jax.masks(nnx.as_pure(optimizer.opt_state))).items():
        print(f"{path}: {share:.3f} of its weights")
    return model, optimizer, history


if __name__ == "__main__":
    main()
