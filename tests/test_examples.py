"""Every example runs, learns, and grows exactly to schedule; vmapped, its rounds stay behind a branch."""

import math

import jax
import mediapy
import numpy as np
import pytest
from flax import nnx

import ne_jax
from examples import flax_regression, nnx_classification, own_environment, vmapped_make_train
from experiments.record.metrics_files import read_metrics


def check_growth(updates, densities, masks, first, last, until):
    """Density after each round as the cosine schedule has it, one weight per layer left for rounding."""
    layers, size = len(masks), sum(np.size(mask) for mask in masks.values())
    for update, density in zip(updates, densities):
        x = min(update / until, 1.0)
        exact = first + (last - first) * (x + math.sin(math.pi * x) / math.pi)
        assert abs(density - exact) * size <= layers, update
    held = sum(np.sum(mask) for mask in masks.values())
    assert abs(held - last * size) <= layers


def check_absent_weights(params, masks):
    """Exactly zero, while most of those that exist are not."""
    leaves = ne_jax.leaves_by_path(params)
    for path, mask in masks.items():
        kernel, mask = np.asarray(leaves[path]), np.asarray(mask)
        assert (kernel[~mask] == 0).all()
        assert np.count_nonzero(kernel) > 0.5 * mask.sum()


def test_flax_regression(capsys):
    state, history = flax_regression.main()
    updates, losses, densities = zip(*history)
    masks = ne_jax.masks(state.opt_state)
    assert list(updates) == list(range(0, 400, 20)) and set(masks) == {f"params/Dense_{i}/kernel" for i in range(3)}
    check_growth(updates, densities, masks, 0.2, 0.75, 300)
    check_absent_weights(state.params, masks)
    assert losses[-1] < 0.05 * losses[0]
    assert "density 0.750" in capsys.readouterr().out


@pytest.mark.slow
def test_nnx_classification(capsys):
    model, optimizer, history = nnx_classification.main()
    updates, losses, densities = zip(*history)
    masks = ne_jax.masks(nnx.as_pure(optimizer.opt_state))
    assert list(updates) == list(range(0, 300, 15))
    assert set(masks) == {"hidden_0/kernel", "hidden_1/kernel", "head/kernel"}
    check_growth(updates, densities, masks, 0.1, 0.5, 225)
    check_absent_weights(nnx.state(model, nnx.Param), masks)
    assert losses[0] > 1 and losses[-1] < 0.1
    assert "density 0.500" in capsys.readouterr().out


@pytest.mark.slow
def test_vmapped_make_train(capsys):
    (params, opt_state), log = vmapped_make_train.main(seeds=2)
    config = vmapped_make_train.CONFIG
    params, masks, log = jax.device_get((params, ne_jax.masks(opt_state), log))
    assert set(masks) == {"params/hidden_0/kernel", "params/hidden_1/kernel"}
    rounds = range(0, 2 * config["updates"], config["every"])
    for lane in range(2):
        own_params, own_masks = jax.tree.map(lambda x, lane=lane: x[lane], (params, masks))
        check_growth(rounds, log["density"][lane, list(rounds)], own_masks, 0.1, 0.5, config["grow_until"])
        check_absent_weights(own_params, own_masks)
        assert log["return"][lane, -10:].mean() > 0.5 * log["return"][lane, :5].mean()  # both are negative
    assert any((mask[0] != mask[1]).any() for mask in masks.values())
    assert "density 0.500" in capsys.readouterr().out


def selections(jaxpr, in_scan=False, in_cond=False):
    """(in a scan, in a branch of a cond) of every `ne_jax.select` in a jaxpr, sub-jaxprs of any kind included."""
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if eqn.params.get("name") == "select":
            yield in_scan, in_cond
        for sub in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda v: hasattr(v, "eqns")):
            if hasattr(sub, "eqns"):
                yield from selections(getattr(sub, "jaxpr", sub), in_scan or name == "scan", in_cond or name == "cond")


def test_rounds_stay_behind_a_branch():
    """What selects outside of the updates makes the first mask; an update selects in a round, which is in a branch."""
    train = jax.vmap(vmapped_make_train.make_train(vmapped_make_train.CONFIG))
    keys = jax.random.split(jax.random.key(0), 3)
    assert set(selections(jax.make_jaxpr(train)(keys).jaxpr)) == {(False, False), (True, True)}
    # Going on, the counters are batched: here a plain cond would be no branch any more.
    state, _ = jax.eval_shape(train, keys)
    assert set(selections(jax.make_jaxpr(train)(keys, state).jaxpr)) == {(True, True)}


@pytest.mark.slow
def test_own_environment(tmp_path):
    own_environment.main(str(tmp_path), ("td3",), 2_500)
    rows = read_metrics(tmp_path / "td3_ne_reach" / "0" / "metrics.jsonl")
    returns = [row["eval/return"] for row in rows if "eval/return" in row]
    assert returns[0] < -8 and returns[-1] > -5, returns  # at most 25 steps of a distance of about 1; 3 when it learned


@pytest.mark.slow
def test_own_environment_from_pixels(tmp_path):
    own_environment.main(str(tmp_path), ("drq",), 1_500)
    folder = tmp_path / "drq_ne_quick_reach" / "0"
    rows = read_metrics(folder / "metrics.jsonl")
    assert np.isfinite(rows[-1]["train/critic_loss"]) and "eval/return" in rows[-1]
    video = np.asarray(mediapy.read_video(folder / "videos" / "eval_1500.mp4"))
    assert len(video) == own_environment.STEPS and video[0, ..., 0].max() > 200  # the disc
