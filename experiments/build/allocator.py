"""The allocator of the C library, told to keep what is freed."""

from __future__ import annotations

import ctypes
import platform

# As glibc's malloc.h has them.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3


def keep_freed_memory() -> bool:
    """Tell glibc to give no memory back to the kernel; whether it could be told. Call it before jax allocates.

    XLA on a CPU allocates and frees its large temporaries in every update. By default glibc may hand these back each
    time, and get unmapped pages for the next, which halves the speed of a process for its whole life; whether it does
    is decided by where in the heap they happen to lie.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = {M_TRIM_THRESHOLD: 2**31 - 1, M_MMAP_THRESHOLD: 32 * 2**20, M_TOP_PAD: 256 * 2**20}
    return all([mallopt(key, value) for key, value in settings.items()])
