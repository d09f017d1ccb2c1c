"""Pictures in JAX: a 2-D rasteriser, and a ray caster for MuJoCo models. May import: envs.types, ne_jax (`on_cpu`)."""
