"""Replay of one seed as pure functions over a state of arrays. May import: agents.types.

ring.py has what it holds and how scenes come in, sampling.py how batches are drawn, dynamic.py how it forgets,
episodes.py what came of its newest episodes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from agents.replay import dynamic as forgetting
from agents.replay import ring, sampling
from agents.replay.dynamic import Past
from agents.replay.episodes import Episodes, newest_episodes
from agents.replay.ring import Entry, ReplaySettings, ReplayState, Scene, nbytes
from agents.replay.sampling import Stored, side_by_side
from agents.types import Obs, Transition
from ne_jax.numbers import Number, is_known

__all__ = ["Entry", "Episodes", "Past", "Replay", "ReplayState", "Stored", "make_replay", "nbytes", "side_by_side"]


class Replay(NamedTuple):
    """A replay of fixed settings.

    init(): an empty state.
    add(state, entry, keep): the state with `entry` appended where `keep` holds.
    sample(state, key, batch, span, horizon): `batch` transitions, uniform over the share `span` of each environment's,
        ordered from old to new: (0, 1) is everything, (0, 0.3) the oldest three tenths. Returns sum `nstep` rewards, or
        the `horizon` given, 1 to nstep, which may be traced.
    stored(state, key, batch): of the transitions that `sample` would give, stacks of scenes and actions, undrawn.
    drawn(stored): what was observed there.
    ready(state): how many transitions can be sampled.
    past(state, places): the transitions at these places from old to new, 0 the oldest; environments take turns.
        Dynamic replays only.
    forget(state, share, least): without the oldest `share` of each environment's, as far as at least `least`
        transitions remain. Dynamic replays only.
    episodes(state, steps): the newest episodes, which are truncated after so many steps.
    nbytes: bytes of one state.
    """

    init: Callable[[], ReplayState]
    add: Callable[[ReplayState, Entry, Bool[Array, " envs"]], ReplayState]
    sample: Callable[..., Transition]
    stored: Callable[[ReplayState, Key[Array, ""], int], Stored]
    drawn: Callable[[Stored], Obs]
    ready: Callable[[ReplayState], Int[Array, ""]]
    past: Callable[[ReplayState, Int[Array, " batch"]], Past]
    forget: Callable[[ReplayState, Float[Array, ""] | float, int], ReplayState]
    episodes: Callable[[ReplayState, int], Episodes]
    nbytes: int


def make_replay(
    scene: PyTree,
    observe: Callable[[Scene], Obs],
    action_dim: int,
    *,
    capacity: int,
    stack: int,
    nstep: int,
    discount: Number,
    num_envs: int = 1,
    reward_scale: Number = 1.0,
    vary: Callable[[Key[Array, ""], Scene], Scene] | None = None,
    dynamic: bool = False,
) -> Replay:
    """A replay of `capacity` scenes whose transitions have `stack` observations side by side and `nstep`-step returns.

    Args:
        scene: shapes and dtypes of one scene as it is stored (`jax.ShapeDtypeStruct` leaves).
        observe: one stored scene to one observation; stacking concatenates along the last axis, oldest first.
        discount: gamma, per agent step.
        num_envs: environments that fill it side by side; each has `capacity // num_envs` scenes.
        reward_scale: what rewards are multiplied with when they are sampled.
        vary: changes scenes before they are observed, all of one sampled transition in the same way.
        dynamic: keep the policy's means, so that the oldest data can be forgotten when the policy has left them.

    Raises:
        ValueError: a setting is out of range, or an environment's share could not hold a single transition.
    """
    _validate(capacity, stack, nstep, discount, num_envs)
    settings = ReplaySettings(observe, stack, nstep, discount, reward_scale, vary, num_envs, capacity // num_envs)
    init = partial(ring.init, scene, action_dim, num_envs, settings.size, dynamic)
    return Replay(
        init=init,
        add=partial(ring.add, settings),
        sample=partial(sampling.sample, settings),
        stored=partial(sampling.stored, settings),
        drawn=partial(sampling.drawn, settings),
        ready=ring.ready,
        past=partial(forgetting.past, settings),
        forget=forgetting.forget,
        episodes=partial(newest_episodes, settings),
        nbytes=nbytes(jax.eval_shape(init)),
    )


def _validate(capacity: int, stack: int, nstep: int, discount: Number, num_envs: int) -> None:
    for name, value in (("env.frame_stack", stack), ("replay.nstep", nstep), ("env.num_envs", num_envs)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if is_known(discount) and not 0 <= discount <= 1:
        raise ValueError(f"replay.discount must lie in [0, 1], got {discount}")
    if capacity // num_envs < stack + nstep + 1:
        shared = f" for each of {num_envs} environments" if num_envs > 1 else ""
        raise ValueError(
            f"replay.capacity={capacity} cannot hold one transition of {stack} frames and {nstep} steps{shared}"
        )
