"""Processes that share the seeds of a run: what they refuse; two of them are one, also after a stop or a kill."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from waiting import wait_for

from configs import gymnax_states
from experiments.build import processes
from experiments.build.checks import validate
from experiments.build.devices import choose_devices
from experiments.build.errors import UserError
from experiments.record.global_arrays import of_all, of_this, shapes_of_all
from experiments.record.metrics_files import read_metrics
from experiments.record.models import load_model

ROOT = Path(__file__).parents[3]
TOGETHER = {"JAX_COORDINATOR_ADDRESS": "node:1234", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}


def config_of(**settings):
    config = gymnax_states.get_config("smoke")
    config.update(distributed=True, **settings)
    return config


def test_a_slice_is_not_shared_again():
    with pytest.raises(
        ValueError, match=r"^slice=0/2 and distributed=True both share the seeds among processes; leave"
    ):
        validate(config_of(slice="0/2"))


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"JAX_COORDINATOR_ADDRESS": "node"}, "JAX_COORDINATOR_ADDRESS=node names no port; set it to HOST:PORT"),
        (
            {"JAX_PROCESS_ID": "2"},
            "JAX_PROCESS_ID=2 must be less than JAX_NUM_PROCESSES=2: the first is number 0",
        ),
        ({"JAX_PROCESS_ID": "-1"}, "must both be whole numbers, or both be unset, got 2 and -1"),
        ({"JAX_NUM_PROCESSES": "two"}, "must both be whole numbers, or both be unset, got two and 1"),
    ],
)
def test_what_is_said_wrongly_of_the_others_is_a_sentence(variables, told):
    with pytest.raises(ValueError, match=told):
        processes.joined(config_of(), TOGETHER | variables)


def test_half_of_what_has_to_be_said_is_a_sentence():
    variables = {name: value for name, value in TOGETHER.items() if name != "JAX_NUM_PROCESSES"}
    with pytest.raises(ValueError, match="or both be unset, got None and 1"):
        processes.joined(config_of(), variables)


def test_a_process_in_which_jax_has_begun_cannot_join_others():
    with pytest.raises(ValueError, match="distributed=True comes too late, for jax has begun in this process; start"):
        processes.joined(config_of(), TOGETHER)


def test_seeds_are_equal_parts_in_their_order(monkeypatch):
    asked, ended = [], []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **said: asked.append(said))
    monkeypatch.setattr(jax.distributed, "shutdown", lambda: ended.append(True))
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(processes, "cut_cpu", lambda config: None)
    monkeypatch.setattr(processes, "has_begun", lambda: False)
    config = config_of(seeds=(4, 3, 9, 1))
    own = processes.joined(config, TOGETHER)
    assert own.seeds == (9, 1) and not own.distributed and config.seeds == (4, 3, 9, 1)
    assert asked == [{"num_processes": 2, "process_id": 1}] and not ended
    with pytest.raises(
        ValueError, match="3 seeds cannot be shared so by 2 processes; give a multiple of 2 seeds, or let"
    ):
        processes.joined(config_of(seeds=(0, 1, 2)), TOGETHER)
    assert ended


def test_a_process_that_is_gone_is_a_sentence(monkeypatch):
    def gone(tree):
        raise ValueError("UNKNOWN: Gloo AllGather failed: Connection reset by peer\nmore")

    monkeypatch.setattr(processes.multihost_utils, "process_allgather", gone)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match=r"another process of this run has ended, .*Connection reset by peer\)$"):
        processes.anywhere(False)
    with pytest.raises(ValueError, match="no such shape"), processes.meeting():  # a defect shows its traceback
        raise ValueError("no such shape")


def test_alone_nothing_is_different():
    config = gymnax_states.get_config("smoke")
    assert processes.joined(config, TOGETHER) is config
    assert processes.anywhere(True) and not processes.anywhere(False) and processes.least(3) == 3
    assert processes.is_first() and not processes.several()
    tree = {"a": np.arange(3)}
    assert of_all(tree) is tree and shapes_of_all(tree) is tree and of_this(tree, None) is tree
    assert processes.brought_to_first(tree) == [tree]
    processes.end_alone(3)  # which ends nothing
    assert choose_devices(config).mesh is None


LANES = "--config.lanes.agent.tau=(0.01,0.02)"
CASES = {
    # Each seed has a device; one process cuts the CPU into as many as two do together.
    "device": ("gymnax", signal.SIGTERM, ["--config.devices=2"], ["--config.devices=4"]),
    "host": ("own_kinds:HOST", signal.SIGKILL, ["--config.over_seeds=map", LANES], ["--config.over_seeds=map", LANES]),
}


def start(kind, results, *settings, variables=None):
    line = [sys.executable, "-m", "experiments.run", f"--config=tests/support/tiny_config.py:{kind}-states-td3"]
    line += ["--config.seeds=(0,1,2,3)", "--config.total_frames=2000", "--config.checkpoint_every=40"]
    line += [f"--config.results_dir={results}", *settings]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests/support")])} | (variables or {})
    pipe = subprocess.PIPE
    return subprocess.Popen(line, cwd=ROOT, env=env, stdout=pipe, stderr=pipe, text=True)


def both(*given):
    """Two processes of one run, on a free port of this machine."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{found.getsockname()[1]}"
    said = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    each = [said | {"JAX_PROCESS_ID": str(i)} for i in range(2)]
    return [start(*given, "--config.distributed=True", variables=variables) for variables in each]


def finished(*runs):
    """Output, errors and status of each, without what the collectives of the CPU say of themselves."""
    found = [(*run.communicate(timeout=900), run.returncode) for run in runs]
    return [(_told(out), _told(err), status) for out, err, status in found]


def _told(text):
    return "\n".join(line for line in text.splitlines() if not line.startswith("[Gloo] Rank"))


def steps_in(results):
    """Of all checkpoints, of lanes too; what is being written elsewhere is not looked at."""
    found = [path for depth in ("*", "*/*") for path in results.glob(f"{depth}/checkpoint/*")]
    return {int(path.name) for path in found if path.name.isdigit()}


def what_a_run_left(results):
    """By their paths: rows but for the clock, the arrays of the newest checkpoint, networks."""
    found = {}
    for path in results.glob("**/metrics.jsonl"):
        rows = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in read_metrics(path)]
        found[path.relative_to(results)] = rows
        found |= _leaves(path.parent.relative_to(results) / "model", load_model(path.parent / "model"))
    for place in results.glob(f"**/checkpoint/{max(steps_in(results))}/*/"):
        if place.name in ("replay", "state", "envs"):
            with ocp.PyTreeCheckpointer() as checkpointer:
                tree = checkpointer.metadata(place).item_metadata.tree
                how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
                found |= _leaves(place.relative_to(results), checkpointer.restore(place, restore_args=how))
    return found


def _leaves(place, tree):
    found = jax.tree_util.tree_leaves_with_path(tree)
    return {place / jax.tree_util.keystr(path): np.asarray(leaf).tolist() for path, leaf in found}


@pytest.mark.slow
@pytest.mark.parametrize("loop", CASES)
def test_two_processes_of_which_one_is_stopped_or_killed_equal_one(loop, tmp_path):
    kind, how, two, one = CASES[loop]
    shared, alone = tmp_path / "shared", tmp_path / "alone"
    runs = both(kind, shared, *two)
    try:
        wait_for(lambda: steps_in(shared) or any(run.poll() is not None for run in runs), 600)
        runs[1].send_signal(how)  # that it alone gets
        (out, err, status), (other, other_err, other_status) = finished(*runs)
    finally:
        for run in runs:
            run.kill()
    assert not other, other
    if how == signal.SIGTERM:
        assert (status, other_status, other_err) == (130, 130, ""), err + other_err
        assert "stopping (another process was asked to)" in out and "stopped; the same command goes on" in out
    else:
        assert status != 0 and "nother" in err and other_status == -signal.SIGKILL, err
    end = f"--config.stop_at_frame={max(steps_in(shared)) + 40}"
    for out, err, status in finished(*both(kind, shared, *two, end), start(kind, alone, *one, end)):
        assert status == 0, out + err
    left, expected = what_a_run_left(shared), what_a_run_left(alone)
    assert len(expected) > 100 and left.keys() == expected.keys()
    differing = [str(name) for name in expected if not np.array_equal(left[name], expected[name])]
    assert not differing, differing
