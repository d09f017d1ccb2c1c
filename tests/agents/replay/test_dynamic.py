"""A dynamic replay against lists of whole episodes from which the oldest transitions are struck out."""

import functools
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_ring import DRAWS, MAKE, check_samples, oracle, stacked, streams_of, table

from agents.replay import nbytes

EVENTS = {20: (0.1, 0), 33: (0.5, 3), 34: (0.5, 3), 47: (1.0, 5), 61: (0.3, 1), 90: (0.25, 4)}
"""Time to (share, least) of what is forgotten then; a env has room for 12 scenes, which are written over between."""


class Oracle:
    """What can be sampled of several envs, from all that was ever added, without indices."""

    def __init__(self, envs, size, stack, nstep):
        self.streams, self.gone, self.settings = [[] for _ in range(envs)], set(), (size, stack, nstep)

    def envs(self):
        """Of each env {start: row}, the oldest first; numbers of episodes and ages rise with time."""
        for entries in self.streams:
            rows = oracle(entries, *self.settings)
            yield {start: rows[start] for start in sorted(rows) if start not in self.gone}

    def rows(self):
        return functools.reduce(lambda all_of, one: all_of | one, self.envs())

    def forget(self, share, least):
        envs = list(self.envs())
        may_go = max(sum(map(len, envs)) - least, 0)
        for rows in envs:
            drop = min(math.floor(share * len(rows)), may_go)
            may_go -= drop
            self.gone |= set(list(rows)[:drop])

    def past(self):
        """(observation, mean) of all transitions, the oldest of each env first, envs in turn; None where none is."""
        width = 2 * self.settings[1]
        following = {}
        for entries in self.streams:
            for before, after in itertools.pairwise(entries):
                following[tuple(before.scene)] = after.mean
        envs = [[(row[:width], following[start]) for start, row in rows.items()] for rows in self.envs()]
        return [rows[i] if i < len(rows) else None for i in range(max(map(len, envs))) for rows in envs]


def with_means(streams):
    rng = np.random.default_rng(0)
    return [[each._replace(mean=rng.uniform(-1, 1, 2).astype(np.float32)) for each in stream] for stream in streams]


@functools.cache
def programs(envs, stack, nstep):
    replay = MAKE(capacity=12 * envs + envs - 1, stack=stack, nstep=nstep, num_envs=envs, dynamic=True)
    sample = jax.jit(replay.sample, static_argnums=2)
    return replay, jax.jit(replay.add), sample, jax.jit(replay.forget, static_argnums=2), jax.jit(replay.past)


@pytest.mark.parametrize(("envs", "stack", "nstep"), [(1, 3, 2), (2, 2, 3), (3, 1, 1)])
def test_what_is_forgotten_is_never_sampled_and_nothing_else_is_missing(envs, stack, nstep):
    replay, add, sample, forget, past = programs(envs, stack, nstep)
    streams, told = with_means(streams_of([120] * envs)), Oracle(envs, 12, stack, nstep)
    every, replay_state = [1, 2, 1][:envs], jax.jit(replay.init)()  # the second env fills at half the pace
    sizes, expected = [], {}
    for t in range(115):
        keep = np.array([t % pace == 0 for pace in every])
        now = [stream[t // pace] for stream, pace in zip(streams, every)]
        replay_state = add(replay_state, stacked(now), keep)
        for stream, entry, kept in zip(told.streams, now, keep):
            stream += [entry] * bool(kept)
        if t in EVENTS:
            replay_state = forget(replay_state, *EVENTS[t])
            told.forget(*EVENTS[t])
        expected = told.rows()
        sizes.append(len(expected))
        assert replay.ready(replay_state) == len(expected)
        if expected and (t in EVENTS or t - 1 in EVENTS or t % 11 == 0):
            check_samples(sample(replay_state, jax.random.key(t), DRAWS), expected)
            check_past(past(replay_state, np.arange(40)), told.past())
    assert min(sizes[35:]) <= 0.5 * max(sizes), "hardly anything was forgotten"
    told.gone = set()
    assert set(told.rows()) == set(expected), "what came in has not taken the place of what was forgotten"


def check_past(found, expected):
    held = np.zeros(40, bool)
    for i, each in enumerate(expected):
        if each is not None:
            held[i] = True
            np.testing.assert_allclose(found.obs[i], each[0])
            np.testing.assert_allclose(found.mean[i], each[1])
    np.testing.assert_array_equal(found.held, held)


def test_span_is_a_share_of_what_is_left():
    replay, add, sample, forget, _ = programs(2, 2, 3)
    streams, replay_state = with_means(streams_of([30, 30])), jax.jit(replay.init)()
    told = Oracle(2, 12, 2, 3)
    for entries in zip(*streams):
        replay_state = add(replay_state, stacked(entries), np.ones(2, bool))
    told.streams = [list(stream) for stream in streams]
    told.forget(0.4, 0)
    _, starts = table(sample(forget(replay_state, 0.4, 0), jax.random.key(0), DRAWS, (0.0, 0.5)))
    assert set(starts) == {start for rows in told.envs() for start in list(rows)[: len(rows) // 2]}


@pytest.mark.parametrize("least", [0, 3, 7, 10**6])
def test_so_many_are_kept_however_often_it_forgets(least):
    replay, add, _, forget, _ = programs(3, 1, 1)
    streams, replay_state = with_means(streams_of([12, 12, 12])), jax.jit(replay.init)()
    for entries in zip(*streams):
        replay_state = add(replay_state, stacked(entries), np.ones(3, bool))
    before = int(replay.ready(replay_state))
    for _ in range(30):
        replay_state = forget(replay_state, 0.5, least)
        assert min(least, before) <= replay.ready(replay_state)
    lower = max(least, 3)  # of a single transition in each env half is none
    assert replay.ready(replay_state) == (min(lower, before) if least else 3)


def test_forgetting_nothing_changes_nothing():
    replay, add, sample, forget, _ = programs(1, 3, 2)
    (stream,), replay_state = with_means(streams_of([40])), jax.jit(replay.init)()
    for each in stream:
        replay_state = add(replay_state, stacked([each]), np.ones(1, bool))
    same = forget(replay_state, 0.0, 0)
    key = jax.random.key(0)
    jax.tree.map(np.testing.assert_array_equal, sample(same, key, DRAWS), sample(replay_state, key, DRAWS))


def test_only_a_dynamic_replay_pays_for_means():
    settings: dict[str, Any] = dict(capacity=12, stack=2, nstep=1)
    plain, dynamic = MAKE(**settings), MAKE(**settings, dynamic=True)
    assert plain.init().mean is None and plain.init().forgotten is None
    assert len(jax.tree.leaves(plain.init())) == len(jax.tree.leaves(dynamic.init())) - 2
    assert dynamic.nbytes == plain.nbytes + 12 * 2 * 4 + 4 == nbytes(dynamic.init())
    for call in (lambda: plain.forget(plain.init(), 0.1, 0), lambda: plain.past(plain.init(), jnp.arange(2))):
        with pytest.raises(ValueError, match=r"only a dynamic replay .* make_replay\(dynamic=True\)"):
            call()
