"""Kind gymnasium: Gymnasium's tasks on the host. May import: envs.mujoco, envs.types."""
