"""Damaged files of a run are told in a sentence, or an older and good one is taken; numbers never change in silence."""

import json
import shutil
from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct
from fuzz import damages, repeatable
from hypothesis import given, settings
from ml_collections import ConfigDict
from report_runs import make_run

from agents.updates import Optimiser, TrainState, create_train_state
from experiments.comparison.columns import columns_of
from experiments.record.checkpoints import Checkpoints, read_births
from experiments.record.curves import draw_curves
from experiments.record.folder import Folder, check_folder, open_folder
from experiments.record.metrics_files import SeedWriter, read_metrics
from experiments.record.models import load_model, networks_of, write_networks
from experiments.record.policy import read_config
from experiments.record.report.page import page
from experiments.record.report.runs import read_runs
from experiments.train.loop import Run
from experiments.train.state import LearnerState, MetricAccumulator, RolloutState

NEWER, OLDER = 6, 3
ENVS = [np.ones(2)]


@struct.dataclass
class Learned:
    net: TrainState
    target: dict


def small_run(step) -> Run:
    """A run whose arrays say at which step they are."""
    values = step + jax.random.normal(jax.random.key(step), (1, 20, 30))
    net = create_train_state(Optimiser(optax.adam(1e-3)), jax.random.key(0), {"w": values})
    replay: Any = {"scene": step + jnp.arange(99.0)}
    rollout = RolloutState(replay, jnp.zeros(1), jnp.zeros(1), jnp.zeros(1), MetricAccumulator.of(0.0))
    agent = Learned(jax.tree.map(jnp.atleast_1d, net), {"w": jnp.full((1, 4), step)})
    return Run(step, LearnerState(agent, MetricAccumulator.of({"loss": 0.0})), rollout)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Two checkpoints and the networks of the newer one."""
    root = tmp_path_factory.mktemp("saved")
    checkpoints = Checkpoints(root / "checkpoint")
    for step in (OLDER, NEWER):
        checkpoints.save(small_run(step), ENVS)
    checkpoints.close()
    write_networks(root / "model", networks_of(small_run(NEWER).learner.agent, 0))
    return root


@pytest.fixture
def again(tmp_path_factory):
    """A function that copies a folder, for each example anew."""
    return lambda folder: shutil.copytree(folder, tmp_path_factory.mktemp("copy") / folder.name)


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def hurt(folder, data):
    """Damage one file of a folder."""
    path = data.draw(st.sampled_from(files_of(folder)))
    path.write_bytes(data.draw(damages(path.read_bytes())))


def same(one, other):
    one, other = (jax.tree.map(np.asarray, each) for each in (one, other))
    return jax.tree.structure(one) == jax.tree.structure(other) and all(
        np.array_equal(a, b, equal_nan=True) and a.dtype == b.dtype
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other))
    )


def check_checkpoint(folder, data):
    hurt(folder / str(NEWER), data)
    checkpoints = Checkpoints(folder)
    found = checkpoints.restore(small_run(0), ENVS)
    checkpoints.close()
    assert found is not None
    run, envs, said = found
    assert same(run, small_run(NEWER if not said else OLDER)) and same(envs, ENVS)
    assert all("was set aside" in each for each in said)
    shutil.rmtree(folder)


def test_checkpoints_that_cannot_even_be_listed_are_said_again_and_again(saved, again):
    folder = again(saved / "checkpoint")
    for step in (OLDER, NEWER):
        (folder / str(step) / "_CHECKPOINT_METADATA").write_bytes(b"[" * 100_000)
    before = files_of(folder)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"no checkpoint in .* can be read \(the metadata of 6 is damaged\)"):
            Checkpoints(folder)
    assert files_of(folder) == before


def check_networks(folder, data):
    whole = load_model(folder)
    hurt(folder, data)
    try:
        assert same(load_model(folder), whole)
    except ValueError as error:
        assert "networks in" in str(error)
    shutil.rmtree(folder)


@settings(repeatable, max_examples=6)
@given(data=st.data())
def test_a_damaged_checkpoint_is_noticed(saved, again, data):
    check_checkpoint(again(saved / "checkpoint"), data)


@settings(repeatable, max_examples=6)
@given(data=st.data())
def test_damaged_networks_are_noticed(saved, again, data):
    check_networks(again(saved / "model"), data)


@pytest.mark.slow
@settings(repeatable, max_examples=300)
@given(data=st.data())
def test_any_damaged_checkpoint_is_noticed(saved, again, data):
    check_checkpoint(again(saved / "checkpoint"), data)


@pytest.mark.slow
@settings(repeatable, max_examples=300)
@given(data=st.data())
def test_any_damaged_networks_are_noticed(saved, again, data):
    check_networks(again(saved / "model"), data)


@pytest.mark.slow
@settings(repeatable, max_examples=100)
@given(data=st.data())
def test_what_a_report_reads_of_a_damaged_checkpoint_is_right(saved, again, data):
    folder = again(saved / "checkpoint")
    whole = read_births(folder)
    hurt(folder / str(NEWER) / "state", data)
    try:
        assert same(read_births(folder), whole)
    except (ValueError, FileNotFoundError) as error:
        assert "cannot be read" in str(error) or "no checkpoint" in str(error)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """What a run leaves, two seeds of it."""
    return make_run(tmp_path_factory.mktemp("results"), seeds=2)


@settings(repeatable, max_examples=40)
@given(data=st.data())
def test_damaged_metrics_are_rows_or_a_sentence(left, again, data):
    folder = again(left)
    path = folder / "0" / "metrics.jsonl"
    path.write_bytes(data.draw(damages(path.read_bytes())))
    try:
        rows = read_metrics(path)
    except ValueError as error:
        assert "metrics.jsonl is damaged" in str(error)
        rows = []
    columns = columns_of(read_config(folder))
    assert all(isinstance(column.read(rows), float) for column in columns.values())
    try:
        SeedWriter(folder / "0", 200).close()
    except ValueError as error:
        assert "metrics.jsonl is damaged" in str(error)
    shutil.rmtree(folder)


def config_for(folder, left):
    """The config of the run `left`, as a command has it whose results are in `folder`."""
    config = read_config(left)
    config.results_dir, config.exp_id = str(folder.parent), folder.name.removesuffix(f"_{config.env.name}")
    return config


@settings(repeatable, max_examples=60)
@given(data=st.data())
def test_a_damaged_config_is_a_config_or_a_sentence(left, again, data):
    folder = again(left)
    config = config_for(folder, left)
    path = folder / "config.json"
    path.write_bytes(data.draw(damages(path.read_bytes())))
    try:
        assert isinstance(read_config(folder), ConfigDict)
    except ValueError as error:
        assert "config.json is damaged" in str(error)
    try:
        check_folder(Folder(config), config)
    except (ValueError, FileExistsError) as error:
        assert "is damaged" in str(error) or "another config" in str(error)
    shutil.rmtree(folder)


@settings(repeatable, max_examples=30)
@given(data=st.data())
def test_damaged_versions_are_versions_or_a_sentence(left, again, data):
    folder = again(left)
    config = config_for(folder, left)
    path = folder / "versions.json"
    path.write_bytes(data.draw(damages(path.read_bytes())))
    try:
        open_folder(Folder(config), config)
        assert json.loads(path.read_text())["resumed"]
    except ValueError as error:
        assert "versions.json is damaged" in str(error)
    shutil.rmtree(folder)


@pytest.mark.slow
@settings(repeatable, max_examples=100)
@given(data=st.data())
def test_reports_and_curves_are_drawn_of_what_can_be_read(left, again, data):
    folder = again(left)
    hurt(folder, data)
    assert "<html" in page(read_runs([folder]), video_limit=0)
    try:
        draw_curves(folder)
    except ValueError as error:
        assert "metrics.jsonl is damaged" in str(error)
    shutil.rmtree(folder)


def test_networks_are_played_with_the_config_that_they_were_trained_with(left, again):
    folder = again(left)
    (folder / "1" / "model").mkdir()
    shutil.copy(folder / "config.json", folder / "1" / "model" / "config.json")
    read_config(folder)
    config = json.loads((folder / "config.json").read_text())
    config["env"]["action_repeat"], config["video"]["size"] = 3, 7  # the latter says nothing of what was learned
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"trained with \(env\.action_repeat: 1 when trained, 3 now\); set it back"):
        read_config(folder)
