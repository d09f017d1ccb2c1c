"""What the replay stores: scenes, which are drawn when they are sampled, or the frames that were seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict

from agents.replay import nbytes
from envs.types import EnvSpec


def choose_store(config: ConfigDict, spec: EnvSpec, memory: int) -> tuple[str, str]:
    """What the replay stores, scene or frame, and, where `replay.store` is auto, why, in words.

    Frames cost memory and no time when they are sampled, scenes the reverse: see the measurements in the README.
    """
    if config.replay.store != "auto":
        return config.replay.store, ""
    seeds, capacity = len(config.seeds), config.replay.capacity
    frame, scene = nbytes(jax.eval_shape(spec.observe, spec.scene)), nbytes(spec.scene)
    if frame == scene:
        return "frame", ""
    if any(_varied(config).values()):
        return "scene", " (auto: replay.vary changes them whenever they are drawn)"
    total, half = seeds * capacity * frame / 1e9, memory / 2e9
    frames = f"{total:.1f} GB of frames"
    if total <= half:
        return (
            "frame",
            f" (auto: {frames} fit into half of the memory, {half:.1f} GB, and need no drawing when sampled)",
        )
    return (
        "scene",
        f" (auto: {frames} exceed half of the memory, {half:.1f} GB; a scene has {scene} bytes, not {frame:,})",
    )


def _varied(config: ConfigDict) -> dict[str, float]:
    return dict(config.replay.vary)


def make_vary(config: ConfigDict, spec: EnvSpec, store: str) -> Callable[..., Any] | None:
    """Augmentation by drawing differently; ValueError where frames are not drawn when they are sampled."""
    shares = _varied(config)
    if not any(shares.values()):
        return None
    if spec.vary is None or store == "frame":
        raise ValueError(
            "replay.vary changes scenes of MuJoCo when they are drawn for a batch; it needs pixels, "
            "--config.env.renderer=jax and --config.replay.store=scene, or zeros for replay.vary.*"
        )
    return spec.vary(**shares)
