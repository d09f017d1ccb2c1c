"""Lanes: values of numbers that train side by side in one program, each of them a run of its own.

`--config.lanes.KEY="(A,B)"` lists the values of a key; those of several keys give every combination. A lane is what
`experiments.sweep` would start as a run, with the same name and folder, and has all seeds. A program has a row for each
lane and seed, those of the first lane first. What the lanes differ in are traced numbers of the rows: the agent is made
inside the program from the config of its row.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from experiments.build.agent import AGENTS
from experiments.build.checks import flatten
from experiments.build.methods import METHODS, signature_settings
from experiments.build.presets import PRESETS
from experiments.build.run_names import name_runs, sweep_folder
from experiments.train.state import Numbers
from settings import settings_of

OF_THE_RUN = ("replay.discount", "replay.reward_scale", "replay.dynamic.threshold")
OF_THE_RUN += tuple(f"review.{key}" for key in ("fraction", "awaken", "gain", "most"))
OF_THE_RUN += tuple(f"plasticity.{key}" for key in ("omega", "tau", "rewire_fraction", "shrink", "perturb", "l2_init"))
"""Numbers that the program of an update only computes with, beside those of agents and of methods with own keys."""
OFF_AT_ZERO = ("agent.ema", "plasticity.lifelong_ne.novelty")
"""With 0 there is something less in a run's state or its program, which have to be alike in all rows."""
LOOKED_AT = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)
"""What a number raises that is traced and looked at: as a Python number, as an array of numpy, as an index."""


def traceable_keys(config: ConfigDict) -> list[str]:
    """The keys that may differ between lanes: numbers on which neither shapes nor times depend."""
    kind = AGENTS.get(config.agent.name)
    return [*(of_agent(kind.settings) if kind else ()), *OF_THE_RUN, *of_methods()]


def of_agent(settings: type) -> list[str]:
    """Those of an agent."""
    return [f"agent.{each.key}" for each in settings_of(settings) if each.type is float]


def of_methods() -> list[str]:
    """Those of the plasticity methods that have keys of their own."""
    return [each.key for name in METHODS for each in signature_settings(name) if each.type is float]


def lanes_of(config: ConfigDict) -> list[ConfigDict]:
    """The config of each lane, as that of a run of its own; the config itself where it has no lanes.

    Raises:
        ValueError: a list cannot be; the sentence names its key and the cure.
    """
    lists = _lists(config)
    if not lists:
        return [config]
    lanes = [dict(zip(lists, each, strict=True)) for each in itertools.product(*lists.values())]
    found, folder = [], str(sweep_folder(config.results_dir, config.exp_id))
    for name, lane in zip(name_runs(lanes, config.exp_id), lanes, strict=True):
        own = config.copy_and_resolve_references()
        with own.unlocked():
            del own.lanes
        own.update_from_flattened_dict({key: float(text) for key, text in lane.items()})
        own.exp_id, own.results_dir = name, folder
        found.append(own)
    return found


def check_given(config: ConfigDict, given: Mapping[str, Any]) -> None:
    """ValueError where the command line gives one value to a key, and lanes others."""
    for key in _lists(config):
        if key in given:
            raise ValueError(f"{key} is set for all lanes by --config.{key}, and varies by lanes; drop one of the two")


def refuse_lanes(config: ConfigDict, program: str) -> None:
    """ValueError where a config has lanes, for a program that knows of none."""
    if config.get("lanes"):
        raise ValueError(f"lanes are for experiments.run; {program} has none; leave --config.lanes out")


def numbers_of(lanes: Sequence[ConfigDict], seeds: int) -> Numbers | None:
    """What differs between lanes, of each row; None where nothing does."""
    flat = [flatten(each.to_dict()) for each in lanes]
    differing = [key for key in traceable_keys(lanes[0]) if len({each[key] for each in flat if key in each}) > 1]
    values = {key: np.repeat(np.array([each[key] for each in flat], np.float32), seeds) for key in differing}
    return {key: jax.numpy.asarray(each) for key, each in values.items()} or None


def of_all_rows(lanes: Sequence[ConfigDict]) -> ConfigDict:
    """The config of the program: the first lane's, with the seeds once for each lane."""
    if len(lanes) == 1:
        return lanes[0]
    found = lanes[0].copy_and_resolve_references()
    found.seeds = tuple(found.seeds) * len(lanes)
    return found


def with_numbers(config: ConfigDict, numbers: Numbers) -> ConfigDict:
    """The config of one row, inside a program that traces its numbers."""
    tree = config.to_dict()
    for key, value in numbers.items():
        *groups, name = key.split(".")
        place = tree
        for group in groups:
            place = place[group]
        place[name] = value
    return ConfigDict(tree)


def check_traced(make: Callable[[Numbers], Any], numbers: Numbers | None) -> None:
    """ValueError where a number decides on the program, with what else the config says.

    Args:
        make: what is made inside the program, from the numbers of a row.
    """
    for key, values in (numbers or {}).items():

        def traced(value: Float[Array, ""], key: str = key) -> None:
            make({key: value})

        try:
            jax.eval_shape(traced, values[0])
        except LOOKED_AT as error:
            raise ValueError(
                f"lanes.{key}: with this config {key} decides on how many weights or updates there are, which is the "
                f"same in one program; make them runs: experiments.sweep --over={key}="
            ) from error


def with_lane_keys(keys: Sequence[str], load: Callable[[str], ConfigDict], argument: str) -> ConfigDict:
    """A config file with `lanes` of these keys, so that the command line can set them, as texts."""
    config = load(argument)
    with config.unlocked():
        for key in keys:
            *groups, name = f"lanes.{key}".split(".")
            place = config
            for group in groups:
                place[group] = place.get(group, ConfigDict())
                place = place[group]
                if not isinstance(place, ConfigDict):
                    raise ValueError(f"the config has no key {key}, of which lanes.{key} could list values")
            place[name] = ""
    return config


def _lists(config: ConfigDict) -> dict[str, list[str]]:
    """The values of each key that lanes list, as they would stand on the command line.

    Raises:
        ValueError: as `lanes_of`.
    """
    given = config.get("lanes")
    return {key: _values(config, key, each) for key, each in flatten(given.to_dict()).items()} if given else {}


def _values(config: ConfigDict, key: str, given: Any) -> list[str]:
    _check_key(config, key)
    texts = [*map(str, given)] if isinstance(given, tuple | list) else str(given).strip("()[] ").split(",")
    texts = [each.strip() for each in texts if each.strip()]
    if not texts:
        raise ValueError(f'lanes.{key} is empty; list its values, such as "(1e-4,1e-3)", or leave it out')
    found: dict[float, str] = {}
    for text in texts:
        try:
            value = float(text)
        except ValueError as error:
            raise ValueError(f"lanes.{key} must list numbers, got {text!r}") from error
        if not math.isfinite(value):
            raise ValueError(f"lanes.{key} must list finite numbers, got {text}")
        if value in found:
            raise ValueError(f"lanes.{key} has {found[value]} twice, as {text}; name each value once")
        found[value] = text
    if key in OFF_AT_ZERO and 0 in found and len(found) > 1:
        raise ValueError(
            f"lanes.{key}: 0 switches off what other values need, so they are not one program; make 0 a run of its own"
        )
    return texts


def _check_key(config: ConfigDict, key: str) -> None:
    there, allowed = flatten(config.to_dict()), traceable_keys(config)
    if key not in there:
        close = get_close_matches(key, allowed, 1)
        meant = f"; did you mean lanes.{close[0]}?" if close else ""
        raise ValueError(f"the config has no key {key}, of which lanes.{key} could list values{meant}")
    cure = f"make its values runs: experiments.sweep --over={key}="
    if isinstance(there[key], bool) or not isinstance(there[key], int | float):
        raise ValueError(f"lanes.{key}: {key} is no number, and one program has no more than that different; {cure}")
    if key not in allowed:
        raise ValueError(
            f"lanes.{key}: {key} decides on shapes or on when things happen, which are the same in one program; {cure}"
        )
    preset = config.plasticity.preset
    if key in PRESETS.get(preset, {}):
        raise ValueError(
            f"plasticity.preset={preset} stands for {key}={PRESETS[preset][key]}, and lanes.{key} says otherwise; drop "
            "one of the two"
        )
