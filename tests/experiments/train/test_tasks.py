"""Which task a run has when, and what the history of evaluations says, against values found by hand."""

import json
import shutil

import numpy as np
import pytest

from configs import continual, dmc_pixels, gymnax_pixels, gymnax_states, mujoco_states
from experiments.build.experiment import setup
from experiments.build.tasks import make_tasks
from experiments.record.curves import draw_curves, switches
from experiments.record.folder import Folder
from experiments.record.metrics_files import read_metrics
from experiments.run import run
from experiments.train.tasks import (
    Evaluated,
    TaskSequence,
    forgetting,
    read_history,
    recovery_frames,
    summarise,
)

nan = np.nan


def turns(order=(0, 1), every=100, step_frames=10, last=10_000, drift=False):
    return TaskSequence(tuple("abc"[: max(order) + 1]), order, every, step_frames, last, drift)


@pytest.mark.parametrize(("every", "step_frames", "last"), [(42, 4, 400), (40, 4, 396), (7, 7, 700), (100, 3, 999)])
def test_the_phases_are_what_walking_through_the_steps_gives(every, step_frames, last):
    tasks = turns((0, 2, 1, 2), every, step_frames, last)
    phase, begins = 0, [0]
    for step in range(last // step_frames + 1):
        frame = step * step_frames
        if frame >= (phase + 1) * every:
            phase += 1
            begins.append(frame)
            assert tasks.switches(step)
        else:
            assert not tasks.switches(step)
        assert tasks.phase(frame) == phase and tasks.of(phase) == (0, 2, 1, 2)[phase % 4]
    assert phase > 8
    assert [tasks.begins(p) for p in range(phase + 1)] == begins
    for step in range(last // step_frames):
        after = next((frame for frame in begins if frame > step * step_frames), None)
        assert after is None or tasks.next_switch(step) == after // step_frames
    end = last + step_frames
    assert tasks.phase(end) == phase and not tasks.switches(end // step_frames)
    for task in range(3):
        assert tasks.of(tasks.phase(tasks.frame_of(task))) == task


def history(*rows):
    return [Evaluated(frame, tuple(returns)) for frame, *returns in rows]


# Two tasks, switches at 100, 200, 300; returns as Pendulum has them.
PENDULUM = history(
    (0, -1500, -1),  # the best of b before it was trained on does not count
    (50, -600, -900),
    (100, -200, -1000),
    (150, -700, -500),
    (200, -1200, -300),
    (250, -400, -350),
    (280, -250, -600),
    (300, -100, -800),
    (350, -150, -340),
)


@pytest.mark.parametrize(
    ("until", "forgotten", "recovery"),
    [
        (0, nan, nan),
        (50, nan, nan),
        (100, nan, nan),  # the switch itself: nothing but a was trained on yet
        (150, -200 - -700, nan),
        (200, -200 - -1200, nan),  # back at a: it must regain 0.9 of the way from -1200 to -200, so -300
        (250, -300 - -350, nan),
        (280, -300 - -600, 80),
        (300, -300 - -800, nan),  # b: from -800 to -300, so -350
        (350, -100 - -150, 50),
    ],
)
def test_forgetting_and_recovery_by_hand(until, forgotten, recovery):
    seen = [each for each in PENDULUM if each.frame <= until]
    np.testing.assert_equal(forgetting(seen, turns()), forgotten)
    np.testing.assert_equal(recovery_frames(seen, turns()), recovery)


def test_recovery_keeps_its_value_until_the_next_switch_and_is_zero_where_nothing_was_lost():
    rows = history((50, 5, 0), (100, 7, 0), (150, 9, 3), (200, 8.9, 4), (210, 8.91, 4), (290, -50, 4))
    tasks = turns()
    # From 8.9 to 9 it takes 8.99 to recover, which never comes.
    assert np.isnan(recovery_frames(rows, tasks))
    rows[3] = Evaluated(200, (9, 4))
    assert recovery_frames(rows[:4], tasks) == recovery_frames(rows, tasks) == 0
    rows[3:5] = history((200, 1, 4), (210, 8.3, 4))
    assert recovery_frames(rows[:5], tasks) == recovery_frames(rows, tasks) == 10


def test_forgetting_is_a_mean_over_earlier_tasks_but_the_one_trained_on_last():
    tasks = turns((0, 1, 2))
    rows = history((100, 10, 0, 90), (200, 4, 8, 0), (250, 3, 2, 1), (300, 1, 6, 5), (350, 2, 6, 7))
    assert forgetting(rows[:2], tasks) == 10 - 4
    assert forgetting(rows[:3], tasks) == np.mean([10 - 3, 8 - 2])
    assert forgetting(rows[:4], tasks) == np.mean([10 - 1, 8 - 6])
    # The first task is trained on again; the third one's 90 came before it was trained on.
    assert forgetting(rows, tasks) == np.mean([8 - 6, 0])


def test_the_last_evaluation_is_one_of_the_last_phase():
    tasks = turns(last=190)
    assert forgetting(history((100, 5, 0), (200, 3, 9)), tasks) == 2
    assert tasks.phase(200) == 1


def test_summary_and_history_are_a_round_trip():
    tasks = turns()
    histories = [PENDULUM[:7], history((0, 1.1, nan), (250, 0.3, 0.1 + 0.2))]
    values = summarise(histories, tasks)
    assert set(values) == {
        "eval/return/a",
        "eval/return/b",
        "continual/task",
        "continual/forgetting",
        "continual/recovery_frames",
    }
    assert values["eval/return/b"].tolist() == [-600, 0.1 + 0.2] and values["continual/task"].tolist() == [0, 0]
    assert "continual/recovery_frames" not in summarise(histories, turns(drift=True))
    rows = [{"frame": 5, "train/return": 1.0}]
    for each in histories[1]:
        value = summarise([[each]], tasks)
        rows.append({"frame": each.frame} | {k: None if np.isnan(v[0]) else float(v[0]) for k, v in value.items()})
    np.testing.assert_equal(read_history(rows, tasks), histories[1])


def config_of(module=continual, variant="smoke", **env):
    config = module.get_config(variant)
    physics = env.pop("physics", {})
    config.update(env=env)
    config.unlock()
    config.env.get("physics", {}).update(physics)
    return config


def test_tasks_of_a_config():
    tasks = make_tasks(config_of(physics={"m": (1.0, 2.0, 1.0, 0.5), "l": (1.0,)}, num_envs=3))
    assert tasks == TaskSequence(("m=1.0", "m=2.0", "m=0.5"), (0, 1, 0, 2), 150, 3, 597, False)
    drift = make_tasks(config_of(physics_change="drift"))
    assert drift is not None and drift.drift
    sequence = make_tasks(continual.get_config("mujoco"))
    assert sequence is not None and sequence.labels == ("HalfCheetah-v5", "Humanoid-v5", "Ant-v5", "Hopper-v5")
    assert (sequence.order, sequence.every) == ((0, 1, 2, 3), 1_000_000)
    for module in (dmc_pixels, gymnax_pixels, gymnax_states, mujoco_states):
        assert make_tasks(module.get_config()) is None
    assert make_tasks(config_of(gymnax_states, physics={"m": (2.0,)})) is None


SEQUENCE = dict(name="Pendulum-v1", sequence=("Reacher-misc",))


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        (SEQUENCE, r"env\.switch_every=0 must be at least one step of all environments \(1 frames\)"),
        (SEQUENCE | dict(switch_every=400), r"env\.switch_every=400 must be .* end before the run's last step"),
        (SEQUENCE | dict(switch_every=9, num_envs=10), r"env\.switch_every=9 must be at least .*\(10 frames\)"),
        (dict(switch_every=10), r"env\.switch_every=10 has no tasks to switch to; name them in env\.sequence"),
        (SEQUENCE | dict(switch_every=10, physics={"m": (2.0,)}), r"env\.sequence and env\.physics cannot both"),
        (dict(sequence=("Pendulum-v1",), switch_every=10), r"env\.sequence has 'Pendulum-v1' twice in a row"),
        (dict(sequence=("Reacher-misc", "Pendulum-v1"), switch_every=10), r"'Pendulum-v1' twice in a row"),
        (
            dict(sequence=("Reacher",), switch_every=10),
            r"env\.sequence: unknown task 'Reacher' of kind gymnax; did you mean Reacher-misc",
        ),
        (dict(physics_every=10), r"env\.physics_every=10 changes nothing; give a parameter"),
        (
            SEQUENCE | dict(switch_every=10, physics_every=10),
            r"env\.physics_every=10 changes nothing; give a parameter",
        ),
        (dict(physics_change="drift"), r"env\.physics_change=drift changes nothing; give a parameter"),
        (dict(physics={"m": (1.0, 2.0)}, physics_every=2**31), r"env\.physics_every=2147483648 must be"),
        (dict(physics={"m": (1.0, 2.0)}, physics_every=400), r"env\.physics_every=400 must be"),
        (dict(physics={"m": (1.0, 2.0)}), r"env\.physics_every must be the frames .* got 0"),
        (dict(physics={"power": (1.0, 2.0)}, physics_every=10), r"env\.physics\.power is no parameter of Pendulum"),
    ],
)
def test_what_cannot_be_is_one_sentence_at_the_start(env, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        setup(config_of(gymnax_states, **env))
    assert "\n" not in str(error.value)


def test_curves_are_drawn_with_tasks_and_without(tmp_path):
    rows = [{"frame": frame, "eval/return": 1.0, "plasticity/fau": 0.5} for frame in (0, 10, 20, 30)]
    turns = [{"eval/return/a": 1.0, "eval/return/b": None, "continual/task": task} for task in (0.0, 1.0, 1.0, 0.0)]
    both = [row | turn for row, turn in zip(rows, turns, strict=True)]
    assert switches(both) == [10, 30] and switches(rows) == []
    for name, lines in (("plain", rows), ("turns", both)):
        (tmp_path / name / "0").mkdir(parents=True)
        (tmp_path / name / "0" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert draw_curves(tmp_path / name).stat().st_size > 10_000


def finished(config, folder):
    """Rows of a finished run's seeds; and of the same run, resumed from its checkpoint before the last."""
    assert run(config) == 0
    metrics = [folder.seed(seed) / "metrics.jsonl" for seed in config.seeds]
    whole = [read_metrics(path) for path in metrics]
    newest = max(int(path.name) for path in folder.checkpoint.iterdir())
    shutil.rmtree(folder.checkpoint / str(newest))
    assert run(config) == 0
    return whole, [read_metrics(path) for path in metrics]


def untimed(rows):
    return [{name: value for name, value in row.items() if not name.startswith("time/")} for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "settings", "labels", "frames"),
    [
        ("smoke", {}, ["l=1.0,m=1.0", "l=0.5,m=0.3"], [0, 100, 150, 200, 300, 400, 450, 500, 600]),
        ("mujoco_smoke", {}, ["HalfCheetah-v5", "Ant-v5", "Hopper-v5"], [0, 100, 120, 200, 240, 300, 360, 400]),
    ],
)
def test_a_run_with_tasks_logs_all_of_it_and_resumes(variant, settings, labels, frames, tmp_path, capsys):
    config = continual.get_config(variant)
    config.results_dir = str(tmp_path)
    whole, resumed = finished(config, Folder(config))
    assert "resuming at frame" in capsys.readouterr().out
    for rows, again in zip(whole, resumed, strict=True):
        assert [row["frame"] for row in rows] == frames
        evaluated = [row for row in rows if "eval/return" in row]
        for row in evaluated:
            task = int(row["continual/task"])
            assert row[f"eval/return/{labels[task]}"] == row["eval/return"]
            assert set(labels) == {name[12:] for name in row if name.startswith("eval/return/")}
        assert any(row["continual/forgetting"] is not None for row in evaluated)
        assert {row["continual/task"] for row in evaluated} == set(range(len(labels)))
        assert untimed(rows) == untimed(again)
    assert Folder(config).curves.stat().st_size > 10_000
