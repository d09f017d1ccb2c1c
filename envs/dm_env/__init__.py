"""Kind dm_env: anything with dm_env's interface, on the host. May import: envs.episodes, envs.types."""
