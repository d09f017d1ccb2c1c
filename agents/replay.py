"""A replay ring that stores each scene once and builds stacks and n-step returns when it is sampled.

One slot per scene, in the order of arrival: the first scene of an episode (age 0) takes a slot, so does its last. A
slot keeps the scene with the action and reward that led to it, whether it is terminal, and its age in steps since the
reset. A *transition* starts at a slot whose successor is one step older; the ring keeps the list of those, so that
sampling is exactly uniform over transitions and never crosses an episode.

All functions are pure and treat one ring; seeds are a leading axis that loops `vmap` over.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from agents.types import Transition

Scene = Any
Obs = Array


@struct.dataclass
class Ring:
    """The replay of one seed. Slots and transitions are counted from the start of the run, modulo the capacity."""

    scene: PyTree[Array]
    action: Float[Array, "capacity actions"]
    reward: Float[Array, " capacity"]
    terminal: Bool[Array, " capacity"]
    age: Int[Array, " capacity"]
    start: Int[Array, " capacity"]
    """Slot number where the m-th transition starts."""
    slots: Int[Array, ""]
    """Scenes written so far."""
    transitions: Int[Array, ""]
    """Transitions completed so far."""
    oldest: Int[Array, ""]
    """The first transition that can be sampled: the slots before it are gone, or needed to complete its stack."""


class Entry(NamedTuple):
    """What arrives in the ring: a scene, how it was reached, and its age. A reset has age 0, action and reward zero."""

    scene: Scene
    action: Float[Array, " actions"]
    reward: Float[Array, ""]
    terminal: Bool[Array, ""]
    age: Int[Array, ""]


class Replay(NamedTuple):
    """A replay of fixed settings.

    init(): an empty ring.
    add(ring, entry, keep): the ring with `entry` appended, or untouched where `keep` is False.
    sample(ring, key, batch, span): `batch` transitions, uniform over the share `span` of the ring, as it is ordered by
        age: (0, 1) is everything, (0, 0.3) the oldest three tenths.
    ready(ring): how many transitions can be sampled.
    nbytes: bytes of one ring.
    """

    init: Callable[[], Ring]
    add: Callable[[Ring, Entry, Bool[Array, ""] | bool], Ring]
    sample: Callable[..., Transition]
    ready: Callable[[Ring], Int[Array, ""]]
    nbytes: int


def make_replay(
    scene: PyTree,
    observe: Callable[[Scene], Obs],
    action_dim: int,
    *,
    capacity: int,
    stack: int,
    nstep: int,
    discount: float,
) -> Replay:
    """A replay of `capacity` scenes whose transitions have `stack` observations side by side and `nstep`-step returns.

    Args:
        scene: shapes and dtypes of one scene (`jax.ShapeDtypeStruct` leaves).
        observe: one scene to one observation; stacking concatenates along the last axis, oldest first.
        discount: gamma, per agent step.

    Raises:
        ValueError: a setting is out of range, or the ring could not hold a single transition.
    """
    _validate(capacity, stack, nstep, discount)
    shapes = _shapes(scene, action_dim, capacity)
    horizon = jnp.arange(1, nstep + 1)

    def init() -> Ring:
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def add(ring: Ring, entry: Entry, keep: Bool[Array, ""] | bool = True) -> Ring:
        keep = jnp.asarray(keep)
        # The oldest slot with a whole stack behind it gives way; it counted only if its successor was one step older.
        leaving = ring.slots - capacity + stack - 1
        left = keep & (leaving >= 0) & (ring.age[(leaving + 1) % capacity] > 0)
        completes = keep & (entry.age > 0)

        # An index beyond the end is dropped: cheaper than a branch that would copy the ring.
        def put(buffer: Array, value: Array, index: Array, when: Array) -> Array:
            return buffer.at[jnp.where(when, index, capacity)].set(value.astype(buffer.dtype), mode="drop")

        slot = ring.slots % capacity
        stored = Entry(ring.scene, ring.action, ring.reward, ring.terminal, ring.age)
        stored = jax.tree.map(lambda buffer, value: put(buffer, jnp.asarray(value), slot, keep), stored, entry)
        return Ring(
            **stored._asdict(),
            start=put(ring.start, ring.slots - 1, ring.transitions % capacity, completes),
            slots=ring.slots + keep,
            transitions=ring.transitions + completes,
            oldest=ring.oldest + left,
        )

    def ready(ring: Ring) -> Int[Array, ""]:
        return ring.transitions - ring.oldest

    def observation(ring: Ring, slot: Int[Array, ""]) -> Obs:
        """The stack that ends at `slot`; before the reset, the episode's first scene stands in."""
        back = jnp.minimum(jnp.arange(stack - 1, -1, -1), ring.age[slot % capacity])
        scenes = jax.tree.map(lambda leaf: leaf[(slot - back) % capacity], ring.scene)
        frames = jax.vmap(observe)(scenes)
        return jnp.concatenate(list(frames), axis=-1)

    def transition(ring: Ring, slot: Int[Array, ""]) -> Transition:
        later = slot + horizon
        at = later % capacity
        # Ages rise by one within an episode, so the first slot that breaks the row ends the sum; so does the newest.
        held = (ring.age[at] == ring.age[slot % capacity] + horizon) & (later < ring.slots)
        length = jnp.cumprod(held.astype(jnp.int32)).sum()
        inside = horizon <= length
        rewards = jnp.where(inside, ring.reward[at] * discount ** (horizon - 1), 0).sum()
        last = slot + length
        terminal = ring.terminal[last % capacity]
        return Transition(
            obs=observation(ring, slot),
            action=ring.action[(slot + 1) % capacity],
            reward=rewards,
            discount=jnp.where(terminal, 0.0, discount ** length.astype(jnp.float32)),
            next_obs=observation(ring, last),
        )

    def sample(
        ring: Ring, key: Key[Array, ""], batch: int, span: tuple[float, float] | Float[Array, "2"] = (0.0, 1.0)
    ) -> Transition:
        low, high = (jnp.floor(ready(ring) * share).astype(jnp.int32) for share in (span[0], span[1]))
        number = ring.oldest + jax.random.randint(key, (batch,), low, jnp.maximum(high, low + 1))
        return jax.vmap(transition, in_axes=(None, 0))(ring, ring.start[number % capacity])

    return Replay(init, add, sample, ready, nbytes(shapes))


def nbytes(tree: PyTree) -> int:
    """Bytes that the arrays (or shapes) of `tree` take."""
    return sum(math.prod(leaf.shape) * jnp.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree))


def _shapes(scene: PyTree, action_dim: int, capacity: int) -> Ring:
    def array(*shape: int, dtype: Any = jnp.float32) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype)

    count = array(dtype=jnp.int32)
    return Ring(
        scene=jax.tree.map(lambda leaf: array(capacity, *leaf.shape, dtype=leaf.dtype), scene),
        action=array(capacity, action_dim),
        reward=array(capacity),
        terminal=array(capacity, dtype=bool),
        age=array(capacity, dtype=jnp.int32),
        start=array(capacity, dtype=jnp.int32),
        slots=count,
        transitions=count,
        oldest=count,
    )


def _validate(capacity: int, stack: int, nstep: int, discount: float) -> None:
    for name, value in (("env.frame_stack", stack), ("replay.nstep", nstep)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if not 0 <= discount <= 1:
        raise ValueError(f"replay.discount must lie in [0, 1], got {discount}")
    if capacity < stack + nstep + 1:
        raise ValueError(f"replay.capacity={capacity} cannot hold one transition of {stack} frames and {nstep} steps")
