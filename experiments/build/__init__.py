"""From a config to the parts of a run, and every check. May import: experiments.train, agents, envs, ne_jax."""
