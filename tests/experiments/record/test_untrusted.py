"""Loading what somebody else's run left executes nothing of it, and what is wrong with it is one sentence."""

import ast
import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import struct

from agents.updates import Optimiser, TrainState, create_train_state
from configs import gymnax_states
from experiments.evaluate import play
from experiments.record.checkpoints import Checkpoints
from experiments.record.folder import Folder, check_folder
from experiments.record.metrics_files import read_metrics
from experiments.record.models import load_agent, load_model, networks_of, write_networks
from experiments.record.policy import read_config
from experiments.train.loop import Run
from experiments.train.state import LearnerState, MetricAccumulator, RolloutState

ROOT = Path(__file__).parents[3]
READERS = ("agents", "experiments", "ne_jax", "settings", "configs")
EXECUTE = ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "torch")


def test_nothing_that_reads_results_can_execute_them():
    """Only workers, which talk to their own parent, pickle anything."""
    found = []
    for path in (path for folder in READERS for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            executes = EXECUTE if path.parent.name != "benches" else EXECUTE[:-1]  # which compare with PyTorch
            found += [f"{path}: imports {name}" for name in names if name.partition(".")[0] in executes]
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                allowed = [k for k in node.keywords if k.arg == "allow_pickle" and ast.unparse(k.value) != "False"]
                found += [f"{path}: {called}"] if called in ("eval", "exec", "yaml.load") or allowed else []
    assert not found


@struct.dataclass
class Learned:
    net: TrainState
    target: dict


def small_run() -> Run:
    net = create_train_state(Optimiser(optax.adam(1e-3)), jax.random.key(0), {"w": jnp.ones((1, 2, 3))})
    replay: Any = {"scene": jnp.zeros(3)}
    rollout = RolloutState(replay, jnp.zeros(1), jnp.zeros(1), jnp.zeros(1), MetricAccumulator.of(0.0))
    agent = Learned(jax.tree.map(jnp.atleast_1d, net), {"w": jnp.zeros((1, 4))})
    return Run(3, LearnerState(agent, MetricAccumulator.of({"loss": 0.0})), rollout)


def test_no_file_of_a_run_is_a_pickle_and_none_is_unpickled(tmp_path, monkeypatch):
    run = small_run()
    write_networks(tmp_path / "model", networks_of(run.learner.agent, 0))
    checkpoints = Checkpoints(tmp_path / "checkpoint")
    checkpoints.save(run, [jnp.ones(2)])
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        content = path.read_bytes()
        assert not (content[:1] == b"\x80" and content[1:2] in b"\x02\x03\x04\x05" and content.endswith(b".")), path
        assert path.suffix not in (".pkl", ".pickle", ".npy", ".pt"), path

    def refuse(*args, **kwargs):
        raise AssertionError("something is unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    assert checkpoints.restore(run, [jnp.ones(2)]) is not None
    assert set(load_model(tmp_path / "model")) == {"net", "target"}
    checkpoints.close()


def test_damaged_files_are_sentences_that_name_them(tmp_path):
    config = gymnax_states.get_config("smoke")
    config.results_dir = str(tmp_path)
    folder = Folder(config)
    folder.seed(0).mkdir(parents=True)
    folder.config.write_text('{"seeds": [0')
    for read in (lambda: read_config(folder.root), lambda: check_folder(folder, config)):
        with pytest.raises(ValueError, match=r"config\.json is damaged"):
            read()
    metrics = folder.seed(0) / "metrics.jsonl"
    metrics.write_bytes(b'{"step": 0}\n\xff\xfe\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl is damaged"):
        read_metrics(metrics)
    (folder.seed(0) / "model").mkdir()
    with pytest.raises(ValueError, match=r"networks in .* cannot be read"):
        load_model(folder.seed(0) / "model")


def test_networks_of_another_shape_are_named(tmp_path):
    def agent(width: int) -> Any:
        def init(key):
            net = create_train_state(Optimiser(optax.adam(1e-3)), key, {"w": jnp.ones((2, width))})
            return Learned(net, {"w": jnp.zeros(width)})

        return SimpleNamespace(init=init)

    keys = jax.random.split(jax.random.key(0), 1)
    write_networks(tmp_path / "model", networks_of(jax.vmap(agent(3).init)(keys), 0))
    assert load_agent([tmp_path / "model"], agent(3), keys).target["w"].shape == (1, 3)
    with pytest.raises(ValueError, match=r"net/params/w has the shape \(2, 3\), not \(2, 4\)"):
        load_agent([tmp_path / "model"], agent(4), keys)


def test_no_path_leads_out_of_the_folder(tmp_path):
    config = gymnax_states.get_config("smoke")
    config.update(results_dir=str(tmp_path / "results"), exp_id="../elsewhere")
    with pytest.raises(ValueError, match="leads out of results_dir"):
        check_folder(Folder(config), config)
    config.exp_id = "run"
    given = json.loads(config.to_json())
    given["seeds"] = ["../../secret"]
    (tmp_path / "config.json").write_text(json.dumps(given))
    with pytest.raises(ValueError, match="seeds must"):
        play(tmp_path, read_config(tmp_path), 1)
