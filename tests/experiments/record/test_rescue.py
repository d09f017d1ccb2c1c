"""What goes wrong in the middle of a run loses nothing that was computed."""

import errno
import os
from types import SimpleNamespace
from typing import Any

import pytest

from configs import gymnax_states
from experiments.record import monitor
from experiments.record.checkpoints import Checkpoints
from experiments.record.folder import Folder
from experiments.record.metrics_files import read_metrics
from experiments.record.readings import Readings
from experiments.run import run


def small(folder):
    config = gymnax_states.get_config("smoke")
    config.update(results_dir=str(folder), eval=dict(episodes=2), video=dict(every=0))
    return config


def rows_of(config):
    """The metrics of each seed, but for the clock."""
    found = [read_metrics(Folder(config).seed(seed) / "metrics.jsonl") for seed in config.seeds]
    return [[{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows] for rows in found]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a run leaves in which nothing goes wrong."""
    config = small(tmp_path_factory.mktemp("whole"))
    assert run(config) == 0
    return rows_of(config)


def test_only_a_run_between_two_steps_is_saved():
    one: Any = monitor.Monitor.__new__(monitor.Monitor)
    one._experiment, one._checkpoints = SimpleNamespace(frame=lambda step: 4 * step), SimpleNamespace(newest=10)
    saved: list[int] = []
    one.save = lambda run: saved.append(run.step)
    one._last = None  # in the middle of a step
    assert "saved at frame 40;" in one.rescue() and not saved
    one._last = SimpleNamespace(step=12)
    assert "saved at frame 48;" in one.rescue() and saved == [12]
    one._last, one._checkpoints = None, SimpleNamespace(newest=None)
    assert one.rescue() == "nothing is saved yet"


@pytest.mark.slow
def test_after_an_error_between_two_steps_the_run_goes_on_from_there(tmp_path, monkeypatch, capsys, whole):
    config, plasticity = small(tmp_path), Readings.plasticity

    def broken(self, run):
        if run.step == 300:  # no checkpoint is due here
            raise TypeError("a defect")
        return plasticity(self, run)

    with monkeypatch.context() as patch, pytest.raises(TypeError, match="a defect"):
        patch.setattr(Readings, "plasticity", broken)
        run(config)
    assert "the run is saved at frame 300; the same command goes on from there" in capsys.readouterr().err
    assert run(config) == 0
    assert rows_of(config) == whole


@pytest.mark.slow
def test_a_disk_that_is_full_costs_what_came_after_the_newest_checkpoint(tmp_path, monkeypatch, capsys, whole):
    config, save = small(tmp_path), Checkpoints.save

    def full(self, run, envs):
        if run.step == 400:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(self, run, envs)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", full)
        assert run(config) == 2
    said = capsys.readouterr().err
    assert "(No space left on device); the checkpoint of step 200 is intact" in said.strip().splitlines()[-1]
    assert "Traceback" not in said
    assert run(config) == 0
    assert "resuming at frame 200" in capsys.readouterr().out
    assert rows_of(config) == whole


@pytest.mark.slow
def test_a_folder_that_vanishes_is_a_sentence(tmp_path, monkeypatch, capsys):
    config, plasticity = small(tmp_path / "results"), Readings.plasticity

    def vanish(self, run):
        if run.step == 300:
            (tmp_path / "results").rename(tmp_path / "elsewhere")
        return plasticity(self, run)

    monkeypatch.setattr(Readings, "plasticity", vanish)
    assert run(config) == 2
    assert "is gone); no checkpoint is there" in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "results").exists(), "it wrote on into a folder that nobody asked for"
