"""Lanes on the command line: what is refused, what folders they get, and whole runs, which are as separate ones."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.build.command_line import config_of
from experiments.build.lanes import lanes_of, numbers_of, of_all_rows, refuse_lanes
from experiments.launch.check import answer
from experiments.record.folder import Folder
from experiments.record.lane_checkpoints import check_together
from experiments.record.metrics_files import read_metrics
from experiments.record.policy import load_policy, read_config
from experiments.run import run

# ml_collections loads a config file in a way that Python 3.12 no longer has.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
TINY = "--config=tests/support/tiny_config.py:gymnax-states-td3"
ROOT = Path(__file__).parents[2]


def config(*arguments):
    return config_of([TINY, *arguments])


def rates(text="(1e-3,3e-3)"):
    return f"--config.lanes.agent.learning_rate={text}"


def test_each_lane_is_what_a_sweep_would_start_as_a_run(tmp_path):
    found = lanes_of(
        config(rates(), "--config.lanes.plasticity.redo.tau=0.1,0.2,0.3", f"--config.results_dir={tmp_path}")
    )
    roots = [Folder(each).root for each in found]
    assert len(roots) == 6
    assert roots[1] == tmp_path / "tiny_sweep" / "learning_rate=1e-3,tau=0.2_Pendulum-v1"
    assert found[4].agent.learning_rate == 3e-3 and found[4].plasticity.redo.tau == 0.2
    assert all("lanes" not in each for each in found)
    numbers = numbers_of(found, seeds=2)
    assert numbers is not None and list(numbers) == ["agent.learning_rate", "plasticity.redo.tau"]
    assert [round(float(each), 1) for each in numbers["plasticity.redo.tau"]] == [0.1, 0.1, 0.2, 0.2, 0.3, 0.3] * 2
    assert of_all_rows(found).seeds == (0,) * 6


def test_a_config_file_lists_them_as_tuples():
    given = config(rates())
    given.lanes.agent.learning_rate = "1e-3"
    assert [each.exp_id for each in lanes_of(given)] == ["learning_rate=1e-3"]
    with given.unlocked():
        given.lanes = {"agent": {"tau": (0.1, 0.2)}}
    assert [each.exp_id for each in lanes_of(given)] == ["tau=0.1", "tau=0.2"]
    assert numbers_of(lanes_of(config()), 1) is None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([rates("")], 'lanes.agent.learning_rate is empty; list its values, such as "(1e-4,1e-3)", or leave it out'),
        ([rates("()")], "lanes.agent.learning_rate is empty"),
        ([rates("(1e-3,0.001)")], "lanes.agent.learning_rate has 1e-3 twice, as 0.001; name each value once"),
        ([rates("(1e-3,fast)")], "lanes.agent.learning_rate must list numbers, got 'fast'"),
        ([rates("(1e-3,nan)")], "lanes.agent.learning_rate must list finite numbers, got nan"),
        (["--config.lanes.agent.learnig_rate=1"], "the config has no key agent.learnig_rate, of which"),
        (["--config.lanes.agent.learnig_rate=1"], "did you mean lanes.agent.learning_rate?"),
        (["--config.lanes.agent.hidden=(8,16)"], "lanes.agent.hidden: agent.hidden is no number"),
        (["--config.lanes.plasticity.method=(ne,none)"], "experiments.sweep --over=plasticity.method="),
        (["--config.lanes.batch_size=(8,16)"], "lanes.batch_size: batch_size decides on shapes or on when things"),
        (["--config.lanes.plasticity.final_sparsity=(0.1,0.2)"], "decides on shapes"),
        (["--config.lanes.agent.ema=(0,0.9)"], "lanes.agent.ema: 0 switches off what other values need"),
        (["--config.lanes.plasticity.lifelong_ne.novelty=(0,0.4)"], "novelty: 0 switches off what other values need"),
        (
            ["--config.plasticity.preset=paper", "--config.lanes.plasticity.tau=(0,0.1)"],
            "plasticity.preset=paper stands",
        ),
        ([rates(), "--config.agent.learning_rate=1"], "agent.learning_rate is set for all lanes by --config.agent.lea"),
    ],
)
def test_what_cannot_be_is_a_sentence(arguments, sentence):
    with pytest.raises(ValueError, match=r".") as error:
        lanes_of(config(*arguments))
    assert sentence in str(error.value), error.value


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([rates("(1e-3,-1)")], "agent.learning_rate must be positive, got -1.0"),
        (
            [
                "--config.plasticity.growth_rate=0.5",
                "--config.plasticity.schedule=linear",
                "--config.lanes.plasticity.omega=.1,.2",
            ],
            "lanes.plasticity.omega: with this config plasticity.omega decides on how many weights",
        ),
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(tmp_path, capsys, arguments, sentence):
    assert run(config(*arguments, f"--config.results_dir={tmp_path}")) == 2
    assert capsys.readouterr().err.startswith(f"error: {sentence}")
    assert not list(tmp_path.iterdir())


def test_other_programs_have_no_lanes():
    assert "lanes are for experiments.run; experiments.sweep has none" in answer([TINY, rates()])["error"]
    with pytest.raises(ValueError, match=r"experiments.compare has none; leave --config.lanes out"):
        refuse_lanes(config(rates()), "experiments.compare")


def test_lanes_that_were_not_trained_together_are_refused(tmp_path):
    places = [tmp_path / name / "checkpoint" for name in "abc"]
    check_together(places)  # nothing is there
    for place, steps in zip(places, [(10, 20), (20,), (20, 30)], strict=True):
        for step in steps:
            (place / str(step)).mkdir(parents=True)
    check_together(places)
    (places[1] / "20").rmdir()
    with pytest.raises(
        ValueError, match=r"not trained together: a at step 20, b at none, c at step 30; take the lanes"
    ):
        check_together(places)


def rows(folder, seed):
    found = read_metrics(folder / str(seed) / "metrics.jsonl")
    return [
        {key: math.nan if value is None else value for key, value in row.items() if not key.startswith("time/")}
        for row in found
    ]


def assert_alike(found, wanted):
    assert len(found) == len(wanted) > 0
    for a, b in zip(found, wanted, strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-5, nan_ok=True)


SHORT = ("--config.seeds=(0,3)", "--config.eval.every=20", "--config.checkpoint_every=25", "--config.log_every=10")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gymnax", "own_kinds:HOST"])
def test_lanes_are_separate_runs_and_each_goes_on_alone(tmp_path, kind):
    file = f"--config=tests/support/tiny_config.py:{kind}-states-td3"
    both, alone = (f"--config.results_dir={tmp_path / name}" for name in ("lanes", "alone"))

    def start(*arguments):
        return run(config_of([file, *SHORT, *arguments]), quiet=True)

    assert start(both, rates(), "--config.video.every=50") == 0
    places = sorted((tmp_path / "lanes" / "tiny_sweep").iterdir())
    assert [each.name.partition("_Pend")[0].partition("_right")[0] for each in places] == [
        "learning_rate=1e-3", "learning_rate=3e-3"
    ]  # fmt: skip
    for place, rate in zip(places, ("1e-3", "3e-3"), strict=True):
        assert start(alone, f"--config.exp_id={rate}", f"--config.agent.learning_rate={rate}") == 0
        solo = next((tmp_path / "alone").glob(f"{rate}_*"))
        for seed in (0, 3):
            assert_alike(rows(place, seed), rows(solo, seed))
        assert json.loads((place / "config.json").read_text())["agent"]["learning_rate"] == float(rate)
        assert (place / "grid.mp4").exists() and (place / "curves.png").exists()
        assert read_config(place).seeds == (0, 3) and load_policy(place, 3) is not None
    # A lane goes on as a run of its own, which a sweep would start, from what it was trained to beside the other.
    solo = next((tmp_path / "alone").glob("1e-3_*"))
    for place in (places[0], solo):
        longer = json.loads((place / "config.json").read_text()) | {"total_frames": 70}
        for path in (place / "config.json", *place.glob("*/model/config.json")):
            path.write_text(json.dumps(longer))
        where = (f"--config.results_dir={place.parent}", f"--config.exp_id={longer['exp_id']}")
        assert start(*where, "--config.total_frames=70", "--config.agent.learning_rate=1e-3") == 0
    assert rows(places[0], 3)[-1]["step"] > 50
    assert_alike(rows(places[0], 3), rows(solo, 3))


@pytest.mark.slow
def test_lanes_go_on_where_they_were_stopped_also_on_other_devices(tmp_path):
    def start(name, *arguments, status=0):
        command = [sys.executable, "-m", "experiments.run", TINY, *SHORT[1:], *arguments]
        command += [rates("(1e-3,2e-3,3e-3)"), f"--config.results_dir={tmp_path / name}", "--quiet"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stdout + done.stderr
        return sorted((tmp_path / name / "tiny_sweep").iterdir())

    whole, parts = start("whole"), start("parts", "--config.devices=2")  # with a double of the first row
    for a, b in zip(whole, parts, strict=True):
        assert_alike(rows(a, 0), rows(b, 0))
        assert sorted(path.name for path in (b / "checkpoint").iterdir()) == ["25", "50"]
    for place in (parts[1], parts[2]):  # as after a kill while the last checkpoint was written
        shutil.rmtree(place / "checkpoint" / "50")
    again = start("parts")
    assert (again[0] / "checkpoint" / "50.unreadable").exists()
    for a, b in zip(whole, again, strict=True):
        assert_alike(rows(a, 0), rows(b, 0))
