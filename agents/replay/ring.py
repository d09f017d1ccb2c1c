"""A replay that stores each scene once and builds stacks and n-step returns when it is sampled.

One slot per scene, in the order of arrival: the first scene of an episode (step 0) takes a slot, so does its last. A
slot keeps the scene with the action and reward that led to it, whether it is terminal, and its step within the episode.
A *transition* starts at a slot whose successor is one step later; the ring keeps the list of those, so that sampling
is exactly uniform over transitions and never crosses an episode.

A seed with several environments side by side has a *lane* for each, which fill at the same time and share the
capacity. All functions are pure and treat the replay of one seed; seeds are a leading axis that loops `vmap` over.

A *dynamic* replay also keeps what the policy would have done without noise, and can forget its oldest transitions
before their slots are needed: they stay where they are, and are no longer sampled.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key, PyTree, Shaped

from agents.types import Transition

Scene = Any
Obs = Array


@struct.dataclass
class ReplayState:
    """The replay of one seed. Slots and transitions are counted from the start of the run, modulo the lane's size."""

    scene: PyTree[Array]
    action: Float[Array, "lanes size actions"]
    reward: Float[Array, "lanes size"]
    terminal: Bool[Array, "lanes size"]
    episode_step: Int[Array, "lanes size"]
    start: Int[Array, "lanes size"]
    """Slot number where the m-th transition of a lane starts."""
    slots: Int[Array, " lanes"]
    """Scenes written so far."""
    transitions: Int[Array, " lanes"]
    """Transitions completed so far."""
    oldest: Int[Array, " lanes"]
    """The first transition that is whole: the slots before it are gone, or needed to complete its stack."""
    mean: Float[Array, "lanes size actions"] | None = None
    """Of a dynamic replay: the policy's mean where `action` was taken."""
    forgotten: Int[Array, " lanes"] | None = None
    """Of a dynamic replay: the first transition that is not forgotten."""


class Entry(NamedTuple):
    """What arrives in each lane: a scene, how it was reached, its step within the episode. A reset has step 0, and
    action and reward zero.

    `mean` is for a dynamic replay: what the policy would have done without noise in place of `action`.
    """

    scene: Scene
    action: Float[Array, "lanes actions"]
    reward: Float[Array, " lanes"]
    terminal: Bool[Array, " lanes"]
    episode_step: Int[Array, " lanes"]
    mean: Float[Array, "lanes actions"] | None = None


class Past(NamedTuple):
    """The oldest transitions as the policy met them; where `held` does not hold there are no more."""

    obs: Obs
    mean: Float[Array, "batch actions"]
    held: Bool[Array, " batch"]


class Replay(NamedTuple):
    """A replay of fixed settings.

    init(): an empty state.
    add(state, entry, keep): the state with `entry` appended to the lanes where `keep` holds.
    sample(state, key, batch, span, horizon): `batch` transitions, uniform over the share `span` of each lane, ordered
        from old to new: (0, 1) is everything, (0, 0.3) the oldest three tenths. Returns sum `nstep` rewards, or the
        `horizon` given, 1 to nstep, which may be traced.
    ready(state): how many transitions can be sampled.
    past(state, places): the transitions at these places from old to new, 0 the oldest; lanes take turns.
        Dynamic replays only.
    forget(state, share, least): without the oldest `share` of each lane, as far as at least `least` transitions remain.
        Dynamic replays only.
    nbytes: bytes of one state.
    """

    init: Callable[[], ReplayState]
    add: Callable[[ReplayState, Entry, Bool[Array, " lanes"]], ReplayState]
    sample: Callable[..., Transition]
    ready: Callable[[ReplayState], Int[Array, ""]]
    past: Callable[[ReplayState, Int[Array, " batch"]], Past]
    forget: Callable[[ReplayState, Any, int], ReplayState]
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
    lanes: int = 1,
    reward_scale: float = 1.0,
    vary: Callable[[Key[Array, ""], Scene], Scene] | None = None,
    dynamic: bool = False,
) -> Replay:
    """A replay of `capacity` scenes whose transitions have `stack` observations side by side and `nstep`-step returns.

    Args:
        scene: shapes and dtypes of one scene as it is stored (`jax.ShapeDtypeStruct` leaves).
        observe: one stored scene to one observation; stacking concatenates along the last axis, oldest first.
        discount: gamma, per agent step.
        lanes: environments that fill it side by side; each has `capacity // lanes` scenes.
        reward_scale: what rewards are multiplied with when they are sampled.
        vary: changes scenes before they are observed, all of one sampled transition in the same way.
        dynamic: keep the policy's means, so that the oldest data can be forgotten when the policy has left them.

    Raises:
        ValueError: a setting is out of range, or a lane could not hold a single transition.
    """
    _validate(capacity, stack, nstep, discount, lanes)
    size = capacity // lanes
    shapes = _shapes(scene, action_dim, lanes, size, dynamic)
    steps = jnp.arange(1, nstep + 1)

    def init() -> ReplayState:
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def add_to_lane(replay_state: ReplayState, entry: Entry, keep: Bool[Array, ""]) -> ReplayState:
        # The oldest slot with a whole stack behind it gives way; it counted only if its successor was one step older.
        leaving = replay_state.slots - size + stack - 1
        episode_step = replay_state.episode_step[(leaving + 1) % size]
        left = keep & (leaving >= 0) & (episode_step > 0)
        completes = keep & (entry.episode_step > 0)
        # No step is negative, so this adds nothing. But it has the read above come before the write below, without
        # which XLA copies all of them in every step.
        slot = replay_state.slots % size + jnp.minimum(episode_step, 0)

        # An index beyond the end is dropped: cheaper than a branch that would copy the replay.
        def put(buffer: Array, value: Array, index: Array, when: Array) -> Array:
            return buffer.at[jnp.where(when, index, size)].set(value.astype(buffer.dtype), mode="drop")

        stored = Entry(
            replay_state.scene,
            replay_state.action,
            replay_state.reward,
            replay_state.terminal,
            replay_state.episode_step,
            replay_state.mean,
        )
        stored = jax.tree.map(lambda buffer, value: put(buffer, jnp.asarray(value), slot, keep), stored, entry)
        return ReplayState(
            **stored._asdict(),
            start=put(replay_state.start, replay_state.slots - 1, replay_state.transitions % size, completes),
            slots=replay_state.slots + keep,
            transitions=replay_state.transitions + completes,
            oldest=replay_state.oldest + left,
            forgotten=replay_state.forgotten,
        )

    def first(replay_state: ReplayState) -> Int[Array, " lanes"]:
        return (
            replay_state.oldest
            if replay_state.forgotten is None
            else jnp.maximum(replay_state.oldest, replay_state.forgotten)
        )

    def lane_ready(replay_state: ReplayState) -> Int[Array, " lanes"]:
        return replay_state.transitions - first(replay_state)

    def look(
        replay_state: ReplayState, lane: Int[Array, ""], slots: Int[Array, " slots"], key: Key[Array, ""] | None = None
    ) -> Obs:
        """What was seen there; with a key, as `vary` changes it."""
        scenes = jax.tree.map(lambda leaf: leaf[lane, slots % size], replay_state.scene)
        if vary is not None and key is not None:
            scenes = jax.vmap(vary, in_axes=(None, 0))(key, scenes)
        return jax.vmap(observe)(scenes)

    def stacked(replay_state: ReplayState, lane: Int[Array, ""], end: Int[Array, ""]) -> Int[Array, " stack"]:
        """The slots of the stack that ends there; before the reset, the episode's first scene stands in."""
        return end - jnp.minimum(jnp.arange(stack - 1, -1, -1), replay_state.episode_step[lane, end % size])

    def transition(
        replay_state: ReplayState,
        lane: Int[Array, ""],
        slot: Int[Array, ""],
        horizon: Int[Array, ""],
        key: Key[Array, ""],
    ) -> Transition:
        later = slot + steps
        at = later % size
        # Ages rise by one within an episode, so the first slot that breaks the row ends the sum; so does the newest.
        held = (replay_state.episode_step[lane, at] == replay_state.episode_step[lane, slot % size] + steps) & (
            later < replay_state.slots[lane]
        )
        length = jnp.minimum(jnp.cumprod(held.astype(jnp.int32)).sum(), horizon)
        inside = steps <= length
        rewards = jnp.where(inside, replay_state.reward[lane, at] * discount ** (steps - 1), 0).sum() * reward_scale
        last = slot + length
        terminal = replay_state.terminal[lane, last % size]

        ends = [stacked(replay_state, lane, end) for end in (slot, last)]
        if nstep < stack:  # the stacks overlap: see the whole window once
            start = slot - stack + 1
            window = look(replay_state, lane, start + jnp.arange(stack + nstep), key)
            obs, next_obs = (jax.tree.map(lambda leaf, at=slots: leaf[at - start], window) for slots in ends)
        else:
            obs, next_obs = (look(replay_state, lane, slots, key) for slots in ends)
        return Transition(
            obs=side_by_side(obs),
            action=replay_state.action[lane, (slot + 1) % size],
            reward=rewards,
            discount=jnp.where(terminal, 0.0, discount ** length.astype(jnp.float32)),
            next_obs=side_by_side(next_obs),
        )

    def sample(
        replay_state: ReplayState,
        key: Key[Array, ""],
        batch: int,
        span: tuple[float, float] | Float[Array, "2"] = (0.0, 1.0),
        horizon: Int[Array, ""] | int = nstep,
    ) -> Transition:
        ready = lane_ready(replay_state)
        low, high = (jnp.floor(ready * share).astype(jnp.int32) for share in (span[0], span[1]))
        high = jnp.minimum(high, ready)  # beyond 2**24 scenes the product is rounded
        width = jnp.where(ready > 0, jnp.maximum(high - low, 1), 0)
        ends = jnp.cumsum(width)
        number = jax.random.randint(key, (batch,), 0, jnp.maximum(ends[-1], 1))
        lane = jnp.minimum((number[:, None] >= ends).sum(axis=1), lanes - 1)
        start = (first(replay_state) + low - (ends - width))[lane] + number
        slot = replay_state.start[lane, start % size]
        looks = jax.random.split(jax.random.fold_in(key, 1), batch)
        return jax.vmap(transition, in_axes=(None, 0, 0, None, 0))(
            replay_state, lane, slot, jnp.asarray(horizon), looks
        )

    def past(replay_state: ReplayState, places: Int[Array, " batch"]) -> Past:
        means = _dynamic(replay_state.mean)

        def one(place: Int[Array, ""]) -> Past:
            lane, number = place % lanes, place // lanes
            slot = replay_state.start[lane, (first(replay_state)[lane] + number) % size]
            obs = side_by_side(look(replay_state, lane, stacked(replay_state, lane, slot)))
            return Past(obs, means[lane, (slot + 1) % size], number < lane_ready(replay_state)[lane])

        return jax.vmap(one)(places)

    def forget(replay_state: ReplayState, share: Float[Array, ""] | float, least: int) -> ReplayState:
        _dynamic(replay_state.forgotten)
        ready = lane_ready(replay_state)
        drop = jnp.floor(ready * share).astype(jnp.int32)
        # Whole numbers throughout: what may go in all is given to one lane after the other.
        may_go = jnp.maximum(ready.sum() - least, 0) - (jnp.cumsum(drop) - drop)
        return replace(replay_state, forgotten=first(replay_state) + jnp.clip(may_go, 0, drop))

    def ready(replay_state: ReplayState) -> Int[Array, ""]:
        return lane_ready(replay_state).sum()

    return Replay(init, jax.vmap(add_to_lane), sample, ready, past, forget, nbytes(shapes))


def side_by_side(frames: Shaped[Array, "stack *frame"]) -> Obs:
    """What an agent sees of a stack of observations: all in the last axis, oldest first."""
    return jnp.concatenate(list(frames), axis=-1)


def nbytes(tree: PyTree) -> int:
    """Bytes that the arrays (or shapes) of `tree` take."""
    return sum(math.prod(leaf.shape) * jnp.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree))


def _dynamic(array: Array | None) -> Array:
    if array is None:
        raise ValueError("only a dynamic replay knows its past and forgets; make it with make_replay(dynamic=True)")
    return array


def _shapes(scene: PyTree, action_dim: int, lanes: int, size: int, dynamic: bool) -> ReplayState:
    def per_slot(*shape: int, dtype: Any = jnp.float32) -> Any:
        return jax.ShapeDtypeStruct((lanes, size, *shape), dtype)

    count: Any = jax.ShapeDtypeStruct((lanes,), jnp.int32)
    return ReplayState(
        scene=jax.tree.map(lambda leaf: per_slot(*leaf.shape, dtype=leaf.dtype), scene),
        action=per_slot(action_dim),
        reward=per_slot(),
        terminal=per_slot(dtype=bool),
        episode_step=per_slot(dtype=jnp.int32),
        start=per_slot(dtype=jnp.int32),
        slots=count,
        transitions=count,
        oldest=count,
        mean=per_slot(action_dim) if dynamic else None,
        forgotten=count if dynamic else None,
    )


def _validate(capacity: int, stack: int, nstep: int, discount: float, lanes: int) -> None:
    for name, value in (("env.frame_stack", stack), ("replay.nstep", nstep), ("env.num_envs", lanes)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if not 0 <= discount <= 1:
        raise ValueError(f"replay.discount must lie in [0, 1], got {discount}")
    if capacity // lanes < stack + nstep + 1:
        shared = f" in each of {lanes} lanes" if lanes > 1 else ""
        raise ValueError(
            f"replay.capacity={capacity} cannot hold one transition of {stack} frames and {nstep} steps{shared}"
        )
