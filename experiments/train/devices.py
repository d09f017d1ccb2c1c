"""Seeds over the devices of one machine: each device trains its share of them, and they exchange nothing.

Every device has equally many places. Where the seeds are fewer than the places, the first seeds are trained twice, at
no cost in time, for a device that is full takes as long anyway. Nobody outside of the loops sees these doubles: `drop`
and `numbers` leave them out of what is saved and logged, `fill` makes them anew.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding
from jaxtyping import Array, PyTree

from experiments.train.step import Steps

AXIS = "seeds"
EACH, ALL = PartitionSpec(AXIS), PartitionSpec()


def rows_of(array: Array, begin: int, end: int) -> Array:
    """Rows of an array that may lie over devices, on the first that has some: each device's part is read by itself.

    Indexing such an array is a program in which the devices meet. Where a run has several processes even those of one
    meet by gloo, and two such programs at once can wait for each other for ever.
    """
    parts = []
    for shard in sorted(array.addressable_shards, key=lambda shard: shard.index[0].indices(len(array))):
        first, last, _ = shard.index[0].indices(len(array))
        if max(begin, first) < min(end, last):
            parts.append(shard.data[max(begin, first) - first : min(end, last) - first])
            begin = last
    return parts[0] if len(parts) == 1 else jnp.concatenate(jax.device_put(parts, parts[0].device))


@dataclass(frozen=True)
class SeedDevices:
    """Where the seeds of a run are; without a mesh all are on the one device that jax takes by itself."""

    seeds: int = 0
    """That are trained."""
    mesh: Mesh | None = None

    @property
    def count(self) -> int:
        """The devices."""
        return self.mesh.size if self.mesh else 1

    @property
    def places(self) -> int:
        """Seeds that are computed, with the doubles."""
        return self.count * -(-self.seeds // self.count)

    @property
    def own_memories(self) -> bool:
        """Whether each device has a memory of its own; parts of a CPU share one."""
        return self.mesh is not None and self.mesh.devices.flat[0].platform != "cpu"

    @property
    def in_one_memory(self) -> int:
        """Seeds, with the doubles, whose replays share a memory."""
        return self.places // self.count if self.own_memories else self.places

    def program(self, fn: Callable[..., Any], shared: int = 0, donate: tuple[int, ...] = ()) -> Callable[..., Any]:
        """`fn` of seeds side by side as the jitted function of all, on every device for the seeds that it has.

        Args:
            fn: every array that it takes or returns leads with seeds, or with the lanes of seeds.
            shared: of its last arguments, which every device gets as they are.
            donate: places of the arguments whose memory the results may take.
        """
        return jax.jit(self.mapped(fn, shared), donate_argnums=donate)

    def mapped(self, fn: Callable[..., Any], shared: int = 0) -> Callable[..., Any]:
        """As `program`, for use inside another."""
        if self.mesh is None:
            return fn

        def on_all(*args: Any) -> Any:
            specs = (EACH,) * (len(args) - shared) + (ALL,) * shared
            return jax.shard_map(fn, mesh=self.mesh, in_specs=specs, out_specs=EACH, check_vma=False)(*args)

        return on_all

    def fill(self, tree: PyTree) -> PyTree:
        """What leads with seeds, or with lanes, put onto the devices, doubles included."""
        if self.mesh is None:
            return tree
        return self.place(jax.tree.map(lambda leaf: self._doubled(leaf, len(leaf) // self.seeds), tree))

    def place(self, tree: PyTree) -> PyTree:
        """What has its doubles, put onto the devices."""
        return jax.device_put(tree, NamedSharding(self.mesh, EACH)) if self.mesh else tree

    def places_of(self, shapes: PyTree) -> PyTree:
        """Shapes of what leads with places, with where `program` leaves it."""
        if self.mesh is None:
            return shapes
        place = NamedSharding(self.mesh, EACH)
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes)

    def drop(self, tree: PyTree) -> PyTree:
        """The same without the doubles. Where there are any, in the host's memory: it is as large as all replays."""
        if self.mesh is None or self.seeds == self.places:
            return tree
        return jax.tree.map(
            lambda leaf: jax.device_put(leaf, host_memory())[: len(leaf) // self.places * self.seeds], tree
        )

    def numbers(self, tree: PyTree) -> PyTree:
        """As `drop`, of NumPy's arrays; for what is small."""
        found = jax.device_get(tree)
        if self.mesh is None:
            return found
        return jax.tree.map(lambda leaf: leaf[: len(leaf) // self.places * self.seeds], found)

    def lanes(self, tree: PyTree, each: int) -> PyTree:
        """Inside a program: what leads with `each` lanes of every seed, doubles included if they are not yet."""
        return jax.tree.map(lambda leaf: leaf if len(leaf) == self.places * each else self._doubled(leaf, each), tree)

    def shapes(self, tree: PyTree) -> PyTree:
        """Of what leads with places, the shapes without doubles, and where a checkpoint is to put it."""
        if self.mesh is None:
            place: Any = SingleDeviceSharding(jax.local_devices()[0])
        elif self.seeds == self.places:
            place = NamedSharding(self.mesh, EACH)
        else:
            place = SingleDeviceSharding(host_memory())

        def shape(leaf: Any) -> jax.ShapeDtypeStruct:
            length, *rest = leaf.shape
            if self.mesh:
                length = length // self.places * self.seeds
            return jax.ShapeDtypeStruct((length, *rest), leaf.dtype, sharding=place)

        return jax.tree.map(shape, tree)

    def _doubled(self, leaf: Any, each: int) -> Any:
        extra = (self.places - self.seeds) * each
        return jnp.concatenate([leaf, leaf[:extra]]) if extra else leaf


def host_memory() -> Any:
    """The host's memory; where JAX_PLATFORMS leaves it out, that of the first device."""
    with suppress(RuntimeError):
        return jax.local_devices(backend="cpu")[0]
    return jax.local_devices()[0]


ONE_DEVICE = SeedDevices()
"""All seeds where jax puts them, however many they are."""


def spread_steps(steps: Steps, devices: SeedDevices, num_envs: int) -> Steps:
    """The programs of a run, each on every device.

    Scenes and outcomes may come from the host, of the seeds alone. What is measured, and greedy actions, go back there.
    """
    if devices.mesh is None:
        return steps
    program, lanes = devices.program, partial(devices.lanes, each=num_envs)
    init, enter, greedy, restart = (devices.mapped(fn) for fn in (steps.init, steps.enter, steps.greedy, steps.restart))
    remember = devices.mapped(steps.remember, shared=1)
    measure = program(steps.measure, shared=1)
    greedily = jax.jit(lambda state, obs, numbers: greedy(state, devices.lanes(obs, 1), numbers))
    initial = program(lambda keys, numbers, task: steps.initial(keys, task, numbers), shared=1)
    return Steps(
        init=jax.jit(lambda keys, scene, numbers=None: init(keys, lanes(scene), numbers)),
        act=program(steps.act, shared=1),
        learn=program(steps.learn, shared=1, donate=(0,)),
        remember=jax.jit(
            lambda rollout, choice, outcome, now: remember(rollout, choice, lanes(outcome), now), donate_argnums=0
        ),
        enter=jax.jit(lambda rollout, scene: enter(rollout, lanes(scene)), donate_argnums=0),
        renew=program(steps.renew, shared=1, donate=(0,)),
        restart=jax.jit(lambda learner, keys, again: restart(learner, keys, devices.lanes(again, 1)), donate_argnums=0),
        forget=program(steps.forget) if steps.forget else None,
        initial=lambda keys, task, numbers=None: initial(keys, numbers, task),
        measure=lambda *args: devices.numbers(measure(*args)),
        greedy=lambda state, obs, numbers=None: devices.numbers(greedily(state, obs, numbers)),
        observe=steps.observe,
    )
