"""What the replay of one seed holds, and how scenes come into it.

One slot per scene, in the order of arrival: the first scene of an episode (step 0) takes a slot, so does its last. A
slot keeps the scene with the action and reward that led to it, whether it is terminal, and its step within the episode.
A *transition* starts at a slot whose successor is one step later; the ring keeps the list of those, so that sampling
is exactly uniform over transitions and never crosses an episode.

A seed may have several environments side by side, which share the capacity: each has a ring of its own along the axis
`envs`, and they fill at the same time. Seeds are a leading axis that loops `vmap` over.

A *dynamic* replay also keeps what the policy would have done without noise, and can forget its oldest transitions
before their slots are needed: they stay where they are, and are no longer sampled.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, no_type_check

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Key, PyTree, Shaped

from agents.types import Obs
from ne_jax.numbers import Number

Scene = PyTree[Shaped[Array, "..."]]
"""What an observation is drawn from."""


class ReplaySettings(NamedTuple):
    """What stays the same throughout a run; `make_replay` says what each is, and checks it."""

    observe: Callable[[Scene], Obs]
    stack: int
    nstep: int
    discount: Number
    reward_scale: Number
    vary: Callable[[Key[Array, ""], Scene], Scene] | None
    num_envs: int
    size: int
    """Slots of each environment."""


@no_type_check  # see agents/types.py
@struct.dataclass
class ReplayState:
    """The replay of one seed. Slots and transitions are counted from the start of the run, modulo `size`."""

    scene: Scene
    action: Float[Array, "envs size actions"]
    reward: Float[Array, "envs size"]
    terminal: Bool[Array, "envs size"]
    episode_step: Int[Array, "envs size"]
    start: Int[Array, "envs size"]
    """Slot number where an environment's m-th transition starts."""
    slots: Int[Array, " envs"]
    """Scenes written so far."""
    transitions: Int[Array, " envs"]
    """Transitions completed so far."""
    oldest: Int[Array, " envs"]
    """The first transition that is whole: the slots before it are gone, or needed to complete its stack."""
    mean: Float[Array, "envs size actions"] | None = None
    """Of a dynamic replay: the policy's mean where `action` was taken."""
    forgotten: Int[Array, " envs"] | None = None
    """Of a dynamic replay: the first transition that is not forgotten."""


class Entry(NamedTuple):
    """What arrives from each environment: a scene, how it was reached, its step within the episode. A reset has step 0,
    and action and reward zero.

    `mean` is for a dynamic replay: what the policy would have done without noise in place of `action`.
    """

    scene: Scene
    action: Float[Array, "envs actions"]
    reward: Float[Array, " envs"]
    terminal: Bool[Array, " envs"]
    episode_step: Int[Array, " envs"]
    mean: Float[Array, "envs actions"] | None = None


def init(scene: PyTree, action_dim: int, num_envs: int, size: int, dynamic: bool) -> ReplayState:
    """An empty state, for scenes of the shapes and types of `scene`."""

    def per_slot(*shape: int, dtype: DTypeLike = jnp.float32) -> Shaped[Array, "envs size ..."]:
        return jnp.zeros((num_envs, size, *shape), dtype)

    def count() -> Int[Array, " envs"]:  # an array of its own each time, so that the state can be donated
        return jnp.zeros(num_envs, jnp.int32)

    return ReplayState(
        scene=jax.tree.map(lambda leaf: per_slot(*leaf.shape, dtype=leaf.dtype), scene),
        action=per_slot(action_dim),
        reward=per_slot(),
        terminal=per_slot(dtype=bool),
        episode_step=per_slot(dtype=jnp.int32),
        start=per_slot(dtype=jnp.int32),
        slots=count(),
        transitions=count(),
        oldest=count(),
        mean=per_slot(action_dim) if dynamic else None,
        forgotten=count() if dynamic else None,
    )


def nbytes(tree: PyTree) -> int:
    """Bytes that the arrays (or shapes) of `tree` take."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def add(settings: ReplaySettings, state: ReplayState, entry: Entry, keep: Bool[Array, " envs"]) -> ReplayState:
    """The state with `entry` appended to the rings of the environments where `keep` holds."""

    def one(ring: ReplayState, entry: Entry, keep: Bool[Array, ""]) -> ReplayState:
        return _append(settings, ring, entry, keep)

    return jax.vmap(one)(state, entry, keep)


def _append(settings: ReplaySettings, ring: ReplayState, entry: Entry, keep: Bool[Array, ""]) -> ReplayState:
    """`add` for one environment, whose arrays have no leading axis."""
    size = settings.size
    # The oldest slot with a whole stack behind it gives way; it counted only if its successor was one step older.
    leaving = ring.slots - size + settings.stack - 1
    episode_step = ring.episode_step[(leaving + 1) % size]
    left = keep & (leaving >= 0) & (episode_step > 0)
    completes = keep & (entry.episode_step > 0)
    # No step is negative, so this adds nothing. But it has the read above come before the write below, without
    # which XLA copies all of them in every step.
    slot = ring.slots % size + jnp.minimum(episode_step, 0)

    # An index beyond the end is dropped: cheaper than a branch that would copy the replay.
    def put(buffer: Array, value: Array, index: Int[Array, ""], when: Bool[Array, ""]) -> Array:
        return buffer.at[jnp.where(when, index, size)].set(value.astype(buffer.dtype), mode="drop")

    stored = Entry(ring.scene, ring.action, ring.reward, ring.terminal, ring.episode_step, ring.mean)
    stored = jax.tree.map(lambda buffer, value: put(buffer, jnp.asarray(value), slot, keep), stored, entry)
    return ReplayState(
        **stored._asdict(),
        start=put(ring.start, ring.slots - 1, ring.transitions % size, completes),
        slots=ring.slots + keep,
        transitions=ring.transitions + completes,
        oldest=ring.oldest + left,
        forgotten=ring.forgotten,
    )


def first(state: ReplayState) -> Int[Array, " envs"]:
    """The first transition of each environment that can be sampled."""
    return state.oldest if state.forgotten is None else jnp.maximum(state.oldest, state.forgotten)


def ready_each(state: ReplayState) -> Int[Array, " envs"]:
    """How many transitions of each environment can be sampled."""
    return state.transitions - first(state)


def ready(state: ReplayState) -> Int[Array, ""]:
    """How many transitions can be sampled."""
    return ready_each(state).sum()
