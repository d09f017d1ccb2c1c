"""The peer that `bench --what=peer` times is the same agent: equal updates from equal weights, batch and noise."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from small_agents import BATCH, QUICK, STATES, batches, drq, now, pick, td3, updater

from agents.drq import DrQSettings
from agents.encoder import VisionSettings
from agents.td3 import TD3Settings
from experiments.benches import torch_peer

RATE, STD, PICTURE = 1e-3, 0.4, (3, 3, 3)
TOLERANCE: dict[str, Any] = dict(rtol=1e-4, atol=1e-4)


def tensor(array):
    return torch.from_numpy(np.array(array))


def channels_first(pixels):
    return tensor(np.moveaxis(np.asarray(pixels), -1, 1))


def dense(layer):
    return {"weight": np.asarray(layer["kernel"]).T, "bias": layer["bias"]}


def perceptron(params, name):
    layers = [params[name][f"hidden_{i}"]["dense"] for i in range(len(params[name]) - 1)] + [params[name]["head"]]
    return {f"{name}.{2 * i}.{key}": value for i, each in enumerate(layers) for key, value in dense(each).items()}


def weights(params, picture):
    """Flax parameters of an encoder, actor or critic as a state dict; `picture` is the encoder's output, or None."""
    found = {}
    for i in range(sum(name.startswith("conv_") for name in params)):
        layer = params[f"conv_{i}"]
        found |= {f"layers.{2 * i}.weight": np.transpose(layer["kernel"], (3, 2, 0, 1))}
        found |= {f"layers.{2 * i}.bias": layer["bias"]}
    if "projection" in params:  # its inputs are pixels of all channels there, and channels of all pixels here
        layer = dict(params["projection"]["dense"])
        layer["kernel"] = np.transpose(np.reshape(layer["kernel"], (*picture, -1)), (2, 0, 1, 3)).reshape(
            np.shape(layer["kernel"])
        )
        found |= {f"projection.0.{key}": value for key, value in dense(layer).items()}
        norm = params["projection"]["norm"]
        found |= {"projection.1.weight": norm["scale"], "projection.1.bias": norm["bias"]}
    for name in ("policy", "q1", "q2"):
        found |= perceptron(params, name) if name in params else {}
    return {name: tensor(value) for name, value in found.items()}


def networks(state, picture):
    """All networks of an agent's state, targets too, by the peer's names."""
    found = {name: getattr(state, name) for name in ("encoder", "actor", "critic", "target_actor", "target_critic")
             if getattr(state, name, None) is not None}  # fmt: skip
    return {name: weights(getattr(each, "params", each), picture) for name, each in found.items()}


def load(peer, state, picture):
    for name, found in networks(state, picture).items():
        getattr(peer, name).load_state_dict(found)


def assert_same_networks(peer, state, picture):
    for name, wanted in networks(state, picture).items():
        found = getattr(peer, name).state_dict()
        assert found.keys() == wanted.keys()
        for key, value in wanted.items():
            np.testing.assert_allclose(found[key], value, err_msg=f"{name}/{key}", **TOLERANCE)


def as_torch(batch, pixels):
    image = channels_first if pixels else tensor
    reward, discount = (tensor(each)[:, None] for each in (batch.reward, batch.discount))
    return torch_peer.Batch(image(batch.obs), tensor(batch.action), reward, discount, image(batch.next_obs))


def drq_draws(key, pad):
    """What `agents.drq.update` draws with this key."""
    keys = jax.random.split(key, 7)
    shift, next_shift = (tensor(jax.random.randint(k, (BATCH, 2), -pad, pad + 1)).long() for k in keys[:2])
    next_noise, noise = (tensor(jax.random.normal(k, (BATCH, 2))) for k in keys[2:4])
    return torch_peer.Draws(noise, next_noise, shift, next_shift)


def test_drq_learns_the_same():
    settings = DrQSettings(RATE, hidden=(16, 12), std_initial=STD, std_final=STD, preactivation_penalty=0.03)
    vision = VisionSettings(channels=3, strides=(2, 1), projection=5, shift_pad=2, conv="im2col")
    state, update = QUICK(drq(settings, vision=vision).init)(jax.random.key(1)), updater(settings, vision)
    numbers = dataclasses.asdict(settings) | dataclasses.asdict(vision)
    peer = torch_peer.DrQ(torch_peer.form_of(numbers, obs=(2, 11, 11), actions=2))
    load(peer, state, PICTURE)
    before = networks(state, PICTURE)
    for i in range(3):
        batch, key = pick(batches(3), i), jax.random.key(i)
        state, metrics = update(state, batch, key, now(i + 1))
        found = peer.update(as_torch(batch, pixels=True), STD, drq_draws(key, vision.shift_pad))
        for name in ("critic_loss", "actor_loss"):
            np.testing.assert_allclose(found[name], metrics[name], err_msg=name, **TOLERANCE)
    assert_same_networks(peer, state, PICTURE)
    for name in ("encoder", "actor", "critic"):  # and have moved further than that tolerance
        moved = max((before[name][key] - value).abs().max() for key, value in getattr(peer, name).state_dict().items())
        assert moved > 1e-3


def test_td3_learns_the_same():
    settings = TD3Settings(RATE, hidden=(16, 12), smoothing_std=0.4)
    state, update = QUICK(td3(settings).init)(jax.random.key(1)), updater(settings, None)
    peer = torch_peer.TD3(torch_peer.form_of(dataclasses.asdict(settings), obs=STATES, actions=2))
    load(peer, state, None)
    before = networks(state, None)
    for i in range(4):
        batch, key = pick(batches(4, shape=STATES), i), jax.random.key(i)
        noise = tensor(jax.random.normal(jax.random.split(key, 6)[2], (BATCH, 2)))
        state, metrics = update(state, batch, key, now(i + 1))
        found = peer.update(as_torch(batch, pixels=False), draws=torch_peer.Draws(noise, noise))
        for name in ("critic_loss", "actor_loss"):
            np.testing.assert_allclose(found[name], metrics[name], err_msg=name, **TOLERANCE)
    assert_same_networks(peer, state, None)
    for name in ("actor", "critic"):
        moved = max((before[name][key] - value).abs().max() for key, value in getattr(peer, name).state_dict().items())
        assert moved > 1e-3


def test_shifts_of_the_peer_are_whole_pixels():
    from agents.augment import random_shift

    images, key, pad = batches(1).obs[0], jax.random.key(3), 3
    shift = tensor(jax.random.randint(key, (len(images), 2), -pad, pad + 1)).long()
    wanted = channels_first(random_shift(key, jnp.asarray(images), pad)).float()
    found = torch_peer.random_shift(channels_first(images), shift, pad)
    np.testing.assert_allclose(found, wanted, atol=1e-2)  # of 255: read at places that are rounded
