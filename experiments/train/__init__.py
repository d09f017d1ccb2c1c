"""One step, the loops, tasks in turn, evaluation. Reads no config. May import: agents, envs, ne_jax."""
