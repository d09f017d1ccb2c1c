"""Runs on a GPU that give the same numbers each time."""

from __future__ import annotations

import os

import jax

FLAG = "--xla_gpu_deterministic_ops=true"
"""Of XLA: no operation whose result may differ from run to run, and no choice of kernels by how fast they were."""


def make_repeatable(wanted: bool) -> None:
    """Give XLA the flag for it, if it is wanted. A CPU computes the same each time anyway, and ignores the flag.

    Raises:
        ValueError: jax has begun on an accelerator, and reads no flags any more.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if not wanted or FLAG in flags.split():
        return
    if not has_begun():
        os.environ["XLA_FLAGS"] = f"{flags} {FLAG}".strip()
    elif jax.default_backend() != "cpu":
        raise ValueError(
            f"deterministic=True comes too late, for jax has begun in this process; start it with XLA_FLAGS={FLAG}"
        )


def has_begun() -> bool:
    """Whether jax has made its devices, after which neither their number nor XLA's flags can be changed."""
    count = jax.config.values["jax_num_cpu_devices"]
    try:
        jax.config.update("jax_num_cpu_devices", max(1, count) + 1)  # which is refused then
    except RuntimeError:
        return True
    jax.config.update("jax_num_cpu_devices", count)
    return False
