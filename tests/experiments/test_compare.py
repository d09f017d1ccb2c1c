"""Methods side by side: what is read from rows found by hand, what a table says, and one small comparison."""

import json
from contextlib import ExitStack

import numpy as np
import pytest

import experiments.compare
from configs import continual, gymnax_states
from experiments.build.experiment import make_schedule
from experiments.compare import columns_of, compare, configs_of, draw, interval, table
from experiments.record.folder import Folder
from experiments.record.statistics import bootstrap_ci, iqm


def rows(task_count=2):
    """A run of 1,000 frames with a switch every 250, logged every 125; one update a frame from frame 100 on."""
    found = []
    for i in range(9):
        frame = 125 * i
        row = {"frame": frame, "train/updates": max(0.0, frame - 100.0), "plasticity/fau": 0.5 + frame / 1e4}
        row |= {"plasticity/dormant_ratio": 0.1, "plasticity/density": 0.2, "time/frames_per_second": 100.0 + i}
        row |= {"eval/return": float(frame), "continual/task": float(frame // 250 % task_count)}
        row |= {"continual/forgetting": 3.0 * i, "continual/recovery_frames": None}
        found += [row, {"frame": frame + 60, "plasticity/fau": 9.0}]  # a measurement between two log points
    found[0]["time/frames_per_second"] = None
    found.pop()
    found[-1]["continual/task"] = found[-3]["continual/task"]  # the last one is of the last phase
    return found


def config_of():
    config = continual.get_config("smoke")
    config.total_frames, config.env.physics_every, config.seeds = 1_000, 250, (0, 1)
    return config


def test_columns_are_what_the_rows_say():
    columns, found = columns_of(config_of()), rows()
    found[11]["continual/recovery_frames"] = 7.0  # no evaluation: does not count
    found[10]["continual/recovery_frames"] = 125.0  # frame 625, in the second phase of the first task
    assert columns["final return"].read(found) == (875 + 1000) / 2
    assert columns["mean return"].read(found) == np.mean(np.arange(1, 9) * 125.0)
    assert columns["forgetting"].read(found) == 24
    assert columns["recovery"].read(found) == (125 + 250) / 2  # the last phase was never regained: it counts whole
    assert columns["FAU"].read(found) == 0.6 and columns["dormant"].read(found) == 0.1
    # From frame 250 on, 125 updates between two log points, at 2 seeds * 125 frames / speed seconds.
    times = [1e3 * 2 * 125 / (100 + i) / 125 for i in range(2, 9)]
    assert columns["ms"].read(found) == pytest.approx(np.median(times))


def test_a_run_that_diverges_does_not_look_fine():
    columns, found = columns_of(config_of()), rows()
    found[-1]["eval/return"] = None
    assert all(np.isnan(columns[name].read(found)) for name in ("final return", "mean return"))
    results = {"ne": {name: np.array([column.read(found)] * 2) for name, column in columns.items()}}
    results["none"] = {name: np.array([column.read(rows())] * 2) for name, column in columns.items()}
    text = table(results, columns, ["made by hand"])
    assert "| `ne` | no number in 2 of 2 seeds | no number in 2 of 2 seeds | 24.00 |" in text
    assert "| `none` | 937.5 | 562.5 | 24.00 |" in text and "- made by hand." in text


def test_intervals_and_digits(tmp_path):
    values = np.array([-0.5, -0.42, -0.4, -0.41, -0.3])
    assert interval(values) == (iqm(values), *bootstrap_ci(values))
    assert np.isnan(interval(values[:2])[1:]).all() and np.isnan(interval(np.array([1.0, 2, np.nan]))[0])
    columns = columns_of(gymnax_states.get_config())
    assert list(columns) == ["final return", "mean return", "dormant", "FAU", "density", "ms"]
    results = {"ne": {name: values for name in columns}, "none": {name: 1e4 * values for name in columns}}
    text = table(results, columns, [])
    low, high = bootstrap_ci(values)
    assert f"| `ne` | -0.410 [{low:.3f}, {high:.3f}] |" in text
    assert f"| `none` | -4,100 [{1e4 * low:,.0f}, {1e4 * high:,.0f}] |" in text
    draw(results, tmp_path / "methods.png")
    assert (tmp_path / "methods.png").stat().st_size > 10_000


def test_sequences_have_a_column_for_each_task():
    columns = columns_of(continual.get_config("mujoco"))
    assert [name for name in columns if name.startswith("final")] == [
        f"final return {task}" for task in ("HalfCheetah-v5", "Humanoid-v5", "Ant-v5", "Hopper-v5")
    ]
    assert columns["mean return Ant-v5"].read([{"frame": 5, "eval/return": 1.0, "eval/return/Ant-v5": 7.0}]) == 7


def test_each_method_has_its_config():
    config = gymnax_states.get_config()
    configs = configs_of(config, ["none", "ne,revive=bias,omega=0.3,every=50", "ne,preset=released,tau=0.5"], {})
    ours, released = list(configs.values())[1:]
    assert (ours.plasticity.method, ours.plasticity.revive, ours.plasticity.omega) == ("ne", "bias", 0.3)
    assert ours.plasticity.every == 50 and ours.exp_id == "td3_ne_ne_revive=bias_omega=0.3_every=50"
    assert (released.plasticity.prune, released.plasticity.every, released.plasticity.tau) == ("magnitude", 100, 0.5)
    assert configs["none"].plasticity.every == config.plasticity.every == 200


@pytest.mark.parametrize(
    ("methods", "sentence"),
    [
        (["ne", "ne"], "--method=ne comes twice"),
        (["ne,omega"], "--method=ne,omega: omega= must be KEY=VALUE"),
        (["ne,omegas=1"], "omegas=1 must be KEY=VALUE, with a key of config.plasticity"),
        (["ne,method=redo"], "method=redo must be KEY=VALUE"),
        (["ne,actor=static"], "actor=static must be KEY=VALUE"),
        (["ne,every=1e3"], "every must be a number like 20, not '1e3'"),
        (["ne,omega=x"], "omega must be a number like 0.4, not 'x'"),
        (["redo,preset=released"], "preset=released stands for plasticity.method=ne"),
        (["ne,omega=0.2,preset=released"], "stands for plasticity.omega=0.4, and the command line says 0.2"),
        (["ne,preset=released,omega=0.2"], "stands for plasticity.omega=0.4, and the command line says 0.2"),
        (["nee"], "--method=nee: plasticity.method must be one of none, ne"),
        (["ne,omega=2"], "--method=ne,omega=2: plasticity.omega must lie in"),
    ],
)
def test_a_bad_method_is_named_before_anything_trains(methods, sentence, tmp_path):
    config = gymnax_states.get_config("smoke")
    config.results_dir = str(tmp_path)
    with pytest.raises(ValueError) as error:
        compare(config, ["none", *methods], {})
    assert sentence in str(error.value) and not list(tmp_path.iterdir())


def test_a_method_of_one_network_would_hold_for_all():
    config = gymnax_states.get_config("smoke")
    config.plasticity.actor.method = "static"
    with pytest.raises(ValueError, match=r"plasticity\.actor\.method holds for every line"):
        configs_of(config, ["none"], {})


def test_a_preset_does_not_win_over_the_command_line():
    config = gymnax_states.get_config("smoke")
    configs_of(config, ["ne,preset=paper"], {"review.every": 50})
    with pytest.raises(ValueError, match=r"preset=paper stands for review\.mode=slope, and the command line says gate"):
        configs_of(config, ["ne,preset=paper"], {"review.mode": "gate"})


def test_settings_of_the_run_are_checked_first():
    config = gymnax_states.get_config("smoke")
    config.env.num_envs = 0
    with pytest.raises(ValueError, match=r"^env\.num_envs must be positive, got 0"):
        compare(config, ["none"], {})


def test_a_run_that_fails_is_not_in_the_table(tmp_path, monkeypatch, capsys):
    config = config_of()
    config.results_dir = str(tmp_path)

    def run(config, quiet=False):
        """Half of the rows for all, the other half and the last checkpoint only without a method."""
        folder, done = Folder(config), config.plasticity.method == "none"
        for seed in config.seeds:
            folder.seed(seed).mkdir(parents=True, exist_ok=True)
            kept = "".join(json.dumps(row) + "\n" for row in rows()[: None if done else 7])
            (folder.seed(seed) / "metrics.jsonl").write_text(kept)
        folder.versions.write_text('{"device": "made by hand", "jax": "0", "commit": "none"}')
        if done:
            (folder.checkpoint / str(make_schedule(config).total)).mkdir(parents=True)
        return 0 if done else 2

    monkeypatch.setattr(experiments.compare, "run", run)
    monkeypatch.setattr(experiments.compare, "setup", lambda config: ExitStack())  # takes a second each
    assert compare(config, ["ne"], {}) == 2 and not list(tmp_path.glob("*/table.md"))
    assert capsys.readouterr().err == "not trained to the end, so not in the table: ne\n"
    assert compare(config, ["ne", "none"], {}) == 2
    (path,) = tmp_path.glob("*/table.md")
    assert [line[:8] for line in path.read_text().splitlines() if line.startswith("| `")] == ["| `none`"]


@pytest.mark.slow
def test_two_methods_train_once_and_make_a_table(tmp_path, capsys):
    config = continual.get_config("smoke")
    config.results_dir, config.metrics_every = str(tmp_path), 70
    methods = ["none", "ne,revive=bias"]
    assert compare(config, methods, {}) == 0
    root = tmp_path / "td3_continual_smoke_Pendulum-v1_methods"
    text = (root / "table.md").read_text()
    assert [line.split("|")[1].strip() for line in text.splitlines()[2:4]] == ["`none`", "`ne,revive=bias`"]
    assert "| method | final return | mean return | forgetting |" in text and "seeds 0, 1; device cpu" in text
    assert (root / "methods.png").stat().st_size > 10_000 and "no number" not in text.splitlines()[2]
    capsys.readouterr()
    assert compare(config, methods, {}) == 0
    assert "compiled in" not in capsys.readouterr().out and (root / "table.md").read_text() == text
