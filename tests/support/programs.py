"""Compiled programs, of which a process cannot keep any number."""

import gc
from pathlib import Path

MAPS, MOST_MAPS = Path("/proc/self/maps"), 45_000


def forget_programs():
    """Linux gives a process 65,530 pieces of memory, a compiled program takes about ten, and XLA crashes beyond."""
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > MOST_MAPS:
        import jax

        jax.clear_caches()
        gc.collect()
