"""Rules of plasticity, a file per family, a function per method. May import: ne_jax.rule and what lies beside it."""
