"""Arrays of a process as parts of arrays over all processes, which is how orbax saves and restores them together.

Nothing is copied from process to process. With a single process all of this is the identity.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, Sharding
from jaxtyping import PyTree

from experiments.build.processes import several
from experiments.train.devices import AXIS, EACH, host_memory


def of_all(tree: PyTree) -> PyTree:
    """What leads with the seeds, or lanes, of this process as what leads with those of all, process after process.

    What has no axes is the same in all, and stays as it is.
    """
    return jax.tree.map(_of_all, tree) if several() else tree


def shapes_of_all(tree: PyTree) -> PyTree:
    """The shapes of `of_all(tree)`, and where they lie, from the arrays of this process or from their shapes."""
    return jax.tree.map(_shape_of_all, tree) if several() else tree


def of_this(tree: PyTree, like: PyTree) -> PyTree:
    """The part of this process, placed as in `like`, which are its arrays or their shapes: `of_all` undone."""
    return jax.tree.map(_of_this, tree, like) if several() else tree


def _of_all(leaf: Any) -> Any:
    if not np.ndim(leaf):
        return leaf
    own = _devices(leaf.sharding, leaf.ndim) if isinstance(leaf, jax.Array) else None
    if own is None:  # the host's array, or part of one that lies over several devices
        leaf, own = jax.device_put(leaf, host_memory()), [host_memory()]
    parts = [shard.data for shard in leaf.addressable_shards]
    return jax.make_array_from_single_device_arrays(_shape(leaf.shape), _over_all(own), parts)


def _shape_of_all(leaf: Any) -> Any:
    if not leaf.shape:
        return leaf
    own = None if isinstance(leaf, np.ndarray) else _devices(leaf.sharding, len(leaf.shape))
    return jax.ShapeDtypeStruct(_shape(leaf.shape), leaf.dtype, sharding=_over_all(own or [host_memory()]))


def _of_this(leaf: Any, like: Any) -> Any:
    if not np.ndim(leaf):
        return leaf
    parts = [shard.data for shard in leaf.addressable_shards]
    if isinstance(like, np.ndarray):
        return np.asarray(parts[0])
    return jax.make_array_from_single_device_arrays(like.shape, like.sharding, parts)


def _shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[0] * jax.process_count(), *shape[1:])


def _over_all(own: list[Any]) -> NamedSharding:
    """Over the devices that each process has in the place of those of this one."""
    backend = own[0].platform
    here = jax.local_devices(backend=backend)
    places = [here.index(device) for device in own]
    devices = [jax.local_devices(i, backend)[place] for i in range(jax.process_count()) for place in places]
    return NamedSharding(Mesh(np.array(devices), (AXIS,)), EACH)


def _devices(sharding: Sharding, axes: int) -> list[Any] | None:
    """The devices on which equally many of the seeds lie, in their order; None where they lie otherwise."""
    if len(sharding.device_set) == 1:
        return list(sharding.device_set)
    mesh = getattr(sharding, "mesh", None)
    if isinstance(mesh, Mesh) and sharding.is_equivalent_to(NamedSharding(mesh, EACH), axes):
        return list(mesh.devices.flat)
    return None
