"""Algorithms as pure functions of one seed, and what they share. May import: ne_jax."""
