"""Control streams: what is read from metrics written by hand, the configs of arms, and one small run."""

import math
import os
import signal
import threading
import time

import numpy as np
import pytest

from experiments.record.metrics_files import read_metrics
from experiments.streams import control
from experiments.streams.control import Tasks, config_of, control_stream, measures_of, protocol, task_rows
from experiments.streams.registry import STREAMS
from experiments.streams.types import Arm, TaskRow

CONTROL = [name for name, each in STREAMS.items() if getattr(each.run, "func", None) is control.run]
LIKE = TaskRow("relabelled", "ne", 7, 0, 0.0, 0.0, {})
NE = Arm("ne", {"plasticity.method": "ne", "plasticity.omega": 0.3})
TINY = {
    "total_frames": 660,
    "env.relabel.every": 220,
    "seed_frames": 20,
    "batch_size": 8,
    "agent.hidden": (8, 8),
    "agent.random_steps": 20,
    "log_every": 110,
    "plasticity.every": 20,
    "updates_per_step": 1.0,
}
IN_FRAMES = ("total_frames", "env.relabel.every", "seed_frames", "log_every")


def test_what_is_logged_at_a_switch_belongs_to_the_task_that_ends():
    rows = [{"frame": frame, "train/return": float(frame)} for frame in range(0, 201, 10)]
    rows[10] |= {"plasticity/fau": 0.25}  # frame 100
    rows[5]["train/return"] = None  # no episode has ended
    rows += [{"frame": 200, "plasticity/fau": 0.5}]
    first, second = task_rows(rows, 100, 200, LIKE)
    assert (first.task, second.task, first.seed, first.method) == (1, 2, 7, "ne")
    assert first.auc == pytest.approx(np.mean([10, 20, 30, 40, 60, 70, 80, 90, 100]))
    assert first.end == 95 and second.auc == 155 and second.end == 195
    assert first.measures == {"fau": 0.25} and second.measures == {"fau": 0.5}
    (short,) = list(task_rows(rows, 100, 130, LIKE))[1:]  # the last task may be cut short
    assert short.auc == 120 and short.end == 130
    assert math.isnan(next(task_rows([{"frame": 5, "train/return": None}], 100, 200, LIKE)).auc)


def test_measures_of_networks_and_their_layers():
    logged = {"dormant_ratio_0.1": 0.5, "dormant_ratio_0.1/actor/policy/hidden_0": 0.75, "dormant_ratio_0.025": 0.1}
    logged |= {
        "dormant_ratio": 0.2,
        "dormant_ratio/critic/q1/hidden_0": 0.3,
        "fau": 0.4,
        "fau/actor/policy/hidden_0": 1,
    }
    logged |= {"density": 0.3, "effective_rank/critic/q1": 4.0, "effective_rank/actor/policy": 8.0}
    logged |= {"weight_norm/actor": 3.0, "weight_norm/critic": 4.0, "saturation": 0.1, "q": 9.0, "q_start": 5.0}
    logged |= {"return_start": None, "capacity/actor": 0.5, "capacity/critic": 1.0}
    row = {f"plasticity/{key}": value for key, value in logged.items()} | {"frame": 1, "train/q": 3.0}
    expected = {"dormant": 0.5, "dormant/actor/policy/hidden_0": 0.75, "dead": 0.2, "dead/critic/q1/hidden_0": 0.3}
    expected |= {"fau": 0.4, "density": 0.3, "saturation": 0.1, "q": 5.0, "capacity": 0.75, "effective_rank": 6.0}
    expected |= {"effective_rank/critic/q1": 4.0, "effective_rank/actor/policy": 8.0, "weight_norm": 5.0}
    expected |= {"weight_norm/actor": 3.0, "weight_norm/critic": 4.0, "capacity/actor": 0.5, "capacity/critic": 1.0}
    assert measures_of(row) == expected


def test_arms_are_configs():
    tasks = Tasks("relabelled", (("agent.layer_norm", True),))
    fresh, random, dense, ne = (
        config_of(tasks, arm) for arm in (Arm("fresh", {}), Arm("random", {}), Arm("dense", {}), NE)
    )
    assert all(config.agent.layer_norm for config in (fresh, random, dense, ne))
    assert [config.plasticity.method for config in (fresh, random, dense, ne)] == ["none", "none", "none", "ne"]
    assert [config.fresh_on_switch for config in (fresh, random, dense, ne)] == [True, False, False, False]
    assert ne.plasticity.omega == 0.3 and random.updates_per_step == 0
    assert random.agent.random_steps >= random.total_frames
    released = config_of(tasks, Arm("ne,preset=released", {"plasticity.method": "ne", "plasticity.preset": "released"}))
    assert released.plasticity.prune == "magnitude"


def test_a_protocol_holds_what_decides_the_rows():
    tasks = Tasks("relabelled")
    ne, dense, fresh = (protocol(tasks, arm) for arm in (NE, Arm("dense", {}), Arm("fresh", {})))
    assert ne["plasticity.omega"] == 0.3 and ne["env.relabel.every"] == dense["env.relabel.every"] > 0
    assert not any(key.startswith("plasticity.") for key in dense) and fresh["fresh_on_switch"] is True
    assert not {"seeds", "results_dir", "video.every", "plasticity.continual_backprop.maturity"} & set(ne)
    with pytest.raises(ValueError, match="batch_size"):
        protocol(Tasks("relabelled", (("batch_size", 0),)), NE)


@pytest.mark.parametrize("name", CONTROL)
def test_a_stream_has_as_many_tasks_as_it_says(name):
    stream = STREAMS[name]
    found = stream.protocol(Arm("dense", {}))
    assert found["total_frames"] == stream.tasks * found["env.relabel.every"] and 1 < stream.late <= stream.tasks


@pytest.mark.slow
@pytest.mark.parametrize("config", ["relabelled", "relabelled:pixels"])
@pytest.mark.parametrize("method", ["fresh", "ne", "lifelong_ne", "continual_backprop", "self_normalised_resets"])
def test_a_run_that_was_stopped_goes_on_to_the_same_rows(config, method, tmp_path):
    """Every method resumes bit for bit by tests/experiments/record/test_resume_methods.py; this is the way there."""
    frames = 4 if config == "relabelled:pixels" else 1  # of a step
    sizes = {key: value * frames if key in IN_FRAMES else value for key, value in TINY.items()}
    tasks = Tasks(config, tuple(sizes.items()))
    stream = control_stream("tiny", tasks, count=3, late=2, performance="return", seconds=1)
    arm = Arm(method, {} if method == "fresh" else {"plasticity.method": method, "plasticity.omega": 0.3})
    shares = []
    whole = stream.run(arm, [0, 3], tmp_path / "whole", shares.append)
    assert [(row.seed, row.task) for row in whole] == [(seed, task) for seed in (0, 3) for task in (1, 2, 3)]
    assert all(np.isfinite([row.auc, row.end]).all() for row in whole)
    assert all(
        {"dormant", "fau", "density", "effective_rank", "weight_norm", "capacity", "q"} <= set(row.measures)
        for row in whole
    )

    def interrupt():
        while not any(read_metrics(path) for path in (tmp_path / "cut").rglob("metrics.jsonl")):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        stream.run(arm, [0, 3], tmp_path / "cut", shares.append)
    (metrics,) = (tmp_path / "cut").glob("*/0/metrics.jsonl")
    assert read_metrics(metrics)[-1]["frame"] < sizes["total_frames"]
    cut = stream.run(arm, [0, 3], tmp_path / "cut", shares.append)
    np.testing.assert_equal([row._asdict() for row in cut], [row._asdict() for row in whole])
    with pytest.raises(RuntimeError, match="ended with status 2"):
        other = arm._replace(overrides=arm.overrides | {"agent.learning_rate": 0.2})
        stream.run(other._replace(name="other"), [0, 3], tmp_path / "cut", print)
