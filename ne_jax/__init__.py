"""Plasticity for any pytree of parameters: networks that grow, prune and stay sparse inside any optax optimiser."""

from ne_jax.activity import dormancy, dormant, dormant_ratio, fau, flax_activity, incoming, outgoing, units_of
from ne_jax.control import cond_any
from ne_jax.evolution import Evolution, Evolved, Network, neuroplastic, static
from ne_jax.schedules import DensitySchedule, constant, cosine_growth, counts_at, linear_growth
from ne_jax.sparsity import (
    apply,
    counts,
    density,
    erdos_renyi,
    kernels,
    kernels_under,
    leaves_by_path,
    nonzero,
    replace_leaves,
    select,
    sparse_shapes,
    sparsify,
    uniform,
)
from ne_jax.transform import PlasticState, masks, plastic

__all__ = [
    "DensitySchedule",
    "Evolution",
    "Evolved",
    "Network",
    "PlasticState",
    "apply",
    "cond_any",
    "constant",
    "cosine_growth",
    "counts",
    "counts_at",
    "density",
    "dormancy",
    "dormant",
    "dormant_ratio",
    "erdos_renyi",
    "fau",
    "flax_activity",
    "incoming",
    "kernels",
    "kernels_under",
    "leaves_by_path",
    "linear_growth",
    "masks",
    "neuroplastic",
    "nonzero",
    "outgoing",
    "plastic",
    "replace_leaves",
    "select",
    "sparse_shapes",
    "sparsify",
    "static",
    "uniform",
    "units_of",
]
