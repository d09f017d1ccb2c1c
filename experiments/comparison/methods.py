"""What `--method=NAME,KEY=VALUE` says: the settings of a method's run that are its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from experiments.build.run_names import Overrides


def overrides_of(config: ConfigDict, methods: Sequence[str]) -> dict[str, Overrides]:
    """What each method's run sets, by its label.

    Raises:
        ValueError: a method comes twice, or the sentence says which setting cannot be.
    """
    for network in ("actor", "critic"):
        if config.plasticity[network].method is not None:
            raise ValueError(f"plasticity.{network}.method holds for every line of the table; leave it unset")
    found: dict[str, Overrides] = {}
    for label in methods:
        if label in found:
            raise ValueError(f"--method={label} comes twice; once is enough")
        method, *settings = label.split(",")
        found[label] = {"plasticity.method": method} | dict(_setting(config, label, each) for each in settings)
    return found


def _setting(config: ConfigDict, label: str, setting: str) -> tuple[str, str]:
    key, _, text = setting.partition("=")
    old: Any = config.plasticity
    for part in key.split("."):
        old = old.get(part) if isinstance(old, ConfigDict) else None
    if key == "method" or not isinstance(old, int | float | str) or not text:
        raise ValueError(f"--method={label}: {key}={text} must be KEY=VALUE, with a key of config.plasticity")
    if not isinstance(old, bool):
        try:
            type(old)(text)
        except ValueError as error:
            raise ValueError(f"--method={label}: {key} must be a number like {old}, not {text!r}") from error
    return f"plasticity.{key}", text
