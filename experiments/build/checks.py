"""Checks of a config that need no environment, and of the memory that a run needs."""

from __future__ import annotations

import math
import re
from typing import Any

from ml_collections import ConfigDict

from experiments.build.default_settings import EnvSettings, RunSettings
from experiments.build.slices import slice_of
from settings import check, check_value, settings_of


def validate(config: ConfigDict) -> None:
    """ValueError, with the key and the cure, for a setting of the run itself that cannot be."""
    for key, value in flatten(config.to_dict()).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{key} must be a finite number, got {value}")
    check(RunSettings, config)
    for key in ("env.kind", "env.name", "env.num_envs", "env.frame_stack", "env.action_repeat", "agent.name"):
        group, _, name = key.partition(".")
        if name not in config.get(group, {}):
            raise ValueError(f"there is no {key} in the config, which needs it")
    for each in settings_of(EnvSettings):
        group, _, name = each.key.rpartition(".")
        given = config.env.get(group, {}) if group else config.env
        if name in given and each.key != "backend":  # whose choices depend on the kind
            check_value(each, given[name], f"env.{each.key}")
    seeds = config.seeds
    whole = all(isinstance(seed, int) and 0 <= seed < 2**32 for seed in seeds)
    if not seeds or len(set(seeds)) != len(seeds) or not whole:
        raise ValueError(f"seeds must be different whole numbers from 0 to 2**32 - 1, at least one, got {tuple(seeds)}")
    repeat = config.env.action_repeat
    if not isinstance(repeat, int) or isinstance(repeat, bool) or repeat < 1:
        raise ValueError(f"env.action_repeat must be a positive whole number, got {repeat!r}")
    counters = ("agent.random_steps", "agent.std_steps", "replay.nstep_from", "replay.capacity")
    periods = ("plasticity.every", "plasticity.reset_every", "review.every", "review.window")
    for key in counters + periods:
        group, _, name = key.partition(".")
        value = config[group].get(name, 0)
        if isinstance(value, int) and value >= 2**31:
            raise ValueError(f"{key}={value} does not fit into a 32-bit counter; lower it")
    if config.review.auto_batch and config.batch_size % 2:
        raise ValueError(f"review.auto_batch halves batches, so batch_size must be even, got {config.batch_size}")
    if config.video.every and not config.eval.every:
        raise ValueError(
            f"video.every={config.video.every} films evaluations, and eval.every=0 has none; set --config.video.every=0"
        )
    if config.capacity_probe and config.agent.get("ema", 0):
        raise ValueError(
            f"capacity_probe=True probes the actor's own weights, and with agent.ema={config.agent.ema} their average "
            "acts; set one of the two back"
        )
    slice_of(config)
    _check_devices(config)
    seconds_of(config.stop_after)
    _check_dynamic(config)
    _check_budget(config)


def seconds_of(stop_after: str) -> int:
    """The seconds that `stop_after` says, 0 where it is empty.

    Raises:
        ValueError: it says none.
    """
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", stop_after)
    hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found else (0, 0, 0)
    total = 3600 * hours + 60 * minutes + seconds
    if stop_after and not total:
        raise ValueError(f"stop_after={stop_after!r} is no time; take one such as 3h, 90m, 1h30m or 45s")
    return total


def _check_devices(config: ConfigDict) -> None:
    if config.devices > 1 and config.over_seeds in ("vmap", "map"):
        raise ValueError(
            f"over_seeds={config.over_seeds} keeps all seeds on one device, and devices={config.devices}; "
            "set --config.over_seeds=shard, or leave devices=0"
        )


def check_window(config: ConfigDict, updates: int) -> None:
    """ValueError for a review by slope that a run of so many updates is too short for."""
    review = config.review
    if review.mode == "slope" and (review.window - 1) * review.every >= updates - 1:
        raise ValueError(
            f"review.window={review.window} samples every review.every={review.every} updates are never there in a run "
            f"of {updates} updates; lower either, or train for more frames"
        )


def _check_dynamic(config: ConfigDict) -> None:
    dynamic, capacity = config.replay.dynamic, config.replay.capacity
    if not dynamic.on:
        return
    steps = config.total_frames // config.env.action_repeat
    bounds = (("min_size", capacity, "scenes"), ("min_size", steps, "agent steps"), ("every", steps, "agent steps"))
    for key, most, of in bounds:
        if dynamic[key] >= most:
            raise ValueError(
                f"replay.dynamic.{key}={dynamic[key]} lets nothing be forgotten with {most} {of}; "
                "lower it, or set --config.replay.dynamic.on=False"
            )


def _check_budget(config: ConfigDict) -> None:
    frames, rate = config.env.action_repeat * config.env.num_envs, config.updates_per_step
    if config.seed_frames < frames or -(-config.seed_frames // frames) >= config.total_frames // frames:
        raise ValueError(
            f"seed_frames={config.seed_frames} must be at least one step of all environments ({frames} frames) "
            f"and end at least one before total_frames={config.total_frames}"
        )
    if rate and ((rate >= 1 and rate != round(rate)) or (rate < 1 and abs(1 / rate - round(1 / rate)) > 1e-6)):
        raise ValueError(
            f"updates_per_step must be a whole number, or one update every so many steps such as 0.5, got {rate}"
        )
    steps = config.total_frames // frames
    # Counters on the device have 32 bits, and a replay counts up to two scenes a step: a last and the next first one.
    if max(steps * config.env.num_envs, 2 * steps, steps * rate) >= 2**31:
        raise ValueError(
            f"total_frames={config.total_frames} makes {steps * config.env.num_envs} agent steps and "
            f"{int(steps * rate)} updates, which do not fit into the 32-bit step counter; lower it"
        )


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
