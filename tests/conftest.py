"""Settings that must be in place before jax is imported."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests compile much and compute little: with optimisation, compiling takes four times as long.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
