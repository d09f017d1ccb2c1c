"""Many environments side by side, on the host and on the device. May import: envs.types, ne_jax."""
