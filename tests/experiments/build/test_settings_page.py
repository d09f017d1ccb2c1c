"""docs/settings.md is what the code says, and every key of every config stands in it."""

import importlib
from pathlib import Path

import pytest

import ne_jax
from configs import common
from experiments.build.checks import flatten, validate
from experiments.build.default_settings import RunSettings
from experiments.build.method_types import library
from experiments.build.settings_page import page
from settings import settings_of

ROOT = Path(__file__).parents[3]
CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*.py") if path.stem not in ("__init__", "common"))


def test_the_page_is_made_from_the_code():
    remedy = "run `python -m experiments.build.settings_page > docs/settings.md`"
    assert (ROOT / "docs" / "settings.md").read_text() == page(), remedy


@pytest.mark.parametrize("name", CONFIGS)
def test_every_key_of_a_config_is_described(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    validate(config)
    text = page()
    for key in flatten(config.to_dict()):
        if key != "agent.name" and not key.startswith("env.physics."):
            assert f"| `{key}` |" in text, key


def test_a_config_holds_every_setting_of_a_run_at_its_default():
    config = common.base("run")
    for each in settings_of(RunSettings):
        value = config
        for name in each.key.split("."):
            value = value[name]
        assert value == each.default


def test_a_maker_whose_docstring_is_silent_on_a_keyword_is_refused():
    def maker(activity, *, strength: float = 0.5) -> ne_jax.Rule:
        """Says nothing of its keyword."""
        return ne_jax.static()

    with pytest.raises(TypeError, match="must say in its Args what strength is"):
        library(maker).make(None)  # pyright: ignore[reportArgumentType]
