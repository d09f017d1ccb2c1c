"""Compiled programs, of which a process cannot keep any number."""

import ctypes
import gc
import resource
from pathlib import Path

MAPS, MOST_MAPS = Path("/proc/self/maps"), 45_000
STATM, MOST_GROWTH = Path("/proc/self/statm"), 2 * 2**30

_kept = [0]  # what was left of the memory when programs were last forgotten


def forget_programs():
    """Linux gives a process 65,530 pieces of memory, a compiled program takes up to ten, and XLA crashes beyond.

    Several such processes have to share a small machine, too: what they hold may grow by 2 GiB.
    """
    if not STATM.exists():
        return
    if _memory() > _kept[0] + MOST_GROWTH or MAPS.read_bytes().count(b"\n") > MOST_MAPS:
        import jax

        jax.clear_caches()
        gc.collect()
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):  # glibc's, which keeps what is freed
            libc.malloc_trim(0)
        _kept[0] = _memory()


def _memory() -> int:
    """What this process has of the machine's memory, in bytes."""
    return int(STATM.read_text().split()[1]) * resource.getpagesize()
