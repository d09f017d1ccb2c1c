"""Rollouts as mp4 files, written by the ffmpeg that comes with imageio-ffmpeg."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8


def _mediapy() -> Any:
    """The library, which brings matplotlib along and so takes seconds, with the ffmpeg of imageio-ffmpeg."""
    import imageio_ffmpeg
    import mediapy

    mediapy.set_ffmpeg(imageio_ffmpeg.get_ffmpeg_exe())
    return mediapy


def write_video(path: Path, frames: UInt8[np.ndarray, "steps height width 3"], fps: int) -> None:
    """Write an mp4; odd sizes are padded by one row or column, because H.264 wants even ones."""
    mediapy = _mediapy()
    path.parent.mkdir(parents=True, exist_ok=True)
    odd = [(0, 0), *((0, n % 2) for n in frames.shape[1:3]), (0, 0)]
    mediapy.write_video(path, np.pad(frames, odd, mode="edge"), fps=fps)


SMALL, FEW = 128, 100
"""The largest width of an animation, in pixels, and the most pictures of it: a log holds many."""


def animation(frames: UInt8[np.ndarray, "steps height width 3"], fps: int) -> tuple[bytes, int, int]:
    """A small GIF, as long as the video: every so many frames, every so many pixels; also its height and width."""
    every, apart = -(-len(frames) // FEW), -(-max(frames.shape[1:3]) // SMALL)
    few = frames[::every, ::apart, ::apart]
    return _mediapy().compress_video(few, fps=fps / every, codec="gif"), *few.shape[1:3]


def grid(frames: UInt8[np.ndarray, "seeds steps height width 3"]) -> UInt8[np.ndarray, "steps height2 width2 3"]:
    """Lay the seeds' videos side by side in a near-square grid; cells without a seed are black."""
    seeds, steps, height, width, _ = frames.shape
    columns = int(np.ceil(np.sqrt(seeds)))
    rows = -(-seeds // columns)
    cells = np.zeros((rows * columns, steps, height, width, 3), np.uint8)
    cells[:seeds] = frames
    cells = cells.reshape(rows, columns, steps, height, width, 3)
    return cells.transpose(2, 0, 3, 1, 4, 5).reshape(steps, rows * height, columns * width, 3)
