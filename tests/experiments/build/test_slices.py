"""Which seeds a process trains, and what its folder says of processes before it."""

import json

import pytest

from configs import gymnax_states
from experiments.build.checks import validate
from experiments.build.slices import Slice, own_seeds, slice_of
from experiments.record.folder import Folder, check_config, check_folder, open_folder, versions_in


def config_of(tmp_path, part, seeds=(3, 1, 4, 15, 9)):
    config = gymnax_states.get_config("smoke")
    config.update(results_dir=str(tmp_path), slice=part, seeds=seeds)
    return config


def test_slices_hold_every_seed_once(tmp_path):
    parts = [own_seeds(config_of(tmp_path, f"{i}/3")).seeds for i in range(3)]
    assert parts == [(3, 15), (1, 9), (4,)]
    assert own_seeds(config_of(tmp_path, "")).seeds == own_seeds(config_of(tmp_path, "0/1")).seeds == (3, 1, 4, 15, 9)


@pytest.mark.parametrize(
    "variables",
    [
        {"SLURM_PROCID": "1", "SLURM_NTASKS": "4"},
        {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "4"},
    ],
)
def test_auto_takes_the_number_from_who_started_the_processes(tmp_path, variables):
    assert slice_of(config_of(tmp_path, "auto"), variables) == Slice(1, 4)


@pytest.mark.parametrize("part", ["1", "2/2", "-1/2", "1/0", "a/b", "1/2/3", "1 / 2", "0.5/2"])
def test_what_is_no_slice_is_a_sentence(tmp_path, part):
    with pytest.raises(
        ValueError, match=r"^slice must be i/n with i from 0 to n - 1, such as 0/2 and 1/2, or auto, got"
    ):
        validate(config_of(tmp_path, part))


def test_more_processes_than_seeds_are_a_sentence(tmp_path):
    with pytest.raises(
        ValueError, match=r"^slice=0/6 is one of 6 processes, and there are 5 seeds; each needs one, so"
    ):
        validate(config_of(tmp_path, "0/6"))


def test_auto_without_the_variables_is_a_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"^slice=auto needs the variables of SLURM's srun or Open MPI's mpirun"):
        slice_of(config_of(tmp_path, "auto"), {})


@pytest.mark.parametrize(
    ("first", "then", "told"),
    [
        ("0/2", "0/3", "by 2 processes, slice=0/2 and so on"),
        ("1/2", "", "by 2 processes, slice=0/2 and so on"),
        ("", "0/2", "by one process, without slice"),
    ],
)
def test_another_number_of_processes_is_refused(tmp_path, first, then, told):
    before, after = config_of(tmp_path, first), config_of(tmp_path, then)
    open_folder(Folder(before), before)
    check_folder(Folder(before), before)
    with pytest.raises(FileExistsError, match=f"was written {told}, and now slice='{then}'; go on as it was begun"):
        check_folder(Folder(after), after)
    check_config(Folder(after), after)


def test_all_slices_write_one_run_with_the_config_of_all_seeds(tmp_path):
    whole = config_of(tmp_path, "")
    for part in ("0/2", "1/2"):
        config = config_of(tmp_path, part)
        folder = Folder(config)
        check_folder(folder, config)
        open_folder(folder, config)
        assert json.loads(folder.config.read_text())["slice"] == part
    assert json.loads(Folder(whole).config.read_text()) == json.loads(whole.to_json())
    assert sorted(path.name for path in folder.root.iterdir()) == ["config.json", "slices"]
    assert len(versions_in(folder.root)) == 2
    (folder.checkpoint / "400").mkdir(parents=True)
    assert not Folder(whole).is_trained(400)
    (Folder(config_of(tmp_path, "0/2")).checkpoint / "400").mkdir(parents=True)
    assert Folder(whole).is_trained(400) and not Folder(whole).is_trained(500)


def test_other_seeds_and_deleting_what_others_have_are_refused(tmp_path):
    config = config_of(tmp_path, "0/2")
    open_folder(Folder(config), config)
    other = config_of(tmp_path, "1/2", seeds=(0, 1))
    with pytest.raises(FileExistsError, match=r"another config \(seeds:"):
        check_folder(Folder(other), other)
    config.update(resume=False, overwrite=True)
    with pytest.raises(ValueError, match=r"overwrite=True with slice=0/2 would delete what the other processes have"):
        check_folder(Folder(config), config)


def test_a_folder_of_before_there_were_slices_goes_on(tmp_path):
    config = config_of(tmp_path, "")
    open_folder(Folder(config), config)
    kept = json.loads(Folder(config).config.read_text())
    del kept["slice"]
    Folder(config).config.write_text(json.dumps(kept))
    check_folder(Folder(config), config)
