"""Kind mjx: dm_control's tasks with MJX physics on the device. May import: envs.mujoco, envs.render, envs.types."""
