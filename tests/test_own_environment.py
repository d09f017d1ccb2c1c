"""docs/own_environment.md: every block of code is a file that works, and every command builds a run that can step."""

import importlib
import re
import shlex
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.build.environment import with_keys_of_kind
from experiments.build.experiment import setup

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/own_environment.md").read_text()
FILES = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


@pytest.fixture(scope="module", autouse=True)
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    for name, code in FILES:
        (folder / name).write_text(code)
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))


def config_of(command):
    """The config of a command line, as `experiments.run` reads it."""
    program, *flags = shlex.split(command)[2:]
    values = dict(flag.removeprefix("--config").split("=", 1) for flag in flags)
    path, _, variant = values.pop("").partition(":")
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    config = with_keys_of_kind(values[".env.kind"], (), lambda _: module.get_config(variant), path)
    for key, value in values.items():
        group, name = key[1:].split(".")
        old = config[group][name]
        config[group][name] = value if isinstance(old, str) else float(value) if isinstance(old, float) else int(value)
    assert program == "experiments.run"
    return config


def test_the_page_shows_all_four_ways():
    assert [name for name, _ in FILES] == ["my_gym.py", "my_dm_env.py", "my_host.py", "my_device.py"]
    assert len(COMMANDS) == 7
    example = (ROOT / "examples/own_environment.py").read_text()
    assert dict(FILES)["my_device.py"].strip() in example


@pytest.mark.parametrize(
    "command", COMMANDS, ids=lambda command: "-".join(re.findall(r"(?:configs|name)[/=](\w+)", command))
)
def test_every_command_builds_a_run_that_steps(command):
    config = config_of(command)
    config.update(seeds=(0, 1), video=dict(every=0))
    config.replay.capacity = 1_000
    experiment = setup(config)
    try:
        spec, first = experiment.spec, experiment.pool.reset()
        assert spec.pixels == config.env.pixels and len(first) == 2
        seen = np.asarray(jax.vmap(spec.observe)(first))
        assert seen.dtype == (np.uint8 if spec.pixels else np.float32)
        assert np.isfinite(seen).all() and (seen[0] != seen[1]).any()
        if spec.pixels:
            assert seen.shape == (2, config.env.image_size, config.env.image_size, 3) and seen.max() > 200
        actions = np.ones((2, spec.action_dim), np.float32)
        step = getattr(experiment.pool, "step", None) or partial(step_on_device, experiment.pool)
        after = step(actions).step
        assert np.isfinite(after.reward).all() and (np.asarray(after.scene) != np.asarray(first)).any()
    finally:
        experiment.close()


def step_on_device(pool, actions):
    from envs.pools.device import auto_reset_step

    keys = jax.random.split(jax.random.key(0), len(actions))
    return jax.vmap(partial(auto_reset_step, pool.env))(pool.state, actions, keys)[1]
