"""Folders as a run leaves them, written by the recorder itself, with made-up numbers."""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from configs import gymnax_states
from experiments.record.folder import resolved
from experiments.record.metrics_files import SeedWriter, write_json

LAYERS = ("actor/policy/hidden_0", "critic/q1/hidden_0")
VERSIONS = {"python": "3.11.7", "jax": "0.10.2", "device": "cpu: cpu", "commit": "abc", "flags": {"XLA_FLAGS": ""}}


def row(frame: int, level: float) -> dict[str, float]:
    """What is logged at a frame; the return rises by `level`."""
    found = {
        "eval/return": level * frame,
        "train/critic_loss": 10.0 ** min(frame / 100 - 1, 3),
        "train/updates": float(frame),
    }
    found |= {"time/frames_per_second": 100.0 + level, "plasticity/saturation": 0.5, "plasticity/q": float("nan")}
    for name in ("fau", "dormant_ratio", "dormant_ratio_0.1", "density"):
        found |= {f"plasticity/{name}": 0.25} | {f"plasticity/{name}/{layer}": 0.5 for layer in LAYERS}
    for name in ("effective_rank", "weight_norm", "churn", "born"):
        found |= {f"plasticity/{name}/{network}": 1.0 + level for network in ("actor", "critic")}
    if frame == 0:
        found["eval/random_return"] = -1.0
    return found


def make_run(root: Path, name: str = "td3_ne", seeds: int = 3, level: float = 1.0, ends: int = 400, **settings) -> Path:
    """A run's folder; the returns of its seeds end at `ends` times level + 0, 1, 2, ...

    Args:
        settings: of the config, on top of the smoke variant's.
    """
    config: ConfigDict = gymnax_states.get_config("smoke")
    config.update(exp_id=name, seeds=tuple(range(seeds)), **settings)
    folder = root / f"{name}_{config.env.name}"
    write_json(folder / "config.json", resolved(config))
    write_json(folder / "versions.json", VERSIONS)
    for seed in range(seeds):
        writer = SeedWriter(folder / str(seed), 0)
        for frame in np.arange(0, ends + 1, 100).tolist():
            writer.write(frame, frame, row(frame, level + 0.01 * seed))
        writer.close()
    return folder
