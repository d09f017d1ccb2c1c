"""The flag for repeatable runs: given in time, once, and refused where it would come too late."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from experiments.build import determinism, experiment
from experiments.build.determinism import FLAG, has_begun, make_repeatable
from experiments.launch.check import answer

# ml_collections 1.1 reads a config file in a way that Python will give up.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
ROOT = Path(__file__).parents[3]
PROGRAM = """
import os
from configs import gymnax_states
from experiments.build import determinism, experiment
from experiments.run import run

def make(wanted):
    assert wanted and not determinism.has_begun(), "too late"
    determinism.make_repeatable(wanted)
    assert not determinism.has_begun(), "asking whether jax has begun began it"
    import jax
    print(jax.jit(lambda x: x + 1)(1), os.environ["XLA_FLAGS"], determinism.has_begun(), jax.local_device_count())
    raise SystemExit(0)

experiment.make_repeatable = make
config = gymnax_states.get_config("smoke")
config.deterministic, config.results_dir = True, RESULTS
run(config)
"""


@pytest.fixture
def flags(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_of=mine")
    return lambda: os.environ["XLA_FLAGS"]


def test_whether_jax_has_begun_is_found_without_a_trace():
    before = jax.config.values["jax_num_cpu_devices"]
    assert jax.devices() and has_begun()
    assert jax.config.values["jax_num_cpu_devices"] == before


def test_the_flag_is_added_once_and_only_if_it_is_wanted(flags, monkeypatch):
    monkeypatch.setattr(determinism, "has_begun", lambda: False)
    make_repeatable(False)
    assert flags() == "--xla_of=mine"
    make_repeatable(True)
    make_repeatable(True)
    assert flags() == f"--xla_of=mine {FLAG}"


def test_it_is_refused_where_an_accelerator_has_begun_without_it(flags, monkeypatch):
    make_repeatable(True)  # on a CPU there is nothing to be done
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(ValueError, match=rf"deterministic=True comes too late.*XLA_FLAGS={FLAG}"):
        make_repeatable(True)
    make_repeatable(False)
    assert flags() == "--xla_of=mine"
    monkeypatch.setenv("XLA_FLAGS", FLAG)
    make_repeatable(True)


@pytest.mark.slow
def test_a_run_gives_it_before_jax_begins_and_this_xla_knows_it(tmp_path):
    code, env = PROGRAM.replace("RESULTS", repr(str(tmp_path))), {**os.environ, "XLA_FLAGS": ""}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["2", FLAG, "True", "1"]


@pytest.mark.slow
def test_a_process_that_checks_many_runs_leaves_it_to_the_runs(monkeypatch, tmp_path):
    wanted = []
    monkeypatch.setattr(experiment, "make_repeatable", wanted.append)
    line = [
        "--config=configs/gymnax_states.py:smoke",
        f"--config.results_dir={tmp_path}",
        "--config.deterministic=True",
    ]
    assert answer(line)["config"]["deterministic"] is True and wanted == [False]
