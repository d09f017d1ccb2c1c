"""docs/own_agent.md and docs/own_method.md: every block of Python runs, and what it makes trains."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from examples import own_agent, own_method
from experiments.build.experiment import setup

ROOT = Path(__file__).parents[1]
EXAMPLES = {"own_agent": own_agent, "own_method": own_method}


def blocks(name):
    """The blocks of Python of a page."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / f"docs/{name}.md").read_text(), re.MULTILINE | re.DOTALL)


BLOCKS = [(name, code) for name in EXAMPLES for code in blocks(name) if "def get_config" not in code]
"""All but those that show an example whole."""


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_page_shows_its_example_whole(name):
    assert (ROOT / f"examples/{name}.py").read_text() in blocks(name)


LONG = 3_000  # characters, of a block that trains
MARKED = [pytest.param(*each, marks=pytest.mark.slow) if len(each[1]) > LONG else each for each in BLOCKS]


@pytest.mark.parametrize("name, code", MARKED, ids=[f"{name}-{len(code)}" for name, code in BLOCKS])
def test_every_other_block_runs(name, code):
    page, names = (ROOT / f"docs/{name}.md").read_text(), {"__name__": name}
    lines_before = page[: page.index(code)].count("\n")  # so that an error names the line of the page
    exec(compile("\n" * lines_before + code, f"docs/{name}.md", "exec"), names)
    for each, function in list(names.items()):
        if each.startswith("test_"):
            function()


def test_the_blocks_are_as_many_as_the_pages_have():
    found = re.findall(r"^def (test_\w+)", "\n".join(code for _, code in BLOCKS), re.MULTILINE)
    assert len(BLOCKS) == 3 and len(found) == 4


BOTH = """
from examples import own_agent, own_method


def get_config():
    own_method.get_config()  # registers
    config = own_agent.get_config("smoke")
    config.plasticity.method = "ne+dormant_noise+reset_unused"
    config.update(seeds=(3,), video=dict(every=0), total_frames=260)
    return config
"""


@pytest.mark.slow
def test_agent_and_methods_train_together(tmp_path):
    (tmp_path / "both.py").write_text(BOTH)
    flags = [f"--config={tmp_path / 'both.py'}", f"--config.results_dir={tmp_path}"]
    done = subprocess.run([sys.executable, "-m", "experiments.run", *flags], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.rglob("metrics.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["train/updates"] for row in rows] == [0, 0, 0, 60]
    assert all(np.isfinite(rows[-1][f"train/{name}"]) for name in ("critic_loss", "actor_loss", "q"))
    assert rows[-1]["plasticity/density"] > rows[0]["plasticity/density"]
    assert {"plasticity/density/critic/q/hidden_1/dense/kernel", "plasticity/fau/actor/policy/hidden_0"} <= set(rows[0])


def test_the_agent_says_what_it_cannot_do(registries):
    config = own_agent.get_config("smoke")
    config.agent.tau = 2.0
    with pytest.raises(ValueError, match=r"agent\.tau must lie in \(0, 1\], got 2"):
        setup(config)


def test_the_methods_remember_what_they_should(registries):
    experiment = setup(own_method.get_config("smoke"))
    state = jax.eval_shape(experiment.agent.init, jax.random.key(0))
    experiment.close()
    kernels = [f"policy/{layer}/kernel" for layer in ("head", "hidden_0/dense", "hidden_1/dense")]
    assert sorted(state.actor.opt_state.rule) == kernels


@pytest.mark.parametrize("key, value", [("share", 1.0), ("decay", -0.5)])
def test_a_methods_setting_is_named_when_it_cannot_be(registries, key, value):
    config = own_method.get_config("smoke")
    config.plasticity.reset_unused[key] = value
    with pytest.raises(ValueError, match=rf"plasticity\.reset_unused\.{key} must lie in"):
        setup(config)
