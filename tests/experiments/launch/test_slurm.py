"""Jobs by submitit: settings, what is said where it cannot be used, and which jobs are found again."""

import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from planned import planned

from experiments.launch.slurm import Job, SubmititLauncher, load_submitit


def test_without_the_package_the_line_for_pip_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ValueError, match=r'not installed: pip install "submitit>=1\.5,<2"'):
        load_submitit()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, 'Could not detect "srun"'),
        ({"cluster": "moon"}, "--slurm.cluster must be slurm, or local"),
        ({"cluster": "local", "partitoin": "gpu"}, "Unknown argument 'partitoin'"),
        ({"cluster": "local", "mem_gb": "much"}, '"mem_gb" expected type'),
    ],
)
def test_what_cannot_be_is_a_sentence(tmp_path, monkeypatch, settings, sentence):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))  # no SLURM, wherever the tests run
    with pytest.raises(ValueError, match=sentence) as found:
        SubmititLauncher(tmp_path, settings, None)
    assert "\n" not in str(found.value)


def test_a_warned_job_passes_it_on_waits_and_asks_for_itself_again(tmp_path):
    pytest.importorskip("submitit")
    saves = "signal.signal(signal.SIGTERM, lambda *_: time.sleep(0.3) or (folder / 'saved').touch() or sys.exit(130))\n"
    run = planned(tmp_path, "a", saves + "(folder / 'begun').touch(); time.sleep(600)")
    job = Job(run.command, run.log)
    job._run = subprocess.Popen(run.command)
    until = time.monotonic() + 60
    while not (run.folder / "begun").exists() and time.monotonic() < until:
        time.sleep(0.02)
    again = job.checkpoint()
    assert (run.folder / "saved").exists() and isinstance(again.function, Job)
    assert again.function._command == list(run.command) and job._run.wait() == 130


def test_jobs_that_live_are_found_again_and_others_submitted_once(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    runs, submitted = [planned(tmp_path, name) for name in "ab"], []

    def start_controller(**_):
        submitted.append(SimpleNamespace(pid=1_000 + len(submitted), poll=lambda: None))
        return submitted[-1]

    monkeypatch.setattr("submitit.local.local.start_controller", start_controller)
    monkeypatch.setattr("experiments.launch.slurm._is_controller", lambda _: True)
    first = SubmititLauncher(tmp_path, {"cluster": "local"}, parallel=1)
    assert [run.name for run in first.start(runs)] == ["a"]  # one at a time
    second = SubmititLauncher(tmp_path, {"cluster": "local"}, parallel=2)
    assert [run.name for run in second.start(runs)] == ["a", "b"] and len(submitted) == 2
    assert second.stop().endswith("kill 1000 1001") and list(second.ended(0)) == []
    monkeypatch.setattr("experiments.launch.slurm._is_controller", lambda _: False)
    assert list(second.ended(0)) == [("a", -9), ("b", -9)]  # which ended without a word
