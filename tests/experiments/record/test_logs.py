"""TensorBoard's animations, Weights & Biases, and configs of earlier versions, without training."""

import json
import sys

import numpy as np
import pytest
from PIL import Image, ImageSequence
from tensorboardX.proto.event_pb2 import Event

from configs import gymnax_states
from experiments.record.folder import Folder, check_folder, open_folder, resolved
from experiments.record.metrics_files import SeedWriter, read_metrics
from experiments.record.policy import read_config
from experiments.record.video import FEW, SMALL, animation
from experiments.record.wandb_runs import WandbRun, check_wandb
from experiments.run import run

FRAMES = np.random.default_rng(0).integers(0, 255, (120, 200, 200, 3), np.uint8)
VALUES = {"eval/return": 3.0, "train/return": float("nan")}


def config_of(folder):
    config = gymnax_states.get_config("smoke")
    config.update(results_dir=str(folder), log=dict(wandb=True))
    return config


def events(folder):
    """What an event file holds: before each record its length in 8 bytes and a checksum in 4, one in 4 behind it."""
    (file,) = folder.glob("events*")
    data, found = file.read_bytes(), []
    while data:
        size = int.from_bytes(data[:8], "little")
        found.append(Event.FromString(data[12 : 12 + size]))
        data = data[16 + size :]
    return found


def test_an_animation_is_small_and_as_long_as_the_video(tmp_path):
    encoded, height, width = animation(FRAMES, 30)
    (tmp_path / "a.gif").write_bytes(encoded)
    with Image.open(tmp_path / "a.gif") as image:
        assert image.size == (width, height) == (100, 100) and width <= SMALL
        durations = [picture.info["duration"] for picture in ImageSequence.Iterator(image)]
    assert len(durations) == 60 <= FEW
    assert sum(durations) == pytest.approx(120 / 30 * 1000, rel=0.1)


def test_tensorboard_gets_the_animation(tmp_path):
    writer = SeedWriter(tmp_path, 0)
    writer.film(5, 10, FRAMES[:4], 30, tmp_path / "eval_10.mp4")
    writer.write(5, 10, VALUES)
    writer.close()
    shown = {
        value.tag: (event.step, value) for event in events(tmp_path / "tensorboard") for value in event.summary.value
    }
    assert set(shown) == {"eval/video", "eval/return"} and {step for step, _ in shown.values()} == {10}
    image = shown["eval/video"][1].image
    assert image.encoded_image_string[:4] == b"GIF8" and (image.height, image.width) == (100, 100)


class Fake:
    """What we use of wandb, with what it was told."""

    Error = ZeroDivisionError

    def __init__(self):
        self.told, self.logged_in = [], True

    def login(self, prompt):
        assert not prompt
        return self.logged_in

    def init(self, **how):
        self.told.append(("init", how))
        return self

    def log(self, row, step):
        self.told.append(("log", step, row))

    def define_metric(self, *names, **axis):
        self.told.append(("axis", names, axis))

    def finish(self):
        self.told.append(("finish",))

    def Settings(self, **given):
        return given

    def Video(self, path, format):
        return (path, format)


@pytest.fixture
def fake(monkeypatch):
    found = Fake()
    monkeypatch.setitem(sys.modules, "wandb", found)
    monkeypatch.setattr("experiments.record.wandb_runs.find_spec", lambda name: True)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return found


def test_each_seed_is_a_run_in_one_group_with_the_columns_of_the_metrics_file(tmp_path, fake):
    config = config_of(tmp_path)
    folder = Folder(config)
    for begin in (0, 4):  # the second time it goes on
        writers = [SeedWriter(folder.seed(seed), begin, WandbRun(config, folder, seed)) for seed in config.seeds]
        for writer in writers:
            writer.write(begin, begin, VALUES)
            writer.film(begin, begin, FRAMES[:2], 30, tmp_path / "x.mp4")
            writer.close()
    inits = [each[1] for each in fake.told if each[0] == "init"]
    assert [how["config"]["seed"] for how in inits] == [*config.seeds] * 2
    assert {how["group"] for how in inits} == {folder.root.name}
    assert len({how["id"] for how in inits}) == len(config.seeds)  # the same when it goes on
    assert {how["reinit"] for how in inits} == {"create_new"} and {how["resume"] for how in inits} == {"allow"}
    rows = [each for each in fake.told if each[0] == "log" and "eval/video" not in each[2]]
    (first, *_), columns = read_metrics(folder.seed(config.seeds[0]) / "metrics.jsonl"), rows[0][2]
    assert set(columns) == set(first) == {"step", "frame", *VALUES}
    assert ("axis", ("*",), {"step_metric": "frame"}) in fake.told


def test_without_a_login_it_is_said_before_anything_starts(tmp_path, fake, capsys):
    fake.logged_in = False
    assert run(config_of(tmp_path)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: log.wandb=True finds no login; run wandb login, set WANDB_MODE=offline")
    assert error.count("\n") == 1 and not any(tmp_path.iterdir())


def test_without_the_package_it_is_said_before_anything_starts(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("experiments.record.wandb_runs.find_spec", lambda name: None)
    assert run(config_of(tmp_path)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: log.wandb=True needs the package wandb; pip install 'wandb")
    assert error.count("\n") == 1 and not any(tmp_path.iterdir())


def test_a_service_that_cannot_be_reached_is_a_sentence(tmp_path, fake):
    config = config_of(tmp_path)
    fake.init = lambda **_: 1 / 0
    with pytest.raises(RuntimeError, match=r"no run could be opened \(division by zero\); set WANDB_MODE=offline"):
        WandbRun(config, Folder(config), 0)


def test_offline_asks_for_no_login(tmp_path, fake, monkeypatch):
    fake.logged_in = False
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_wandb(config_of(tmp_path))


def test_logs_may_change_when_a_run_goes_on_and_older_runs_have_no_such_key(tmp_path):
    config = config_of(tmp_path)
    folder = Folder(config)
    open_folder(folder, config)
    config.log.wandb = False
    check_folder(folder, config)
    saved = resolved(config)
    del saved["log"], saved["compile_cache"]
    folder.config.write_text(json.dumps(saved))
    check_folder(folder, config)
    found = read_config(folder.root)
    assert (found.log.wandb, found.compile_cache) == (False, True)
    assert found.seeds == config.seeds


@pytest.mark.slow
def test_wandb_itself_writes_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = config_of(tmp_path)
    config.update(eval=dict(episodes=1))
    assert run(config) == 0
    folder = Folder(config)
    for seed in config.seeds:
        (at,) = (folder.seed(seed) / "wandb").glob("offline-run-*")
        assert (folder.seed(seed) / "wandb" / "id.txt").read_text() in at.name
        (file,) = at.glob("*.wandb")
        assert b"eval/return" in file.read_bytes()
