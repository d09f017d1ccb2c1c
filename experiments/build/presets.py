"""Settings that belong together: `plasticity.preset`. docs/method.md says what they stand for."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "plasticity.method": "ne",
        "plasticity.initial_sparsity": 0.8,
        "plasticity.schedule": "cosine",
        "plasticity.growth_rate": 0.0,
        "plasticity.grow": "gradient",
        "plasticity.prune": "dormant",
        "plasticity.tau": 0.0,
        "plasticity.after": "fixed",
        "review.mode": "slope",
    },
    "released": {
        "plasticity.method": "ne",
        "plasticity.initial_sparsity": 0.8,
        "plasticity.final_sparsity": 0.25,
        "plasticity.distribution": "erdos_renyi",
        "plasticity.first_masks": "largest",
        "plasticity.schedule": "linear",
        "plasticity.growth_rate": 0.008,
        "plasticity.every": 100,
        "plasticity.grad_accumulation": 1,
        "plasticity.grow": "gradient",
        "plasticity.prune": "magnitude",
        "plasticity.omega": 0.4,
        "plasticity.birth": "zero",
        "plasticity.revive": "none",
        "plasticity.after": "rewire",
        "plasticity.rewire_fraction": 0.2,
        "plasticity.rewire_until": 1.0,
        "review.auto_batch": True,
        "review.every": 1,
    },
}


def apply_preset(config: ConfigDict, given: dict[str, Any]) -> None:
    """Set in `config` what `plasticity.preset` stands for. It wins over the config file, not over the command line.

    Args:
        given: the keys that the command line sets, dotted, with their values.

    Raises:
        ValueError: there is no such preset, or the command line says something else for one of its keys.
    """
    name = config.plasticity.preset
    if not name:
        return
    if name not in PRESETS:
        raise ValueError(f"plasticity.preset must be {' or '.join(PRESETS)}, or empty for none; got {name!r}")
    for key, value in PRESETS[name].items():
        if given.get(key, value) != value:
            raise ValueError(
                f"plasticity.preset={name} stands for {key}={value}, and the command line says {given[key]}; "
                "drop one of the two"
            )
        group, _, setting = key.partition(".")
        config[group][setting] = value
