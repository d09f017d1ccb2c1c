"""DrQ-v2's update without noise and augmentation, written from the paper: nothing of it comes from agents/."""

import jax
import jax.numpy as jnp


def dense(layer, x):
    return x @ layer["kernel"] + layer["bias"]


def trunk(params, x):
    x = dense(params["projection"]["dense"], x)
    x = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return jnp.tanh(x * params["projection"]["norm"]["scale"] + params["projection"]["norm"]["bias"])


def mlp(params, x):
    for name in ("hidden_0", "hidden_1"):
        x = jnp.maximum(dense(params[name]["dense"], x), 0)
    return dense(params["head"], x)


def encode(params, obs, strides=(2, 1)):
    x = obs / 255.0 - 0.5
    for i, stride in enumerate(strides):
        layer, form = params[f"conv_{i}"], ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, layer["kernel"], (stride, stride), "VALID", dimension_numbers=form)
        x = jnp.maximum(x + layer["bias"], 0)
    return x.reshape(len(x), -1)


def policy(params, features):
    return jnp.tanh(mlp(params["policy"], trunk(params, features)))


def twins(params, features, action):
    x = jnp.concatenate([trunk(params, features), action], axis=1)
    return mlp(params["q1"], x)[:, 0], mlp(params["q2"], x)[:, 0]


def adam(params, grads, moments, count, rate):
    """Kingma & Ba 2015, algorithm 1."""
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, moments[0], grads)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, moments[1], grads)

    def moved(p, m, v):
        return p - rate * (m / (1 - 0.9**count)) / (jnp.sqrt(v / (1 - 0.999**count)) + 1e-8)

    return jax.tree.map(moved, params, first, second), (first, second)


def update(nets, moments, batch, count, rate, tau, penalty=0.0):
    """DrQ-v2, algorithm 1, without noise and augmentation: networks, moments and losses after update `count`.

    `penalty` times the mean square of what the policy's tanh takes is added to the actor's loss (not in the paper).
    """
    obs, next_obs = (jnp.asarray(o, jnp.float64) for o in (batch.obs, batch.next_obs))
    next_features = encode(nets["encoder"], next_obs)
    next_values = twins(nets["target"], next_features, policy(nets["actor"], next_features))
    target = batch.reward + batch.discount * jnp.minimum(*next_values)

    def critic_loss(encoder, critic):
        q1, q2 = twins(critic, encode(encoder, obs), batch.action)
        return jnp.mean((q1 - target) ** 2) + jnp.mean((q2 - target) ** 2)

    features = encode(nets["encoder"], obs)
    grads = dict(zip(("encoder", "critic"), jax.grad(critic_loss, (0, 1))(nets["encoder"], nets["critic"])))
    critic, critic_moments = adam(nets["critic"], grads["critic"], moments["critic"], count, rate)

    def actor_loss(actor):
        far = mlp(actor["policy"], trunk(actor, features))
        return penalty * jnp.mean(far**2) - jnp.mean(jnp.minimum(*twins(critic, features, jnp.tanh(far))))

    losses = {"critic_loss": critic_loss(nets["encoder"], nets["critic"]), "actor_loss": actor_loss(nets["actor"])}
    encoder, encoder_moments = adam(nets["encoder"], grads["encoder"], moments["encoder"], count, rate)
    actor, actor_moments = adam(nets["actor"], jax.grad(actor_loss)(nets["actor"]), moments["actor"], count, rate)
    follower = jax.tree.map(lambda old, new: (1 - tau) * old + tau * new, nets["target"], critic)
    after = {"encoder": encoder, "critic": critic, "actor": actor, "target": follower}
    return after, {"encoder": encoder_moments, "critic": critic_moments, "actor": actor_moments}, losses
