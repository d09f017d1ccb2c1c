"""Runs on Ray: how they start, end, stop and die, as tiny programs; and what is said where Ray cannot be used."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from planned import planned

from experiments.launch.ray_cluster import Job, RayLauncher, check_needs, load_ray

ROOT = Path(__file__).parents[3]


def test_without_the_package_the_line_for_pip_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r'not installed: pip install "ray>=2\.50,<3"'):
        load_ray()


def test_an_actor_passes_signals_on_and_a_run_told_before_it_begins_does_not_begin(tmp_path):
    run = planned(tmp_path, "a", "(folder / 'begun').touch()")
    job = Job(run.command, str(run.log), os.getcwd())
    job.tell(signal.SIGTERM)
    assert job.train() == -signal.SIGTERM and not (run.folder / "begun").exists()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"num_cups": 1}, "--ray.num_cups is no setting; there are --ray.address, --ray.num_cpus"),
        ({"num_cpus": "many"}, "--ray.KEY=VALUE cannot be so"),
        ({"num_cpus": -1}, "--ray.KEY=VALUE cannot be so"),
    ],
)
def test_what_cannot_be_is_a_sentence(settings, sentence):
    pytest.importorskip("ray")
    with pytest.raises(ValueError, match=sentence) as found:
        RayLauncher(settings, None)
    assert "\n" not in str(found.value)


def test_more_than_the_machine_has_is_a_sentence():
    check_needs({"num_cpus": 2, "resources": {"a": 1}}, {"CPU": 2.0})
    with pytest.raises(ValueError, match=r"--ray.num_gpus=1 is more than the 0 of this machine"):
        check_needs({"num_cpus": 2, "num_gpus": 1}, {"CPU": 2.0})


@pytest.mark.slow
def test_runs_start_end_die_lose_their_machine_and_stop(tmp_path):
    pytest.importorskip("ray")
    # In a process of its own: Ray leaves those that it starts to Popen, which warns of them whenever it comes to that.
    command = [sys.executable, "-m", "ray_session", str(tmp_path)]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])}
    done = subprocess.run(command, capture_output=True, text=True, env=variables, cwd=ROOT, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("all is as it should be\n")
