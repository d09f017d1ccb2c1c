"""Images that the host drew. May import: nothing of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import UInt8


def resized(image: UInt8[np.ndarray, "height width 3"], size: int) -> UInt8[np.ndarray, "size size 3"]:
    """An image as a square one of that size, each pixel the mean of the area that it covers (OpenCV's INTER_AREA)."""
    import cv2

    if image.shape[:2] == (size, size):
        return np.array(image)
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
