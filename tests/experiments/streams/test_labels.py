"""The stream of random labels: what an arm's rows say, what references are, and that seeds are apart."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ne_jax
from experiments.streams import labels
from experiments.streams.types import FIRST_MEASURES, FRESH, RANDOM, Arm

SMALL = labels.labels_stream(tasks=2, late=2, updates=200, hidden=(32, 16))
DENSE = Arm("dense", {})


def rows_of(arm, seeds=(0, 1)):
    told = []
    found = SMALL.run(arm, seeds, Path("unused"), told.append)
    assert arm.name == RANDOM or told == [0.5, 1.0]
    return {(row.seed, row.task): row for row in found}


@pytest.fixture(scope="module")
def dense():
    return rows_of(DENSE)


def test_a_row_for_each_seed_and_task_with_what_is_measured(dense):
    assert set(dense) == {(seed, task) for seed in (0, 1) for task in (1, 2)}
    for row in dense.values():
        assert row.stream == "labels" and row.method == "dense"
        assert set(FIRST_MEASURES) <= set(row.measures) and row.measures["density"] == 1
        assert all(np.isfinite(value) for value in row.measures.values())
        assert {"dead/hidden_0", "dead/hidden_1", "capacity", "head_norm"} <= set(row.measures)


@pytest.mark.slow
def test_an_injection_finds_its_room():
    rows = rows_of(Arm("plasticity_injection", {"plasticity.method": "plasticity_injection"}))
    for row in rows.values():
        assert set(FIRST_MEASURES) <= set(row.measures) and all(np.isfinite(each) for each in row.measures.values())
        assert {"dead/trunk/hidden_0", "dead/fresh/hidden_1"} <= set(row.measures)


@pytest.mark.slow
def test_a_network_learns_labels_that_have_no_rule():
    stream = labels.labels_stream(tasks=1, late=1, updates=2_000, hidden=(64, 64))
    for row in stream.run(DENSE, (0, 1), Path("unused"), lambda share: None):
        assert row.end > row.auc > 1.3 * labels.CHANCE


def test_references_are_chance_and_new_networks(dense):
    chance = rows_of(Arm(RANDOM, {}))
    assert {(row.auc, row.end) for row in chance.values()} == {(0.1, 0.1)}
    fresh = rows_of(Arm(FRESH, {}))
    for seed in (0, 1):
        assert fresh[seed, 1].auc == dense[seed, 1].auc  # all begin with the same network
        assert fresh[seed, 2].measures["head_norm"] != dense[seed, 2].measures["head_norm"]
    parts = labels.make_parts(labels.config_of(DENSE), 2, 200, (32, 16), labels.digits())
    key = jax.random.key(0)
    first, again, second = (labels.new_model(parts, (key, jnp.asarray(task))) for task in (0, 0, 1))
    for path, leaf in ne_jax.leaves_by_path(first.params).items():
        np.testing.assert_array_equal(leaf, ne_jax.leaves_by_path(again.params)[path])
        if path.endswith("kernel"):
            assert (leaf != ne_jax.leaves_by_path(second.params)[path]).all()


def test_seeds_side_by_side_are_as_each_alone(dense):
    (alone,) = [row for row in SMALL.run(DENSE, (1,), Path("unused"), lambda share: None) if row.task == 2]
    assert alone.auc == pytest.approx(dense[1, 2].auc, abs=0.01)
    assert dense[0, 2].auc != dense[1, 2].auc


def test_a_method_is_at_work_and_says_so():
    rounds = {"plasticity.every": 50, "plasticity.lifelong_ne.maturity": 20}
    grown = rows_of(Arm("lifelong_ne", {"plasticity.method": "lifelong_ne", **rounds}))
    assert {round(row.measures["density"], 2) for row in grown.values()} != {1.0}
    assert grown[0, 2].measures["density"] > grown[0, 1].measures["density"]


def test_the_protocol_says_what_decides_the_rows():
    arm = Arm("redo", {"plasticity.method": "redo", "plasticity.every": 50, "plasticity.redo.tau": 0.2})
    found = SMALL.protocol(arm)
    assert found["plasticity.redo.tau"] == 0.2 and found["updates"] == 200 and found["hidden"] == [32, 16]
    assert found != SMALL.protocol(DENSE)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"agent.hidden": (3,)}, "agent.hidden is no setting of the stream labels"),
        ({"env.name": "x"}, "env.name is no setting of the stream labels"),
        ({"plasticity.method": "ne", "plasticity.every": 10**6}, "leaves no round"),
        ({"plasticity.method": "normalise_and_project"}, "LayerNorm|layer_norm|norm"),
    ],
)
def test_arms_that_cannot_be_are_refused(overrides, said):
    with pytest.raises(ValueError, match=said):
        SMALL.protocol(Arm("x", overrides))
