"""SAC's update, written from the paper (arXiv:1812.05905): nothing of it comes from agents/.

The noise of the policy is given from outside, so that both sides see the same.
"""

import jax
import jax.numpy as jnp
from drq_reference import adam, encode, mlp, trunk
from td3_reference import twins


def seen(params, features):
    return trunk(params, features) if "projection" in params else features


def gaussian(params, features):
    """Mean and deviation of the policy before its tanh."""
    out = mlp(params["policy"], seen(params, features))
    actions = out.shape[1] // 2
    return out[:, :actions], jnp.exp(jnp.clip(out[:, actions:], -20, 2))


def log_prob(u, mean, std):
    """Appendix C: log mu(u|s) - sum log(1 - tanh(u)^2)."""
    normal = -((u - mean) ** 2) / (2 * std**2) - jnp.log(std) - jnp.log(2 * jnp.pi) / 2
    return jnp.sum(normal - jnp.log(1 - jnp.tanh(u) ** 2), axis=1)


def update(nets, moments, batch, noises, count, rate, tau, target_entropy):
    """One gradient step of algorithm 1: networks, moments and losses after it.

    `nets` has critic, actor, target, log_alpha, and encoder from pixels; `noises` are standard normal draws for the
    target's and for the actor's actions. `count` is how often Adam has moved each of them, this time included.
    """
    obs, next_obs = (jnp.asarray(o, jnp.float64) for o in (batch.obs, batch.next_obs))
    alpha = jnp.exp(nets["log_alpha"])

    def features(nets, o):
        return encode(nets["encoder"], o) if "encoder" in nets else o

    next_features = features(nets, next_obs)
    mean, std = gaussian(nets["actor"], next_features)
    u = mean + std * noises[0]
    soft = jnp.minimum(*twins(nets["target"], next_features, jnp.tanh(u))) - alpha * log_prob(u, mean, std)
    y = batch.reward + batch.discount * soft  # eqs. 2, 3

    def critic_loss(learning):  # eq. 5
        q1, q2 = twins(learning["critic"], features(learning, obs), batch.action)
        return jnp.mean((q1 - y) ** 2) / 2 + jnp.mean((q2 - y) ** 2) / 2

    def moved(name, grads):
        return adam(nets[name], grads, moments[name], count, rate)

    before = features(nets, obs)
    learning = {name: nets[name] for name in ("encoder", "critic") if name in nets}
    losses = {"critic_loss": critic_loss(learning)}
    after = {name: moved(name, grads) for name, grads in jax.grad(critic_loss)(learning).items()}
    critic = after["critic"][0]

    def actor_loss(actor):  # eqs. 7 and 9
        mean, std = gaussian(actor, before)
        u = mean + std * noises[1]
        log_pi = log_prob(u, mean, std)
        return jnp.mean(alpha * log_pi - jnp.minimum(*twins(critic, before, jnp.tanh(u)))), log_pi

    (losses["actor_loss"], log_pi), grads = jax.value_and_grad(actor_loss, has_aux=True)(nets["actor"])
    after["actor"] = moved("actor", grads)

    def temperature_loss(log_alpha):  # eq. 18
        return jnp.mean(-jnp.exp(log_alpha) * log_pi - jnp.exp(log_alpha) * target_entropy)

    after["log_alpha"] = moved("log_alpha", jax.grad(temperature_loss)(nets["log_alpha"]))
    losses["entropy"] = -jnp.mean(log_pi)
    target = jax.tree.map(lambda t, o: tau * o + (1 - tau) * t, nets["target"], critic)
    nets = {name: new for name, (new, _) in after.items()} | {"target": target}
    return nets, {name: each for name, (_, each) in after.items()}, losses
