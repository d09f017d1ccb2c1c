"""Tuning by runs that are made up: what is trained how far, what is chosen, and what the protocol says."""

import json
import sys

import numpy as np
import pytest

from configs import continual, gymnax_states
from experiments.comparison.halving import Rung
from experiments.comparison.tuning import SCORES, Protocol, asked_for, halve, make_tuning, score, up_to
from experiments.launch.engine import Result
from experiments.launch.plan import Planned
from experiments.launch.progress import State

METHODS = {"none": {"plasticity.method": "none"}, "ne": {"plasticity.method": "ne"}}
SHARED = ["--config", "F", "--config.seeds=(0,1)", "--config.video.every", "5", "--config.batch_size=8"]
NINE = "agent.tau=" + ",".join(f"0.{i}" for i in range(1, 10))


def config_of(**more):
    config = gymnax_states.get_config()
    config.update(total_frames=900, seed_frames=100, seeds=(0, 1))
    config.eval.every = 100
    config.update(more)
    return config


def tuning_of(config, tune=(NINE,), dev_seeds=("7", "8"), budget=None, methods=METHODS):
    return make_tuning(config, methods, tune, dev_seeds, budget)


class Made:
    """Trains runs at once: each evaluation of a seed is what `value(overrides, frame, seed)` says."""

    def __init__(self, value, fails=()):
        self.value, self.fails, self.trained = value, fails, []

    def train(self, runs):
        states = {}
        for run in runs:
            self.trained += [] if run.done else [run.name]
            for seed in run.seeds:
                frames = range(0, self.frames_there(run) + 1, 100)
                rows = [{"frame": at, "eval/return": self.value(run.overrides, at, seed)} for at in frames]
                rows = [row | {"train/diverged": float(row["eval/return"] is None)} for row in rows]
                path = run.folder / str(seed) / "metrics.jsonl"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("".join(json.dumps(row) + "\n" for row in rows))
            run.checkpoint.mkdir(parents=True, exist_ok=True)
            states[run.name] = State.FAILED if run.name in self.fails else State.DONE
        return Result(states, dict.fromkeys(self.fails, "no room"), stopped=False)

    def frames_there(self, run):
        return max([run.frames, *(int(path.name) for path in run.checkpoint.parent.glob("*"))])


def plan(root, tuning):
    """The runs of a plan without the process that checks them."""
    found = {label: {} for label in tuning.candidates}
    names = [(label, name) for label, each in tuning.candidates.items() for name in each]
    for (label, name), each in zip(names, asked_for(tuning, METHODS, SHARED, root), strict=True):
        folder = root / "tuning" / label / name
        command, last = (sys.executable, "-m", "experiments.run", *each.arguments), folder / "checkpoint" / "900"
        own = (each.name, each.overrides, command, folder, tuning.dev_seeds, 900, last)
        found[label][name] = Planned(*own, memory=0, log=root / "x")
    return found


def tuned(root, made, tuning=None, config=None):
    config = config or config_of()
    tuning = tuning or tuning_of(config)
    protocol = Protocol(root / "protocol.json", tuning, config.total_frames)
    status = halve(tuning, plan(root, tuning), made.train, protocol)
    return status, json.loads((root / "protocol.json").read_text())


def near(best):
    return lambda overrides, frame, seed: -abs(float(overrides["agent.tau"]) - best) * frame + seed


def test_the_best_is_found_by_a_third_of_the_frames_and_the_protocol_says_how(tmp_path):
    made = Made(near(0.4))
    status, protocol = tuned(tmp_path, made)
    assert status == 0 and protocol["rungs"] == [{"candidates": 9, "frames": 300}, {"candidates": 3, "frames": 900}]
    for label in METHODS:
        own = protocol["methods"][label]
        assert own["chosen"] == "tau=0.4" and own["overrides"] == {"agent.tau": "0.4"}
        assert [each["kept"] for each in own["rounds"]] == [["tau=0.3", "tau=0.4", "tau=0.5"], ["tau=0.4"]]
        assert list(own["candidates"]) == list(own["rounds"][0]["scores"])
        # The last fifth of 300 frames holds one evaluation, that of 900 holds two.
        assert own["rounds"][0]["scores"]["tau=0.1"] == {
            "score": pytest.approx(-82.5),
            "seeds": pytest.approx([-83.0, -82.0]),
        }
        assert own["rounds"][1]["scores"]["tau=0.5"]["seeds"] == [pytest.approx(-78.0), pytest.approx(-77.0)]
    assert made.trained[:2] == ["none tau=0.1 to 300", "none tau=0.2 to 300"] and len(made.trained) == 2 * (9 + 3)
    assert protocol["frames_per_method"] == 2 * (9 * 300 + 3 * 600)
    assert protocol["dev_seeds"] == [7, 8] and protocol["held_out_seeds"] == [0, 1]


def test_the_same_again_trains_nothing_and_says_the_same(tmp_path):
    made = Made(near(0.7))
    first = tuned(tmp_path, made)
    made.trained.clear()
    assert tuned(tmp_path, made) == first and made.trained == []


def test_what_came_after_a_round_does_not_change_it(tmp_path):
    """Late scores turn around, so a first round that looked at all rows would keep others when it is done again."""
    made = Made(lambda overrides, frame, seed: float(overrides["agent.tau"]) * (1 if frame <= 300 else -1))
    first = tuned(tmp_path, made)
    assert first[1]["methods"]["ne"]["rounds"][0]["kept"] == ["tau=0.7", "tau=0.8", "tau=0.9"]
    assert first[1]["methods"]["ne"]["chosen"] == "tau=0.7"
    assert tuned(tmp_path, made) == first


def test_where_tasks_take_turns_all_evaluations_count():
    config = continual.get_config("smoke")
    config.update(total_frames=900, seed_frames=100)
    config.eval.every = 100
    tuning = tuning_of(config, dev_seeds=("7",))
    assert tuning.in_turns and not tuning_of(config_of()).in_turns
    assert "all evaluations" in SCORES[tuning.in_turns]


def test_scores(tmp_path):
    folder = tmp_path / "run"
    run = Planned("a", {}, (), folder, (7,), 900, folder / "checkpoint" / "900", 0, tmp_path / "x")
    (folder / "7").mkdir(parents=True)
    rows = [{"frame": 100 * i, "eval/return": float(i)} for i in range(10)] + [{"frame": 950, "train/return": 5.0}]
    path = folder / "7" / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert score(run, 900, in_turns=False) == (8.5, [8.5])
    assert score(run, 900, in_turns=True) == (5.0, [5.0])
    assert score(run, 300, in_turns=True) == (2.0, [2.0])
    path.write_text(path.read_text() + json.dumps({"frame": 960, "eval/return": None}) + "\n")
    assert score(run, 960, in_turns=False)[0] == 8.5  # an environment failed, and not the setting
    path.write_text(path.read_text() + json.dumps({"frame": 970, "eval/return": None, "train/diverged": 1.0}) + "\n")
    assert np.isnan(score(run, 970, in_turns=False)[0]) and score(run, 960, in_turns=False)[0] == 8.5


def test_a_seed_that_diverges_loses_its_setting_and_one_that_fails_stops_the_tuning(tmp_path, capsys):
    good = near(0.41)
    made = Made(lambda own, frame, seed: None if (own["agent.tau"], seed) == ("0.4", 8) else good(own, frame, seed))
    status, protocol = tuned(tmp_path / "a", made)
    assert status == 0 and protocol["methods"]["ne"]["chosen"] == "tau=0.5"
    assert protocol["methods"]["ne"]["rounds"][0]["scores"]["tau=0.4"]["score"] is None
    with pytest.raises(ValueError, match=r"no setting of --method=none has a finite score at frame 300; leave"):
        tuned(tmp_path / "b", Made(lambda own, frame, seed: None))
    (tmp_path / "c").mkdir()
    config = config_of()
    protocol = Protocol(tmp_path / "c" / "protocol.json", tuning_of(config), 900)
    failing = Made(good, fails=["ne tau=0.2 to 300"])
    assert halve(tuning_of(config), plan(tmp_path / "c", tuning_of(config)), failing.train, protocol) == 2
    assert capsys.readouterr().err == "error: ne tau=0.2 to 300: no room\n" and not protocol.path.exists()


def test_runs_are_cut_off_their_whole_course_and_done_once_they_are_there_or_further(tmp_path):
    run = plan(tmp_path, tuning_of(config_of()))["ne"]["tau=0.2"]
    given = [word for word in run.command if word.startswith("--config") or word in ("F", "5")]
    assert given[:3] == ["--config", "F", "--config.batch_size=8"]
    assert sorted(given[5:]) == sorted(
        ["--config.video.every=0", "--config.seeds=(7,8,)", "--config.plasticity.method=ne", "--config.agent.tau=0.2"]
    )
    cut = up_to(run, 300, 2)
    assert cut.command == (*run.command, "--config.stop_at_frame=300") and cut.log == run.log
    assert cut.checkpoint == run.checkpoint.with_name("150") and not cut.done
    (run.checkpoint.with_name("149")).mkdir(parents=True)
    (run.checkpoint.with_name("450.unreadable")).mkdir()
    assert not cut.done
    (run.checkpoint.with_name("450")).mkdir()
    assert cut.done and not run.done


def test_a_budget_draws_as_many_settings_of_each_method():
    tuning = tuning_of(config_of(), [NINE, "ne:plasticity.tau=0.1,0.2"], budget=4.0)
    assert {label: len(each) for label, each in tuning.candidates.items()} == {"none": 6, "ne": 6}
    assert tuning.sizes == {"none": 9, "ne": 18} and tuning.rungs == [Rung(6, 300), Rung(2, 900)]


@pytest.mark.parametrize(
    ("more", "asked", "sentence"),
    [
        ({"eval": {"every": 0}}, {}, "--tune chooses by greedy evaluations, and eval.every=0 has none"),
        ({"seed_frames": 300}, {}, "9 candidates are first compared at frame 300, before any has learned"),
        ({"eval": {"every": 900}}, {}, "two of these would end with the same evaluation"),
        ({}, {"budget": 1.0}, "--budget=1 runs are too few to compare two settings: 2 are the least"),
        ({}, {"dev_seeds": ("1",)}, "--dev-seeds and --config.seeds share 1"),
    ],
)
def test_what_cannot_be_tuned_is_a_sentence(more, asked, sentence):
    with pytest.raises(ValueError) as found:
        tuning_of(config_of(**more), **asked)
    assert sentence in str(found.value)


@pytest.mark.parametrize(
    ("more", "asked", "key"),
    [
        ({"seeds": (3,)}, {}, "held_out_seeds"),
        ({}, {"dev_seeds": ("9",)}, "dev_seeds"),
        ({}, {"tune": ("agent.tau=0.1,0.2,0.3",)}, "rungs"),
        ({}, {"tune": (NINE.replace("0.9", "0.95"),)}, "candidates of none"),
    ],
)
def test_another_tuning_does_not_mix_with_an_earlier_one_but_other_methods_join_it(tmp_path, more, asked, key):
    tuned(tmp_path, Made(near(0.4)))
    config = config_of(**more)
    with pytest.raises(ValueError, match=rf"is of another tuning \({key}.*: .* there, .* now\); give --config\.exp_id"):
        Protocol(tmp_path / "protocol.json", tuning_of(config, **asked), 900)
    config = config_of()
    joined = Protocol(tmp_path / "protocol.json", tuning_of(config, methods={"redo": {}}), 900)
    assert list(joined.methods) == ["none", "ne", "redo"] and joined.methods["ne"]["chosen"] == "tau=0.4"
