"""Kind dmc: the dm_control suite on the host. May import: envs.mujoco, envs.render, envs.types."""
