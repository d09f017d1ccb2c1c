"""Compiled programs, kept between processes: the same job starts in a fraction of the time when it starts again."""

from __future__ import annotations

import hashlib
import os
import platform
from contextlib import suppress
from pathlib import Path

LIMIT = 2 * 2**30
"""Bytes that are kept; the programs that were not used for longest go first."""
LEAST_SECONDS = 0.5
"""What compiles in less is compiled each time: reading it would take about as long."""


def keep_compiled() -> Path | None:
    """Let jax keep what it compiles in a folder of this user, and take it from there; where, or None if nowhere.

    Call it before anything is compiled. A program belongs to one kind of processor, so each has a folder of its own:
    a home directory may be shared. Nowhere, if the user has told jax of a place (`JAX_COMPILATION_CACHE_DIR`) or to
    keep nothing (`JAX_ENABLE_COMPILATION_CACHE=false`), or the folder cannot be written to.
    """
    import jax  # takes seconds

    settings = jax.config.values
    if settings["jax_compilation_cache_dir"] or not settings["jax_enable_compilation_cache"]:
        return None
    place = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ne_jax" / f"compiled-{_processor()}"
    try:
        place.mkdir(parents=True, exist_ok=True)
        prune(place, LIMIT)
    except OSError:
        return None
    if not os.access(place, os.W_OK):
        return None
    jax.config.update("jax_compilation_cache_dir", str(place))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)
    return place


def prune(folder: Path, limit: int) -> None:
    """Delete the files that were not read or written for longest, until at most `limit` bytes are left."""
    found = sorted((max(path.stat().st_atime, path.stat().st_mtime), path) for path in folder.iterdir())
    size = sum(path.stat().st_size for _, path in found)
    for _, path in found:
        if size <= limit:
            return
        size -= path.stat().st_size
        with suppress(FileNotFoundError):  # another process has just done so
            path.unlink()


def _processor() -> str:
    """A short name for what this processor can do."""
    flags = ""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(f"{platform.machine()} {platform.processor()} {flags}".encode()).hexdigest()[:12]
