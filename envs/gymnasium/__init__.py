"""Kind gymnasium: Gymnasium's environments on the host. May import: envs.mujoco, envs.episodes, envs.types.

tasks.py finds an id and says why it cannot be used, mujoco.py has the MuJoCo tasks, env.py all others and the kind.
"""
