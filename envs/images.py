"""Images that the host drew. May import: nothing of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import UInt8


def resized(image: object, size: int, source: str) -> UInt8[np.ndarray, "size size 3"]:
    """An image as a square one of that size, each pixel the mean of the area that it covers (OpenCV's INTER_AREA).

    Args:
      image: what an environment gave for an image.
      size: height and width of the result, in pixels.
      source: what gave it, for the error message.

    Raises:
      ValueError: it is not uint8 [height, width, 3].
    """
    import cv2

    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"{source} must give uint8 [height, width, 3], got {_like(image)}.")
    if image.shape[:2] == (size, size):
        return np.array(image)
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)


def _like(image: object) -> str:
    return f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
