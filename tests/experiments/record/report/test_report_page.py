"""The page: everything logged is in it, nothing of a run's files leaves its place, and broken runs have one too."""

import base64
import hashlib
import json
import re
import threading
import urllib.request
from html.parser import HTMLParser
from itertools import pairwise
from urllib.error import HTTPError

import numpy as np
import pytest
from report_runs import make_run

from experiments.record.checkpoints import Births
from experiments.record.report.charts import STYLES, margin, ticks
from experiments.record.report.markup import interval, number, script_data
from experiments.record.report.masks import OLDEST, grey_levels, in_time
from experiments.record.report.page import page
from experiments.record.report.picture import draw_picture
from experiments.record.report.runs import read_runs
from experiments.record.report.server import Watcher, make_server

TITLES = ("Return of greedy evaluation", "Final score", "Mean score", "Probability of improvement", "Active units")
TITLES += ("Dormant units", "Density", "Frames per second", "actor/policy/hidden_0", "train/critic_loss")
VOID = {"meta", "img", "input", "source", "col"}


class Reader(HTMLParser):
    """Elements of a page; fails where they are not properly nested."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.texts = [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(data)

    def words(self):
        return " ".join("".join(self.texts).split())

    def of(self, name):
        return [attributes for tag, attributes in self.elements if tag == name]


def test_everything_is_on_the_page(tmp_path):
    runs = read_runs([make_run(tmp_path), make_run(tmp_path, "dense", level=2.0, plasticity={"method": "none"})])
    html = page(runs)
    read = Reader(html)
    words = read.words()
    charts = [each["aria-label"] for each in read.of("svg") if each.get("role") == "img"]
    for title in TITLES:
        assert any(each.startswith(title) for each in charts), title
    assert "dense has the highest final score" in words and "plasticity.method" in words and "0.10.2" in words
    assert "plasticity/q" not in words or "no number was measured" in words
    # What a screen reader needs: a name for each picture, captions, headers, no jump over a level of headings.
    assert all(each.get("alt") for each in read.of("img")) and len(read.of("caption")) == len(read.of("table"))
    assert all(each["scope"] in ("row", "col") for each in read.of("th"))
    levels = [int(tag[1]) for tag, _ in read.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and all(after - before <= 1 for before, after in pairwise(levels))
    ids = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {each["href"][1:] for each in read.of("a")} <= set(ids)


def test_nothing_is_loaded_and_only_the_pages_own_script_runs(tmp_path):
    html = page(read_runs([make_run(tmp_path, seeds=1)]))
    read = Reader(html)
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [each["content"] for each in read.of("meta") if each.get("http-equiv") == "Content-Security-Policy"]
    assert f"script-src 'sha256-{digest}';" in policy and policy.startswith("default-src 'none';")
    assert "connect-src" not in policy and "connect-src 'self'" in page(
        read_runs([tmp_path / "td3_ne_Pendulum-v1"]), watched="x"
    )
    for _, attributes in read.elements:
        assert attributes.get("src", "data:").startswith("data:") and attributes.get("href", "#").startswith("#")
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org)", html)


def test_what_a_runs_files_say_stays_text(tmp_path):
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&amp;$legend"
    folder = make_run(tmp_path, seeds=1)
    config = json.loads((folder / "config.json").read_text())
    config["env"]["name"] = config["plasticity"]["method"] = config["exp_id"] = evil
    config[evil] = [evil, {"a": evil}]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "versions.json").write_text(json.dumps({evil: evil, "resumed": [{evil: evil}], "flags": {evil: evil}}))
    line = {"frame": 0, f"plasticity/{evil}": 1.0, f"eval/return/{evil}": 1.0, evil: 2.0, "eval/return": 1.0}
    (folder / "0" / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    named = folder.rename(tmp_path / "<b onclick=alert(1)>")
    (named / "0").rename(named / "<i>")
    html = page(read_runs([named, make_run(tmp_path, "other", seeds=1)]))
    read = Reader(html)
    plain = Reader(page(read_runs([make_run(tmp_path / "plain", "one", seeds=1), make_run(tmp_path, "two", seeds=1)])))
    assert {tag for tag, _ in read.elements} <= {tag for tag, _ in plain.elements} | {"p"}
    assert not [attributes for _, attributes in read.elements if any(key.startswith("on") for key in attributes)]
    assert html.count("<script>") == 1 and any(evil in each for each in read.texts)
    assert json.loads(re.sub(r"</?script[^>]*>", "", script_data({"name": evil})))["name"] == evil


def test_values_that_are_the_same_but_for_rounding_have_an_axis():
    for low, high in ((0.1, 0.1 + 2e-17), (0.0, 0.0), (1e-30, 1.1e-30), (-1e99, 1e99), (-5.0, -5.0)):
        room = margin(low, high)
        found = ticks(low - room, high + room, 5)
        assert 1 <= len(found) <= 6 and len(set(found)) == len(found)


def broken(folder, how):
    path = folder / "1" / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    if how == "no evaluation":
        for seed in "012":
            kept = [{k: v for k, v in row.items() if not k.startswith("eval/")} for row in rows]
            (folder / seed / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    elif how == "all NaN":
        for seed in "012":
            kept = [{k: v if k in ("step", "frame") else None for k, v in row.items()} for row in rows]
            (folder / seed / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    elif how == "begun":
        for seed in "012":
            (folder / seed / "metrics.jsonl").write_text("")
    elif how == "one point":
        for seed in "012":
            (folder / seed / "metrics.jsonl").write_text(json.dumps(rows[0]) + "\n")
    elif how == "other frames":
        path.write_text("".join(json.dumps(row | {"frame": row["frame"] + 37}) + "\n" for row in rows[:3]))
    elif how == "huge":
        path.write_text(
            "".join(
                json.dumps({k: 1e99 * (-1) ** i for i, k in enumerate(row)} | {"frame": row["frame"]}) + "\n"
                for row in rows
            )
        )
    elif how == "no config":
        (folder / "config.json").write_text('{"env":')
    elif how == "tasks":
        for seed in "012":
            more = [
                {"eval/return/a": 1.0, "eval/return/b": 2.0, "continual/task": float(i % 2)} for i in range(len(rows))
            ]
            kept = "".join(json.dumps(a | b) + "\n" for a, b in zip(rows, more))
            (folder / seed / "metrics.jsonl").write_text(kept)


TOLD = ("no evaluation", "all NaN", "begun", "one point", "no config")
HOWS = ["no evaluation", "all NaN", "begun", "one point", "other frames", "huge", "no config", "tasks"]


@pytest.mark.parametrize("how", HOWS)
def test_a_broken_run_has_a_report_all_the_same(tmp_path, how):
    whole, other = make_run(tmp_path, "whole"), make_run(tmp_path, "broken")
    broken(other, how)
    for folders in ([other], [whole, other]):
        html = page(read_runs(folders))
        words = Reader(html).words()
        assert "Learning curves" in words and (how not in TOLD or "What to know of these data" in words)
        assert not re.search(r'(?<![\w-])d="[^"]*(nan|inf)', html) and "NaN" not in html
        if how == "tasks":
            assert "return" in words and "on a" in words and "Upright: the task changes" in words


def test_more_runs_than_styles(tmp_path):
    runs = read_runs([make_run(tmp_path, f"run{i}", seeds=1, ends=100) for i in range(STYLES + 1)])
    assert f'class="key s{STYLES - 1}"' in page(runs) and f"s{STYLES}" not in re.findall(
        r'class="key (s\d)"', page(runs)
    )


def test_videos_come_along_up_to_a_limit(tmp_path):
    folder = make_run(tmp_path, seeds=2)
    (folder / "grid.mp4").write_bytes(b"g" * 400)
    for seed, frame in ((0, 200), (0, 400), (1, 400)):
        (folder / f"{seed}/videos").mkdir(exist_ok=True)
        (folder / f"{seed}/videos/eval_{frame}.mp4").write_bytes(b"v" * 300)
    (folder / "1/videos/eval_500.mp4").symlink_to(tmp_path / "secret.mp4")
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    runs = read_runs([folder])
    films = [each["aria-label"] for each in Reader(page(runs, video_limit=1000)).of("video")]
    told = ("newest rollouts of all seeds side by side", "seed 0 at frame 400", "seed 1 at frame 400")
    assert films == [f"Video: {runs[0].label}, {each}" for each in told]
    html = page(runs, video_limit=450)
    assert len(Reader(html).of("video")) == 1 and "0/videos/eval_400.mp4" in html
    assert base64.b64encode(b"secret").decode() not in page(runs)


def test_masks_are_put_in_time_and_units_in_order_of_age(tmp_path):
    (run,) = read_runs([make_run(tmp_path, seeds=1)])  # an update per frame, up to 400
    exists = np.array([[1, 1, 0, 0], [1, 1, 0, 1]], bool)
    born = np.array([[20, 0, 7, 0], [40, 0, 0, 10]])  # of 40 updates: a delayed actor
    shown, frames, last = in_time(run, Births(exists, born, 40))
    assert last == 400
    np.testing.assert_array_equal(shown, exists[:, [1, 3, 0, 2]])
    np.testing.assert_allclose(frames[shown], [0, 200, 0, 100, 400])
    grey = grey_levels(shown, frames, last)
    span = 255 - OLDEST
    np.testing.assert_array_equal(
        grey, [[OLDEST, 0, OLDEST + round(span / 2), 0], [OLDEST, OLDEST + round(span / 4), 255, 0]]
    )
    assert grey_levels(np.ones((300, 900), bool), np.zeros((300, 900)), 1.0).shape == (256, 256)


def test_numbers_for_people():
    assert [number(each) for each in (0.0, -1234567.8, 0.00012, float("nan"), 12.5)] == [
        "0", "\N{MINUS SIGN}1,234,568", "1.20e\N{MINUS SIGN}04", "no number", "12.5"]  # fmt: skip
    assert interval(1.234, 1.0, 1.5) == "1.23 [1.00, 1.50]" and interval(5.0, float("nan"), float("nan")) == "5"
    assert ticks(-0.03, 1.03, 5) == [0.0, 0.5, 1.0] or ticks(-0.03, 1.03, 5) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]


def test_the_picture_is_drawn(tmp_path):
    runs = read_runs([make_run(tmp_path), make_run(tmp_path, "_$other$", seeds=1)])
    draw_picture(runs, tmp_path / "deep" / "curves.png")
    assert (tmp_path / "deep" / "curves.png").stat().st_size > 20_000
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="nothing was measured yet"):
        draw_picture(read_runs([tmp_path / "empty"]), tmp_path / "x.png")


def test_the_server_follows_a_run_and_answers_this_machine_alone(tmp_path):
    folder, made = make_run(tmp_path, seeds=1), []
    watcher = Watcher([folder], lambda state: made.append(state) or f"page {state}")
    server = make_server(watcher, 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    try:

        def get(path, host=None):
            request = urllib.request.Request(address + path, headers={"Host": host} if host else {})
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.read().decode()

        assert get("/") == get("/") == f"page {get('/state')}" and len(made) == 1
        with (folder / "0" / "metrics.jsonl").open("a") as file:
            file.write('{"frame": 500}\n')
        assert get("/state") != made[0] and get("/") == f"page {get('/state')}" and len(made) == 2
        for path, host, status in (("/../config.json", None, 404), ("/", "evil.example", 403)):
            with pytest.raises(HTTPError) as error:
                get(path, host)
            assert error.value.code == status
            error.value.close()
        with pytest.raises(OSError, match=r"--port=.* cannot be had"):
            make_server(watcher, server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
