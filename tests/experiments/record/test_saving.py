"""Where results cannot be written: one sentence, and what was there before stays whole."""

import errno
import os
import shutil
from types import SimpleNamespace

import pytest

from configs import gymnax_states
from experiments.build.errors import UserError
from experiments.record import saving
from experiments.record.folder import Folder


@pytest.fixture
def folder(tmp_path):
    config = gymnax_states.get_config("smoke")
    config.results_dir = str(tmp_path)
    found = Folder(config)
    found.checkpoint.mkdir(parents=True)
    found.config.write_text("{}")
    return found


def fails(folder, error, newest: int | None = 7):
    with saving.saving([folder], SimpleNamespace(newest=newest)):  # pyright: ignore
        raise error


def test_what_the_system_says_is_one_sentence_wherever_it_comes_from(folder):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    wrapped = ValueError("array could not be written")
    wrapped.__cause__ = full
    said = "RESULTS: Error writing: No space left on device [source locations]"
    for error in (full, wrapped, ValueError(said)):
        with pytest.raises(UserError, match=r"\(No space left on device\); the checkpoint of step 7 is intact"):
            fails(folder, error)
    with pytest.raises(UserError, match=r"Read-only file system\); no checkpoint is there"):
        fails(folder, OSError(errno.EROFS, os.strerror(errno.EROFS)), newest=None)


def test_a_defect_is_not_taken_for_a_full_disk(folder):
    with pytest.raises(TypeError, match="no such thing"):
        fails(folder, TypeError("no such thing"))


def test_a_folder_that_has_vanished_is_noticed_before_and_after_writing(folder):
    checkpoints = SimpleNamespace(newest=7)
    with pytest.raises(UserError, match="is gone"), saving.saving([folder], checkpoints):  # pyright: ignore
        shutil.rmtree(folder.root)
    with pytest.raises(UserError, match="is gone"), saving.saving([folder], checkpoints):  # pyright: ignore
        raise AssertionError("nothing is written any more")


def test_a_replay_that_the_disk_will_not_hold_or_that_takes_long_is_warned_of(tmp_path, monkeypatch):
    monkeypatch.setattr(saving.shutil, "disk_usage", lambda _: SimpleNamespace(free=700 * 10**9))
    warning = saving.disk_warning(tmp_path / "not" / "there", 300 * 10**9)
    assert "3 checkpoints of up to 300.0 GB each want 900.0 GB" in warning and "700.0 GB are free" in warning
    assert "replay.capacity" in warning and "\n" not in warning
    assert "takes up to 200.0 GB" in saving.disk_warning(tmp_path, 200 * 10**9)
    assert saving.disk_warning(tmp_path, 10**9) == ""
