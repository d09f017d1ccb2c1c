"""The lines of the comparison: three references, and each plasticity method with the settings that tuning found for it.

`settings.json` beside this file holds those: {stream: {method: {key of config.plasticity: value}}}. Tuning writes it;
what a method has none of stays at its default.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs.common import base
from experiments.build.methods import METHODS, method_names
from experiments.streams.types import DENSE, FRESH, RANDOM, REFERENCES, Arm, Stream

SETTINGS = Path(__file__).parent / "settings.json"


def arms_of(stream: Stream, wanted: Sequence[str]) -> list[Arm]:
    """The arms of a stream: always the references, then those wanted (`NAME` or `NAME,KEY=VALUE`), or all methods.

    Raises:
        ValueError: no such method or setting, one that comes twice, or settings.json is not what it should be.
    """
    plasticity, tuned = base("streams").plasticity, _tuned(stream)
    names = [name for name in wanted if name not in REFERENCES] if wanted else list(METHODS)
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"--method={name} comes twice; once is enough")
    references = [Arm(FRESH, {}), Arm(RANDOM, {}), Arm(DENSE, {})]
    return references + [_arm(name, plasticity, tuned) for name in names]


def _tuned(stream: Stream) -> dict[str, dict[str, Any]]:
    """The tuned settings of a stream by method."""
    try:
        found = json.loads(SETTINGS.read_text())
    except ValueError as error:
        raise ValueError(f"{SETTINGS.name} of the streams is no JSON: {error}") from error
    return found.get(stream.settings or stream.name, {})


def _arm(label: str, plasticity: ConfigDict, tuned: dict[str, dict[str, Any]]) -> Arm:
    method, *given = label.split(",")
    try:
        method_names(ConfigDict({"method": method}))
    except ValueError as error:
        raise ValueError(f"--method={label}: {error}; or a reference, {', '.join(REFERENCES)}") from error
    own = {key: _checked(plasticity, method, key, value) for key, value in tuned.get(method, {}).items()}
    own |= dict(_setting(plasticity, label, each) for each in given)
    return Arm(label, {"plasticity.method": method} | {f"plasticity.{key}": value for key, value in own.items()})


def _setting(plasticity: ConfigDict, label: str, setting: str) -> tuple[str, Any]:
    """A setting of the command line, KEY=VALUE, the value of the type that the key has."""
    key, _, text = setting.partition("=")
    old = _default(plasticity, key)
    if key == "method" or not isinstance(old, int | float | str) or not text:
        raise ValueError(f"--method={label}: {setting} must be KEY=VALUE, with a key of config.plasticity")
    if isinstance(old, bool):
        if text not in ("True", "False"):
            raise ValueError(f"--method={label}: {key} must be True or False, got {text!r}")
        return key, text == "True"
    try:
        return key, type(old)(text)
    except ValueError as error:
        raise ValueError(f"--method={label}: {key} must be a number like {old}, got {text!r}") from error


def _checked(plasticity: ConfigDict, method: str, key: str, value: Any) -> Any:
    """A tuned value, which must be of the type that the key has."""
    old = _default(plasticity, key)
    if old is None or not isinstance(value, (int, float) if isinstance(old, float) else type(old)):
        raise ValueError(f"{SETTINGS.name} of the streams: {method} cannot have {key}={value!r}")
    return value


def _default(plasticity: ConfigDict, key: str) -> Any:
    """The default of a key of config.plasticity, which may be dotted; None if there is no such key, or no default."""
    place: Any = plasticity
    for part in key.split("."):
        place = place.get(part) if isinstance(place, ConfigDict) else None
    return place
