"""How long a call takes, and how that is said."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

Row = tuple[str, float, str]
"""What was measured, the number, its unit."""


def milliseconds(fn: Callable[..., Any], *args: Any, repeats: int = 15) -> float:
    """Median milliseconds of a call, compiled before."""
    jax.block_until_ready(fn(*args))
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(fn(*args))
        times.append(1e3 * (time.perf_counter() - begin))
    return float(np.median(times))
