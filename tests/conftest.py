"""Settings that must be in place before jax is imported, and what keeps a long row of tests alive."""

import importlib
import os

import pytest
from jaxtyping import install_import_hook
from programs import forget_programs

# Annotated shapes and types are checked in every call, before anything imports the packages.
install_import_hook(["ne_jax", "agents"], "beartype.beartype")

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests compile much and compute little: with optimisation and fusion emitters, compiling takes ten times as long.
FLAGS = (
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
)
os.environ.setdefault("XLA_FLAGS", " ".join(FLAGS))
# Programs that tests start would fill the user's cache otherwise.
os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")
# One device in every process: a config of the first test that asks for more would cut the CPU for all that come after.
importlib.import_module("jax").devices()


@pytest.fixture(autouse=True)
def few_programs():
    """However many tests there are."""
    yield
    forget_programs()


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
