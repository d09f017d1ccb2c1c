"""Processes of this machine: what they get of it, that they end with the sweep, and that none is trained twice."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from planned import planned

from experiments.launch import leash
from experiments.launch.local import BASE_MEMORY, LocalLauncher, gpus_here, make_slots, memory_here

ROOT = Path(__file__).parents[3]
linux = pytest.mark.skipif(sys.platform != "linux", reason="affinity and the parent's death are Linux's")


def wait_until(true, seconds=60.0):
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.02)


def all_ended(launcher, count):
    found = {}
    wait_until(lambda: found.update({each.name: each.status for each in launcher.ended(0.05)}) or len(found) == count)
    return found


def test_cores_and_gpus_are_dealt_out():
    assert [slot.cores for slot in make_slots(None, [0, 1, 2], [])] == [(0,), (1,), (2,)]
    assert [slot.cores for slot in make_slots(2, [0, 1, 2, 3, 5], [])] == [(0, 1), (2, 3, 5)]
    assert [slot.cores for slot in make_slots(3, [4, 5], [])] == [(4,), (4,), (5,)]
    two = make_slots(None, [0, 1, 2, 3], ["0", "3"])
    assert [(slot.cores, dict(slot.variables)) for slot in two] == [
        ((0, 1), {"CUDA_VISIBLE_DEVICES": "0"}),
        ((2, 3), {"CUDA_VISIBLE_DEVICES": "3"}),
    ]
    shared = [dict(slot.variables) for slot in make_slots(3, [0], ["0", "1"])]
    assert [each["CUDA_VISIBLE_DEVICES"] for each in shared] == ["0", "1", "0"]
    assert {each["XLA_PYTHON_CLIENT_MEM_FRACTION"] for each in shared} == {"0.450"}


def test_gpus_are_those_that_runs_would_see(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    assert gpus_here() == ["2", "5"]
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert gpus_here() == []


@linux
def test_a_run_has_its_slots_cores_and_variables_and_prints_into_its_log(tmp_path):
    core = min(os.sched_getaffinity(0))
    (slot,) = make_slots(1, [core], ["7"])
    launcher = LocalLauncher([slot], 10 * BASE_MEMORY)
    program = "print(os.sched_getaffinity(0), os.environ['CUDA_VISIBLE_DEVICES']); sys.exit('and a word')"
    run = planned(tmp_path, "a", program)
    assert launcher.start([run]) == [run]
    assert all_ended(launcher, 1) == {"a": 1}
    assert run.log.read_text().splitlines() == [f"{{{core}}} 7", "and a word"]


def test_slots_and_memory_bound_how_many_run(tmp_path):
    runs = [planned(tmp_path, name, "time.sleep(600)", memory=BASE_MEMORY) for name in "abc"]
    for slots, memory, most in ((2, 100 * BASE_MEMORY, 2), (3, 3 * BASE_MEMORY, 1)):
        launcher = LocalLauncher(make_slots(slots, [], []), memory)
        launcher.check(runs)
        assert [run.name for run in launcher.start(runs)] == ["a", "b", "c"][:most]
        assert launcher.start(runs[most:]) == []
        launcher.kill()
        assert set(all_ended(launcher, most).values()) == {-signal.SIGKILL}
        assert [run.name for run in launcher.start(runs[most:])] == ["c" if most == 2 else "b"]  # there is room again
        launcher.kill()
        all_ended(launcher, 1)


def test_a_run_that_does_not_fit_alone_is_a_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"a needs about 6\.0 GB, and --memory is 2\.0 GB; raise it"):
        LocalLauncher(make_slots(1, [], []), 2 * BASE_MEMORY).check([planned(tmp_path, "a", memory=5 * BASE_MEMORY)])
    assert 10**8 < memory_here() < 10**14


STOPS = """
signal.signal(signal.SIGTERM, lambda *_: (folder / "saved").touch() or sys.exit(130))
(folder / "begun").touch()
time.sleep(600)
"""


def test_asked_to_stop_runs_get_sigterm(tmp_path):
    launcher, run = LocalLauncher(make_slots(1, [], []), 10 * BASE_MEMORY), planned(tmp_path, "a", STOPS)
    launcher.start([run])
    wait_until((run.folder / "begun").exists)
    assert leash.is_held(run.log)
    assert "Ctrl-C again" in launcher.stop()
    assert all_ended(launcher, 1) == {"a": 130} and (run.folder / "saved").exists()
    assert not leash.is_held(run.log)


SWEEP = """
import sys, time
from pathlib import Path
sys.path.insert(0, {support!r})
from planned import planned
from experiments.launch.local import LocalLauncher, make_slots
LocalLauncher(make_slots(1, [], []), 10**12).start([planned(Path({root!r}), "a", {program!r})])
time.sleep(600)
"""


@linux
def test_a_killed_sweep_leaves_no_run_and_a_second_one_waits_until_it_has_saved(tmp_path):
    saves = STOPS.replace("or sys.exit(130)", "or time.sleep(1) or (folder / 'gone').touch() or sys.exit(130)")
    code = SWEEP.format(support=str(ROOT / "tests" / "support"), root=str(tmp_path), program=saves)
    first = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    folder = tmp_path / "a"
    wait_until((folder / "begun").exists)
    first.kill()
    first.wait()
    second = LocalLauncher(make_slots(1, [], []), 10 * BASE_MEMORY)
    second.start([planned(tmp_path, "a", "(folder / 'second').write_text(str((folder / 'gone').exists())); end()")])
    assert all_ended(second, 1) == {"a": 0}
    assert (folder / "saved").exists() and (folder / "second").read_text() == "True"
