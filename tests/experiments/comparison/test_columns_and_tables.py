"""The table: what is read from rows found by hand, and what is said of it."""

import numpy as np
import pytest
from compared import config_of, rows

from configs import continual, gymnax_states
from experiments.comparison.columns import columns_of
from experiments.comparison.tables import draw, interval, table
from experiments.record.statistics import bootstrap_ci, iqm


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
