"""Environments behind one contract (`envs.types`), a folder per kind. May import: ne_jax (its `cond_any` alone)."""
