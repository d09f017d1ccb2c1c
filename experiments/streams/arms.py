"""The lines of the comparison: three references, each plasticity method, and networks of another form.

`settings.json` beside this file holds what tuning found: {stream: {arm: {key: value}}}, keys as behind a comma of
`--method`: those of config.plasticity, or `agent.KEY`. What an arm has none of stays at its default.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from agents.networks import ActorCriticSettings
from configs.common import base, defaults
from experiments.build.methods import METHODS, method_names
from experiments.streams.types import DENSE, FRESH, RANDOM, REFERENCES, Arm, Stream
from settings import settings_of

SETTINGS = Path(__file__).parent / "settings.json"
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "leaky_relu": {"agent.activation": "leaky_relu"},
    "layer_norm": {"agent.layer_norm": True},
    "layer_norm+project": {"agent.layer_norm": True, "plasticity.method": "normalise_and_project"},
}
"""Arms that are another network, whether with a method or without one."""


def arms_of(stream: Stream, wanted: Sequence[str], tuned: dict[str, dict[str, Any]] | None = None) -> list[Arm]:
    """The arms of a stream: always the references, then those wanted (`NAME` or `NAME,KEY=VALUE`), or all methods.

    Args:
        tuned: settings of methods, for which there are those of settings.json.

    Raises:
        ValueError: no such method or setting, one that comes twice, or settings.json is not what it should be.
    """
    config = base("streams")
    tuned = _tuned(stream) if tuned is None else tuned
    config.agent = defaults(settings_of(ActorCriticSettings))
    names = [name for name in wanted if name not in REFERENCES] if wanted else default_names()
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"--method={name} comes twice; once is enough")
    references = [Arm(FRESH, {}), Arm(RANDOM, {}), Arm(DENSE, {})]
    return references + [_arm(name, config, tuned) for name in names]


def default_names() -> list[str]:
    """All arms but references. A method that needs another network is there with it, and not on its own."""
    elsewhere = {each.get("plasticity.method") for each in ARCHITECTURES.values()}
    return [*(name for name in METHODS if name not in elsewhere), *ARCHITECTURES]


def _tuned(stream: Stream) -> dict[str, dict[str, Any]]:
    """The tuned settings of a stream by method."""
    try:
        found = json.loads(SETTINGS.read_text())
    except ValueError as error:
        raise ValueError(f"{SETTINGS.name} of the streams is no JSON: {error}") from error
    return found.get(stream.settings or stream.name, {})


def _arm(label: str, config: ConfigDict, tuned: dict[str, dict[str, Any]]) -> Arm:
    method, *given = label.split(",")
    overrides = ARCHITECTURES.get(method, {"plasticity.method": method})
    try:
        method_names(ConfigDict({"method": overrides.get("plasticity.method", "none")}))
    except ValueError as error:
        others = ", ".join((*ARCHITECTURES, *REFERENCES))
        raise ValueError(f"--method={label}: {error}; or one of {others}") from error
    own = {_full(key): _checked(config, method, key, value) for key, value in tuned.get(method, {}).items()}
    return Arm(label, overrides | own | dict(_setting(config, label, each) for each in given))


def _full(key: str) -> str:
    """A key of the config: one of `config.plasticity`, whose name is left out, unless it begins with `agent.`"""
    return key if key.startswith("agent.") else f"plasticity.{key}"


def _setting(config: ConfigDict, label: str, setting: str) -> tuple[str, Any]:
    """A setting of the command line, KEY=VALUE, the value of the type that the key has."""
    key, _, text = setting.partition("=")
    old = _default(config, _full(key))
    if key == "method" or not isinstance(old, int | float | str) or not text:
        raise ValueError(
            f"--method={label}: {setting} must be KEY=VALUE, with a key of config.plasticity, or agent.KEY"
        )
    if isinstance(old, bool):
        if text not in ("True", "False"):
            raise ValueError(f"--method={label}: {key} must be True or False, got {text!r}")
        return _full(key), text == "True"
    try:
        return _full(key), type(old)(text)
    except ValueError as error:
        raise ValueError(f"--method={label}: {key} must be a number like {old}, got {text!r}") from error


def _checked(config: ConfigDict, method: str, key: str, value: Any) -> Any:
    """A tuned value, which must be of the type that the key has."""
    old = _default(config, _full(key))
    if old is None or not isinstance(value, (int, float) if isinstance(old, float) else type(old)):
        raise ValueError(f"{SETTINGS.name} of the streams: {method} cannot have {key}={value!r}")
    return value


def _default(config: ConfigDict, key: str) -> Any:
    """The default of a dotted key; None if there is no such key, or no default."""
    place: Any = config
    for part in key.split("."):
        place = place.get(part) if isinstance(place, ConfigDict) else None
    return place
