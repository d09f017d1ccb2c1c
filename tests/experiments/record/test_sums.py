"""Checksums of folders: what is noticed, and that they lead nowhere else."""

import json

import pytest

from experiments.record.sums import SUMS, check_sums, write_sums


def test_what_changed_or_is_missing_is_named(tmp_path):
    (tmp_path / "state").mkdir()
    for name in ("state/a", "b"):
        (tmp_path / name).write_bytes(b"12")
    check_sums(tmp_path)  # an earlier version has kept none
    write_sums(tmp_path)
    check_sums(tmp_path)
    (tmp_path / "b").write_bytes(b"13")
    with pytest.raises(ValueError, match="its file b is damaged"):
        check_sums(tmp_path)
    check_sums(tmp_path, "state/")
    (tmp_path / "state" / "a").unlink()
    with pytest.raises(ValueError, match="its file state/a is missing"):
        check_sums(tmp_path, "state/")


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname"])
def test_no_name_leads_out_of_the_folder(tmp_path, name):
    folder = tmp_path / "run"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(b"1")
    (folder / SUMS).write_text(json.dumps({name: 0}))
    with pytest.raises(ValueError, match="which is not in the folder"):
        check_sums(folder)
