"""N steps, a checkpoint and M more equal N + M steps, bit for bit; a damaged checkpoint falls back."""

import shutil

import numpy as np
import pytest
import tiny

from experiments.record.checkpoints import Checkpoints
from experiments.record.models import load_model, networks_of, write_networks


def restored(folder):
    """A new process in all but name: nothing is shared with the run that saved but the folder."""
    built = tiny.experiment()
    return built, tiny.find(folder, built, built.pool)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Checkpoints at steps 12 and 23 (both in mid-episode), and the uninterrupted run's end."""
    folder = tmp_path_factory.mktemp("run") / "checkpoint"
    built, checkpoints = tiny.experiment(), Checkpoints(folder)
    run = tiny.fresh(built)
    for step in (12, 23):
        run = tiny.train(built, run, until=step)
        checkpoints.save(run, built.pool.snapshot())
    checkpoints.close()
    return folder, tiny.train(built, run)


def test_resumed_equals_uninterrupted_bit_for_bit(saved):
    folder, uninterrupted = saved
    built, found = restored(folder)
    assert found is not None
    run, envs, failures = found
    assert run.step == 23 and failures == []
    built.pool.restore(envs)
    run = tiny.train(built, run, until=25)
    names = ("act", "learn", "remember")
    traced = [getattr(built.steps, name)._cache_size() for name in names]
    end = tiny.train(built, run)
    assert end.step == uninterrupted.step == 40
    tiny.equal(end.learner, uninterrupted.learner)
    tiny.equal(end.rollout, uninterrupted.rollout)
    assert [getattr(built.steps, name)._cache_size() for name in names] == traced, "traced again after the restore"


def test_a_corrupt_newest_checkpoint_falls_back_and_says_so(saved, tmp_path):
    folder = tmp_path / "checkpoint"
    shutil.copytree(saved[0], folder)
    for file in (folder / "23").rglob("*"):
        if file.is_file() and file.stat().st_size > 200:
            file.write_bytes(b"\0" * 100)
    _, found = restored(folder)
    assert found is not None
    run, _, failures = found
    assert run.step == 12
    assert len(failures) == 1 and "23" in failures[0]
    # Nothing was deleted, and the next save at that step works.
    assert (folder / "23.unreadable").exists()
    built = tiny.experiment()
    built.pool.reset()
    tiny.save(folder, run._replace(step=23), built.pool)
    _, found = restored(folder)
    assert found is not None and found[0].step == 23


def test_no_checkpoint_left_is_one_sentence(saved, tmp_path):
    folder = tmp_path / "checkpoint"
    shutil.copytree(saved[0], folder)
    for step in ("12", "23"):
        shutil.rmtree(folder / step)
        (folder / step).mkdir()
    for _ in range(2):  # nothing is set aside, so that the second try does not begin anew
        with pytest.raises(ValueError, match=r"no checkpoint in .* can be read"):
            restored(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["12", "23"]


def test_an_empty_folder_restores_nothing(tmp_path):
    assert restored(tmp_path / "checkpoint")[1] is None


def test_a_seeds_model_is_its_own(saved, tmp_path):
    _, run = saved
    for i in range(2):
        write_networks(tmp_path / str(i), networks_of(run.learner.agent, i))
        model = load_model(tmp_path / str(i))
        assert sorted(model) == ["actor", "critic", "encoder", "target_critic"]
        kernel = run.learner.agent.actor.params["policy"]["hidden_0"]["dense"]["kernel"][i]
        np.testing.assert_array_equal(model["actor"]["params"]["policy"]["hidden_0"]["dense"]["kernel"], kernel)
        mask = model["actor"]["masks"]["policy/hidden_0/dense/kernel"]
        assert not np.any(np.asarray(kernel)[~np.asarray(mask)])
