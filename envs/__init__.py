"""Environments behind one contract (`envs.types`), a folder per kind; `envs.registry` finds a kind by its name.

Files may import in this order: types, names, images, episodes and physics_schedule; render; mujoco; the kinds, none of
which imports another; pools and registry. Beside these all may import settings, pools and render ne_jax
(its `cond_any` and `on_cpu`).
"""
