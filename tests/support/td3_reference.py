"""TD3's update without smoothing noise, written from the paper: nothing of it comes from agents/."""

import jax
import jax.numpy as jnp
from drq_reference import adam, encode, mlp, trunk


def seen(params, features):
    """What the layers after it see: features from pixels are projected first."""
    return trunk(params, features) if "projection" in params else features


def policy(params, features):
    return jnp.tanh(mlp(params["policy"], seen(params, features)))


def twins(params, features, action):
    x = jnp.concatenate([seen(params, features), action], axis=1)
    return mlp(params["q1"], x)[:, 0], mlp(params["q2"], x)[:, 0]


def update(nets, moments, batch, counts, due, rate, tau, penalty=0.0):
    """Fujimoto et al. 2018, algorithm 1, with noise of zero: networks, moments and losses after one update.

    `counts` is how often Adam has moved each network, this time included. `due`: this update is a delayed one, which
    also moves the actor and all targets. From pixels there is an `encoder`, which has no target. `penalty` times the
    mean square of what the policy's tanh takes is added to the actor's loss (not in the paper).
    """
    obs, next_obs = (jnp.asarray(o, jnp.float64) for o in (batch.obs, batch.next_obs))

    def features(nets, o):
        return encode(nets["encoder"], o) if "encoder" in nets else o

    next_features = features(nets, next_obs)
    next_action = jnp.clip(policy(nets["target_actor"], next_features), -1, 1)
    y = batch.reward + batch.discount * jnp.minimum(*twins(nets["target_critic"], next_features, next_action))

    def critic_loss(learning):
        q1, q2 = twins(learning["critic"], features(learning, obs), batch.action)
        return jnp.mean((q1 - y) ** 2) + jnp.mean((q2 - y) ** 2)

    learning = {name: nets[name] for name in ("encoder", "critic") if name in nets}
    before = features(nets, obs)
    losses = {"critic_loss": critic_loss(learning)}
    for name, grads in jax.grad(critic_loss)(learning).items():
        moved, moments_of = adam(nets[name], grads, moments[name], counts[name], rate)
        nets, moments = nets | {name: moved}, moments | {name: moments_of}
    if not due:
        return nets, moments, losses

    def actor_loss(actor):
        far = mlp(actor["policy"], seen(actor, before))
        return penalty * jnp.mean(far**2) - jnp.mean(twins(nets["critic"], before, jnp.tanh(far))[0])

    losses["actor_loss"] = actor_loss(nets["actor"])
    grads = jax.grad(actor_loss)(nets["actor"])
    actor, moments_of = adam(nets["actor"], grads, moments["actor"], counts["actor"], rate)
    nets, moments = nets | {"actor": actor}, moments | {"actor": moments_of}

    def polyak_update(target, online):
        return jax.tree.map(lambda t, o: tau * o + (1 - tau) * t, target, online)

    targets = {f"target_{name}": polyak_update(nets[f"target_{name}"], nets[name]) for name in ("critic", "actor")}
    return nets | targets, moments, losses
