"""A report in a real browser, without a screen: no error in its console, every panel drawn, its script at work."""

import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from report_runs import make_run

from configs import gymnax_states
from experiments.record.checkpoints import read_births
from experiments.record.folder import Folder
from experiments.run import run

ROOT = Path(__file__).parents[4]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync", "--hide-scrollbars", "--virtual-time-budget=5000"]
FLAGS += ["--enable-logging=stderr", "--window-size=1280,3000"]

pytestmark = [pytest.mark.slow]


def browse(page, tmp_path, *more):
    """What the browser says on its two streams."""
    assert BROWSER is not None
    command = [BROWSER, *FLAGS, f"--user-data-dir={tmp_path / 'browser'}", *more, f"file://{page}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """The report of a real smoke run beside a made-up one, by the program."""
    place = tmp_path_factory.mktemp("report")
    config = gymnax_states.get_config("smoke")
    config.results_dir = str(place)
    assert run(config) == 0
    folders = [Folder(config).root, make_run(place, "made_up", seeds=5)]
    files = {"out": place / "report.html", "png": place / "report.png", "csv": place / "report.csv"}
    flags = [f"--run={each}" for each in folders] + [f"--{name}={path}" for name, path in files.items()]
    command = [sys.executable, "-m", "experiments.report", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert all(path.stat().st_size > 10_000 for path in files.values())
    return folders[0], files["out"]


def test_the_checkpoints_births_are_read(reported):
    step, layers = read_births(reported[0] / "checkpoint")
    assert step == 400 and len(layers) == 6
    for layer in layers.values():
        assert layer.exists.shape == layer.born.shape and (layer.born <= layer.updates).all() and layer.updates > 0
    grown = layers["critic/q1/hidden_1/dense/kernel"]
    assert 0 < (grown.exists & (grown.born > 0)).sum() < grown.exists.sum() < grown.exists.size


@pytest.mark.skipif(BROWSER is None, reason="there is no chromium here; on Debian: apt-get install chromium")
def test_a_browser_shows_all_of_it(reported, tmp_path):
    page = reported[1]
    dom, log = browse(page, tmp_path, "--dump-dom")
    assert "CONSOLE" not in log, log
    charts = re.findall(r'<svg viewBox="[^"]*" role="img"[^>]*class="chart', dom)
    written = re.findall(r'role="img"', page.read_text())
    assert len(charts) > 40 and len(charts) <= len(written)
    # Made by the script: buttons in the legend, a slider, a canvas in place of each mask.
    assert len(re.findall(r'<button type="button" aria-pressed="true">', dom)) == 2
    assert dom.count("<canvas") == 6 and 'type="range"' in dom and "% of the layer, born by then" in dom
    assert dom.count("<video") >= 3


@pytest.mark.skipif(BROWSER is None, reason="there is no chromium here; on Debian: apt-get install chromium")
@pytest.mark.parametrize("more", [[], ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"]])
def test_a_screenshot_is_no_empty_page(reported, tmp_path, more):
    picture = tmp_path / "shot.png"
    browse(reported[1], tmp_path, f"--screenshot={picture}", *more)
    content = picture.read_bytes()
    assert struct.unpack(">II", content[16:24]) == (1280, 3000) and len(content) > 100_000
