"""The best of a method's candidates becomes its settings, and every method has the same budget."""

import json

import pytest
from fake_streams import fake, rows_of

from experiments.build.methods import METHODS
from experiments.plasticity import main, make_plan
from experiments.streams import tuning
from experiments.streams.arms import SETTINGS, arms_of
from experiments.streams.registry import STREAMS
from experiments.streams.rows import Finished
from experiments.streams.tables import Compared
from experiments.streams.types import Arm


def test_the_budget_is_the_same_for_all_methods_that_have_settings():
    candidates = json.loads(tuning.CANDIDATES.read_text())
    assert set(candidates) == set(METHODS) - {"normalise_and_project"}  # which has none
    assert {len(each) for each in candidates.values()} == {2}


def test_tuned_settings_are_candidates():
    candidates = json.loads(tuning.CANDIDATES.read_text())
    for stream, tuned in json.loads(SETTINGS.read_text()).items():
        assert stream in STREAMS
        for method, settings in tuned.items():
            assert settings in candidates[method], method


@pytest.mark.parametrize(
    "name", [each if "_" not in each else pytest.param(each, marks=pytest.mark.slow) for each in STREAMS]
)
def test_every_stream_takes_all_methods_and_candidates(name):
    stream = STREAMS[name]
    for arm in [*arms_of(stream, []), *tuning.candidate_arms(stream, [])]:
        stream.protocol(arm)


def test_tuning_begins_at_the_defaults_and_not_at_what_was_tuned_before(monkeypatch, tmp_path):
    tuned = tmp_path / "settings.json"
    tuned.write_text(json.dumps({"fake": {"redo": {"redo.tau": 0.7}}}))
    monkeypatch.setattr("experiments.streams.arms.SETTINGS", tuned)
    arms = {arm.name: arm.overrides for arm in tuning.candidate_arms(fake(), ["redo"])}
    assert [name for name in arms if "redo" in name] == ["redo", "redo,redo.tau=0.025", "redo,redo.tau=0.3"]
    assert arms["redo"] == {"plasticity.method": "redo"}


def finished(name, overrides, better):
    rows = [row._replace(auc=row.auc + better) for row in rows_of("fake", name, range(3))]
    return Finished(Arm(name, overrides), (0, 1, 2), rows, 1.0, {})


def test_the_best_is_chosen_by_its_performance_in_late_tasks():
    def redo(tau=None):
        return {"plasticity.method": "redo"} | ({} if tau is None else {"plasticity.redo.tau": tau})

    arms = [
        finished("fresh", {}, 0.9),
        finished("redo", redo(), 0.1),
        finished("redo,redo.tau=0.025", redo(0.025), 0.3),
        finished("redo,redo.tau=0.3", redo(0.3), 0.2),
        finished("leaky_relu", {"agent.activation": "leaky_relu"}, 0.9),  # of another comparison in the same folder
        finished("ne", {"plasticity.method": "ne"}, 0.2),
        finished("ne,omega=0.9", {"plasticity.method": "ne", "plasticity.omega": 0.9}, float("nan")),
    ]
    compared = Compared(fake(), {arm.arm.name: arm for arm in arms})
    assert tuning.best_settings(compared) == {"redo": {"redo.tau": 0.025}}
    early = [row._replace(auc=9.0) if row.task < 3 else row for row in arms[3].rows]
    compared.arms["redo,redo.tau=0.3"] = arms[3]._replace(rows=early)
    assert tuning.best_settings(compared) == {"redo": {"redo.tau": 0.025}}


@pytest.mark.slow
def test_the_program_writes_what_it_found(monkeypatch, tmp_path):
    for name in list(STREAMS):
        monkeypatch.delitem(STREAMS, name)
    monkeypatch.setitem(STREAMS, "fake", fake())
    command = ["--method=redo", "--seeds=3", f"--out={tmp_path}", "--jobs=1"]
    assert main(["--tune", *command]) == 0
    assert json.loads((tmp_path / "settings.json").read_text()) == {"fake": {}}  # all are as good: the first is kept
    assert (tmp_path / "rows/fake/redo_redo.tau=0.3.json").exists()


def test_settings_on_the_command_line_are_refused(tmp_path):
    with pytest.raises(ValueError, match="--tune takes methods by name"):
        make_plan(["labels"], ["redo,redo.tau=0.2"], 2, 0, tmp_path, 1, tune=True)
