"""Settings that must be in place before jax is imported, and what keeps a long row of tests alive."""

import gc
import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# Annotated shapes and types are checked in every call, before anything imports the packages.
install_import_hook(["ne_jax", "agents"], "beartype.beartype")

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests compile much and compute little: with optimisation, compiling takes four times as long. The fusion emitters stay
# on: without them, and without optimisation, DrQ's actions came out as NaN (jax 0.10.2, 2026-11-24).
FLAGS = (
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=1",
)
os.environ.setdefault("XLA_FLAGS", " ".join(FLAGS))
# Programs that tests start would fill the user's cache otherwise.
os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")

MAPS, MOST_MAPS = Path("/proc/self/maps"), 45_000


@pytest.fixture(autouse=True)
def few_programs():
    """Linux gives a process 65,530 pieces of memory, a compiled program takes about ten, and XLA crashes beyond."""
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > MOST_MAPS:
        import jax

        jax.clear_caches()
        gc.collect()


@pytest.fixture
def registries():
    """What an example registers is gone afterwards."""
    from experiments.build.agent import AGENTS
    from experiments.build.methods import METHODS

    agents, methods = dict(AGENTS), dict(METHODS)
    yield
    AGENTS.clear()
    AGENTS.update(agents)
    METHODS.clear()
    METHODS.update(methods)
