"""A whole experiment as one function, `jit(vmap(make_train(config)))` over seeds: REINFORCE with a policy that grows.

The optimiser counts its updates itself, in its state. Once that state is vmapped, every seed has a counter of its own,
and a `lax.cond` on it would become a select: every update would compute a round. `ne_jax.plastic` keeps it a branch,
which is taken when a round is due.

python -m examples.vmapped_make_train
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import ne_jax

CONFIG = {"updates": 100, "every": 10, "grow_until": 150, "episodes": 64, "steps": 12, "learning_rate": 3e-3}
MOVES = 0.2 * jnp.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])


class Policy(nn.Module):
    """Logits of the five moves."""

    @nn.compact
    def __call__(self, x):
        for i in range(2):
            x = nn.relu(nn.Dense(64, name=f"hidden_{i}")(x))
        return nn.Dense(len(MOVES), name="head")(x)


def hidden(path, leaf):
    """The sparse leaves. The head stays dense: no nonlinearity follows it, so its units are never dormant."""
    return "hidden" in path and path.endswith("kernel")


def make_train(config):
    """The function `train(rng, state=None) -> (state, log)` of one seed; the state is (params, opt_state).

    It makes `config["updates"]` updates, from the start or on from a state.
    """
    net: Any = Policy()
    schedule = ne_jax.cosine_growth(0.1, 0.5, until=config["grow_until"])
    growth = ne_jax.neuroplastic(schedule, activity=ne_jax.flax_activity(net.apply, activation=nn.relu))
    tx = ne_jax.plastic(optax.adam(config["learning_rate"]), growth, every=config["every"], where=hidden)

    def play(params, rng):
        """Walk to the middle of a square from anywhere; the reward of a step is minus the distance."""

        def step(position, rng):
            action = jax.random.categorical(rng, net.apply(params, position))
            after = jnp.clip(position + MOVES[action], -1, 1)
            return after, (position, action, -jnp.linalg.norm(after, axis=-1))

        rng_start, rng_steps = jax.random.split(rng)
        start = jax.random.uniform(rng_start, (config["episodes"], 2), minval=-1, maxval=1)
        return jax.lax.scan(step, start, jax.random.split(rng_steps, config["steps"]))[1]

    def loss(params, positions, actions, rewards):
        to_go = jnp.cumsum(rewards[::-1], axis=0)[::-1]
        advantage = to_go - to_go.mean(axis=1, keepdims=True)  # over the episodes, at the same time of each
        log_probs = jax.nn.log_softmax(net.apply(params, positions))
        taken = jnp.take_along_axis(log_probs, actions[..., None], axis=-1)[..., 0]
        return -(taken * advantage).mean()

    def begin(rng):
        rng_net, rng_sparse = jax.random.split(rng)
        params = net.init(rng_net, jnp.zeros(2))
        params = ne_jax.sparsify(rng_sparse, params, ne_jax.erdos_renyi(density=0.1), where=hidden)
        return params, tx.init(params)

    def update(state, rng):
        params, opt_state = state
        rng_play, rng_round = jax.random.split(rng)
        positions, actions, rewards = play(params, rng_play)
        gradients = jax.grad(loss)(params, positions, actions, rewards)
        updates, opt_state = tx.update(gradients, opt_state, params, batch=positions, key=rng_round)
        log = {"return": rewards.sum(axis=0).mean(), "density": ne_jax.density(ne_jax.masks(opt_state))["all"]}
        return (optax.apply_updates(params, updates), opt_state), log

    def train(rng, state=None):
        rng_begin, rng_train = jax.random.split(rng)
        rngs = jax.random.split(rng_train, config["updates"])
        return jax.lax.scan(update, begin(rng_begin) if state is None else state, rngs)

    return train


def main(seeds=4):
    """Train all seeds side by side, in two stretches; return their states and logs, the seeds as leading axis."""
    train = jax.jit(jax.vmap(make_train(CONFIG)))
    first, second = jax.random.split(jax.random.key(0), (2, seeds))
    state, log = train(first)
    state, log_on = train(second, state)
    log = jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), log, log_on)
    for update in range(0, 2 * CONFIG["updates"], 2 * CONFIG["every"]):
        returns = "  ".join(f"{value:6.2f}" for value in log["return"][:, update])
        print(f"update {update:3}  return of each seed {returns}  density {log['density'][0, update]:.3f}")
    return state, log


if __name__ == "__main__":
    main()
