"""What one seed has of its environments, step by step: `remember` stores what they sent and what is observed of it.

Pure functions of the parts of a run and one seed's `RolloutState`; `experiments.train.step` puts seeds side by side.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Shaped

from agents.replay import Entry, ReplayState
from agents.types import Clock, Obs
from envs.pools.device import is_finite
from envs.types import AutoResetStep, Scene
from experiments.train.health import finite_part, intact, note_broken
from experiments.train.parts import Parts
from experiments.train.state import Choice, MetricAccumulator, RolloutState

Stack = Shaped[Array, "stack *frame"]
Stacks = Shaped[Array, "lanes stack *frame"]


def by_seed(num_envs: int, lanes: Any) -> Any:
    """The leading axis of lanes as [seeds, environments of a seed]."""
    return jax.tree.map(lambda leaf: jnp.reshape(leaf, (-1, num_envs, *leaf.shape[1:])), lanes)


def stack_frames(frame_stack: int, stack: Stack | None, frame: Obs) -> Stack:
    """Push a frame onto a stack, newest last; None starts one with the frame repeated.

    The stack is a leading axis, along which pushing moves whole frames; `side_by_side` is for networks.
    """
    if stack is None:
        return jnp.stack([frame] * frame_stack)
    return jnp.concatenate([stack[1:], frame[None]])


def new_rollout(parts: Parts, scene: Scene) -> RolloutState:
    """An empty replay, and episodes that begin with these scenes."""
    unset: Any = None
    distance = MetricAccumulator.of(0.0) if parts.forget else None
    empty = RolloutState(parts.replay.init(), unset, unset, unset, MetricAccumulator.of(0.0), distance, intact())
    return enter(parts, empty, scene)


def remember(parts: Parts, rollout: RolloutState, choice: Choice, outcome: AutoResetStep, now: Clock) -> RolloutState:
    """Store what the environments sent; where an episode ended, the next one's first scene too.

    What is not finite is noted, and stored as zero.
    """
    assert rollout.broken is not None
    (scene, *rest), first, episode_step = outcome.step, outcome.reset, rollout.episode_step + 1
    reward, terminated, truncated = (jnp.asarray(value) for value in rest)
    broken = note_broken(rollout.broken, jax.vmap(is_finite)(scene), jnp.isfinite(reward), now)
    scene, first, reward = (finite_part(value) for value in (scene, first, reward))
    over = terminated | truncated
    observe = jax.vmap(parts.spec.observe)
    if parts.keep_frames:
        scene, first = observe(scene), observe(first)
        frame = _where_over(over, first, scene)
    else:  # the last scene of an episode is stored and never acted upon: it need not be drawn
        frame = observe(_where_over(over, first, scene))
    entry = Entry(scene, choice.action, reward, terminated, episode_step, choice.mean)
    replay_state = parts.replay.add(rollout.replay_state, entry, jnp.ones(over.shape, bool))
    total = rollout.episode_return + reward
    return replace(
        rollout,
        replay_state=_add_first(parts, replay_state, first, over),
        obs=_where_over(over, _new_stacks(parts, frame), _push(parts, rollout.obs, frame)),
        episode_step=jnp.where(over, 0, episode_step),
        episode_return=jnp.where(over, 0.0, total),
        returns=rollout.returns.add(total, over),
        broken=broken,
    )


def enter(parts: Parts, rollout: RolloutState, scene: Scene) -> RolloutState:
    """Whatever was under way is over, without an end: these are first scenes. The replay may begin anew."""
    frame, none = jax.vmap(parts.spec.observe)(scene), jnp.zeros(parts.schedule.num_envs)
    first = frame if parts.keep_frames else scene
    replay_state = parts.replay.init() if parts.schedule.clears else rollout.replay_state
    return replace(
        rollout,
        replay_state=_add_first(parts, replay_state, first, jnp.ones(none.shape, bool)),
        obs=_new_stacks(parts, frame),
        episode_step=none.astype(jnp.int32),
        episode_return=none,
    )


def push_observation(parts: Parts, stack: Stacks | None, scene: Scene) -> Stacks:
    """The stacks of lanes with what is observed of their new scenes; None begins them."""
    frame = jax.vmap(parts.spec.observe)(scene)
    return _new_stacks(parts, frame) if stack is None else _push(parts, stack, frame)


def _add_first(parts: Parts, replay_state: ReplayState, scene: Scene, keep: Bool[Array, " envs"]) -> ReplayState:
    none = jnp.zeros(keep.shape)
    action = jnp.zeros((*keep.shape, parts.spec.action_dim))
    entry = Entry(scene, action, none, none > 0, none.astype(jnp.int32), action if parts.forget else None)
    return parts.replay.add(replay_state, entry, keep)


def _where_over(over: Bool[Array, " envs"], new: Any, old: Any) -> Any:
    return jax.tree.map(lambda n, o: jnp.where(over.reshape(-1, *[1] * (n.ndim - 1)), n, o), new, old)


def _new_stacks(parts: Parts, frame: Shaped[Array, "lanes *frame"]) -> Stacks:
    return jax.vmap(lambda each: stack_frames(parts.frame_stack, None, each))(frame)


def _push(parts: Parts, stack: Stacks, frame: Shaped[Array, "lanes *frame"]) -> Stacks:
    return jax.vmap(lambda *each: stack_frames(parts.frame_stack, *each))(stack, frame)
