"""ReDo from pixels: the encoder's last convolution and what leads on from it, which are in different networks."""

from dataclasses import replace

import jax
import numpy as np
import pytest
import small_agents
from small_agents import ACTIONS, OBS, QUICK, batches, now, pick

import ne_jax
from agents.drq import make_drq
from agents.encoder import VisionSettings
from agents.td3 import make_td3

VISION = VisionSettings(channels=3, strides=(2, 1), projection=5, shift_pad=0, conv="im2col")
TAU, ROUND = 0.95, 4


def leaves(model):
    return {path: np.asarray(leaf) for path, leaf in ne_jax.leaves_by_path(model.params).items()}


def after_a_round(algorithm, **plasticity):
    """The state before an update with a round and after it, and the batch of that update."""
    config = small_agents.settings("redo", ROUND)
    config.plasticity.update(dict(redo=dict(tau=TAU), **plasticity))
    optimisers = small_agents.make_optimisers(config, small_agents.UPDATES)
    make, settings = {"drq": (make_drq, small_agents.CONFIG), "td3": (make_td3, small_agents.TD3)}[algorithm]
    agent = make(replace(settings, learning_rate=1e-30), VISION, OBS, ACTIONS, optimisers)  # only the round moves it
    state, batch = QUICK(agent.init)(jax.random.key(0)), pick(batches(1), 0)
    return state, QUICK(agent.update)(state, batch, jax.random.key(1), now(ROUND))[0], batch


def idle_channels(before, batch):
    """By convolution, from the definition: E|h| of a channel over its layer's mean, at most tau."""
    params, x, found = leaves(before.encoder), np.asarray(batch.obs, np.float64) / 255 - 0.5, []
    for i, stride in enumerate(VISION.strides):
        kernel, bias = params[f"conv_{i}/kernel"].astype(np.float64), params[f"conv_{i}/bias"]
        size = (x.shape[1] - 3) // stride + 1
        h = np.zeros((len(x), size, size, VISION.channels))
        for y in range(size):
            for z in range(size):
                patch = x[:, y * stride : y * stride + 3, z * stride : z * stride + 3]
                h[:, y, z] = np.maximum(np.einsum("bijc,ijcd->bd", patch, kernel) + bias, 0)
        score = np.abs(h).mean(axis=(0, 1, 2))
        found.append(set(np.flatnonzero(score / score.mean() <= TAU)))
        x = h
    return found, x.shape[1]


@pytest.mark.parametrize("algorithm", ["drq", pytest.param("td3", marks=pytest.mark.slow)])
def test_every_convolution_takes_part_and_projections_follow_the_last(algorithm):
    before, after, batch = after_a_round(algorithm)
    idle, size = idle_channels(before, batch)
    assert all(0 < len(channels) < VISION.channels for channels in idle)
    old, new = leaves(before.encoder), leaves(after.encoder)
    for channel in range(VISION.channels):
        anew = [(new[f"conv_{i}/kernel"] != old[f"conv_{i}/kernel"])[..., channel] for i in range(2)]
        assert anew[0].all() == anew[0].any() == (channel in idle[0])
        kept = [c for c in range(VISION.channels) if c not in idle[0]]
        assert (new["conv_1/kernel"][:, :, sorted(idle[0])] == 0).all()
        assert anew[1][:, :, kept].all() == anew[1][:, :, kept].any() == (channel in idle[1])
    for name in ("critic", "actor"):
        old, new = (leaves(getattr(each, name))["projection/dense/kernel"] for each in (before, after))
        assert old.shape == (size * size * VISION.channels, VISION.projection) and (old != 0).all()
        for row in range(len(old)):  # the picture is flattened with channels varying fastest
            assert (new[row] == (0 if row % VISION.channels in idle[1] else old[row])).all(), (name, row)


@pytest.mark.parametrize(
    "plasticity",
    [
        pytest.param(dict(actor=dict(method="none")), marks=pytest.mark.slow),
        pytest.param(dict(method="none", critic=dict(method="redo")), marks=pytest.mark.slow),
    ],
)
def test_the_last_convolution_stays_unless_redo_is_at_work_in_all_three(plasticity):
    before, after, batch = after_a_round("drq", **plasticity)
    (first, last), _ = idle_channels(before, batch)
    assert last, "there would have been something to start anew"
    kept = [channel for channel in range(VISION.channels) if channel not in first]
    for name, path, rows in (("encoder", "conv_1/kernel", kept), ("critic", "projection/dense/kernel", slice(None))):
        old, new = (leaves(getattr(each, name))[path][..., rows, :] for each in (before, after))
        np.testing.assert_array_equal(old, new)
