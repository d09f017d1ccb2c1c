"""What a report reads out of a folder that is whole, broken, or someone's trap; the scores, by hand; the CSV."""

import csv
import json
import math

import numpy as np
import pytest
from report_runs import make_run

from experiments.record.report.runs import read_runs
from experiments.record.report.scores import final_score, goals, improvement, mean_score, reached, way
from experiments.record.report.series import POINTS, curve
from experiments.record.report.tables import CSV_COLUMNS, write_csv


def test_scores_by_hand(tmp_path):
    low, high = read_runs([make_run(tmp_path, "low"), make_run(tmp_path, "high", level=2.0)])
    assert (low.label, high.label, low.method, low.task) == ("low", "high", "ne", "Pendulum-v1")
    final = final_score(low, "eval/return")  # evaluations beyond frame 320 of 400: the one at 400
    np.testing.assert_allclose(final.values, [400, 404, 408])
    assert final.middle == pytest.approx(404) and 400 <= final.low < 404 < final.high <= 408
    np.testing.assert_allclose(mean_score(low, "eval/return").values, [250, 252.5, 255])
    # From the random policy's -1 to the best final score, 804: halfway is 401.5.
    aims = goals(way([low, high], "eval/return"))
    assert aims == pytest.approx({0.5: 401.5, 0.9: 723.5})
    assert reached(low, "eval/return", aims[0.5]).frames.tolist() == [400, 400]
    assert reached(high, "eval/return", aims[0.5]).frames.tolist() == [300, 200, 200]
    assert improvement(final_score(high, "eval/return"), final) == (1, 1, 1)


def test_curves_have_gaps_and_counts_where_seeds_lack_numbers(tmp_path):
    folder = make_run(tmp_path)
    path = folder / "1" / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[2]["eval/return"] = None
    path.write_text("".join(json.dumps(each) + "\n" for each in rows[:4]))
    (run,) = read_runs([folder])
    found = curve(run, "eval/return")
    assert found.frames.tolist() == [0, 100, 200, 300, 400] and found.counts.tolist() == [3, 3, 2, 3, 2]
    assert found.middle[2] == pytest.approx(202) and np.isnan(found.low).tolist() == [False, False, True, False, True]
    assert math.isnan(final_score(run, "eval/return").values[1]) or len(final_score(run, "eval/return").finite) == 2
    assert not curve(run, "plasticity/q") and not curve(run, "no such column")


def test_long_curves_are_thinned_and_keep_their_ends(tmp_path):
    folder = make_run(tmp_path, seeds=1, ends=100 * 3 * POINTS)
    found = curve(read_runs([folder])[0], "eval/return")
    assert len(found.frames) == POINTS and found.frames[[0, -1]].tolist() == [0, 100 * 3 * POINTS]


def test_lines_that_are_no_rows_are_told_and_left_out(tmp_path):
    folder = make_run(tmp_path, seeds=1)
    path = folder / "0" / "metrics.jsonl"
    before = read_runs([folder])[0].seeds[0]
    strange = b'[1]\n{"frame": -5}\n\xff\xfe{\n{"frame": 1e400}\n'
    strange += b'{"frame": 500, "eval/return": Infinity, "a": "b", "c": true}\n'
    path.write_bytes(path.read_bytes() + strange + b'{"frame": 600, "eval')
    (run,) = read_runs([folder])
    seed = run.seeds[0]
    assert (seed.unreadable, seed.cut, run.reached) == (4, True, 500)
    assert set(seed.columns) == set(before.columns) and np.isnan(seed.columns["eval/return"][1][-1])
    assert sum("cut short" in note or "4 lines" in note or "from frame 500" in note for note in run.notes) == 3


def test_a_seed_cannot_show_files_from_elsewhere(tmp_path):
    folder, secret = make_run(tmp_path, seeds=1), tmp_path / "secret"
    (secret / "videos").mkdir(parents=True)
    (secret / "metrics.jsonl").write_text('{"frame": 0, "secret": 1}\n')
    (folder / "1").symlink_to(secret)
    (folder / "versions.json").unlink()
    (folder / "versions.json").symlink_to(tmp_path / "other.json")
    (tmp_path / "other.json").write_text('{"secret": 1}')
    (run,) = read_runs([folder])
    assert [seed.name for seed in run.seeds] == ["0"] and run.versions == {}


def test_names_differ(tmp_path):
    folders = [make_run(tmp_path / place, seeds=1, ends=100) for place in ("a", "b")]
    assert [run.label for run in read_runs(folders)] == ["a/td3_ne", "b/td3_ne"]
    with pytest.raises(ValueError, match="comes twice"):
        read_runs([folders[0], folders[0] / ".." / folders[0].name])


def test_the_csv_holds_every_number(tmp_path):
    runs = read_runs([make_run(tmp_path), make_run(tmp_path, "other", seeds=1)])
    write_csv(runs, tmp_path / "deep" / "all.csv")
    rows = list(csv.DictReader((tmp_path / "deep" / "all.csv").read_text().splitlines()))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert len(rows) == sum(len(frames) for run in runs for seed in run.seeds for frames, _ in seed.columns.values())
    one = [each for each in rows if each["seed"] == "2" and each["name"] == "eval/return"]
    assert [(each["frame"], float(each["value"])) for each in one] == [(f"{n}", n * 1.02) for n in range(0, 401, 100)]
    assert {each["value"] for each in rows if each["name"] == "plasticity/q"} == {""}
