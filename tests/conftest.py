"""Settings that must be in place before jax is imported, and what keeps a long row of tests alive."""

import gc
import os
from pathlib import Path

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests compile much and compute little: with optimisation, compiling takes four times as long. The fusion emitters stay
# on: without them, and without optimisation, DrQ's actions came out as NaN (jax 0.10.2, 2026-11-24).
FLAGS = (
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=1",
)
os.environ.setdefault("XLA_FLAGS", " ".join(FLAGS))

MAPS, AFTER_A_MODULE, AFTER_A_TEST = Path("/proc/self/maps"), 30_000, 45_000


@pytest.fixture(scope="module", autouse=True)
def few_programs():
    """Linux gives a process 65,530 pieces of memory, a compiled program takes about ten, and XLA crashes beyond."""
    yield
    forget_programs(AFTER_A_MODULE)


@pytest.fixture(autouse=True)
def few_programs_in_a_module():
    """A module can have too many, too; in its midst what its tests share is compiled again, so the limit is higher."""
    yield
    forget_programs(AFTER_A_TEST)


def forget_programs(most):
    """Drop all compiled programs if the process has more than so many pieces of memory."""
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > most:
        import jax

        jax.clear_caches()
        gc.collect()
