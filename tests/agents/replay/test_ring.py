"""The replay against whole episodes kept in Python lists, from which every valid transition is enumerated."""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.replay import Entry, Replay, make_replay

GAMMA = 0.9
SCENE = jax.ShapeDtypeStruct((2,), jnp.float32)
MAKE = functools.partial(make_replay, SCENE, lambda scene: scene, 2, discount=GAMMA)
FITTING: dict[str, Any] = dict(capacity=6, stack=3, nstep=2, discount=GAMMA)
LONGEST = 130  # entries that one fill can write
DRAWS = 2500
# At each minimum of capacity, just above it, and larger than all that is stored.
SIZES = [(3, 1, 1), (7, 3, 3), (8, 3, 3), (6, 1, 4), (8, 5, 1), (20, 3, 3), (100, 3, 2)]


def entry(episode: int, episode_step: int, action: Any, reward: float, terminal: bool) -> Any:
    scene = np.array([episode, episode_step], np.float32)
    values: Any = (scene, np.asarray(action, np.float32), np.float32(reward), terminal, episode_step)
    return Entry(*values)


def episodes(seed, scenes):
    """Entries of whole episodes of 1 to 8 steps, half of them truncated. A scene is (episode, episode_step)."""
    rng = np.random.default_rng(seed)
    entries = []
    while len(entries) < scenes:
        number, length, terminates = sum(e.episode_step == 0 for e in entries), rng.integers(1, 9), rng.random() < 0.5
        for episode_step in range(length + 1):
            action, reward = rng.normal(size=2) * (episode_step > 0), rng.normal() * (episode_step > 0)
            entries.append(entry(number, episode_step, action, reward, bool(terminates and episode_step == length)))
    return entries[:scenes]


def oracle(entries, capacity, stack, nstep):
    """{(episode, episode_step): row} of all transitions. The oldest `stack - 1` scenes start none."""
    whole = []
    for slot, each in enumerate(entries):
        if each.episode_step == 0:
            whole.append([])
        whole[-1].append((slot, each))
    rows = {}
    for episode in whole:
        scenes = [each.scene for _, each in episode]
        for t in range(len(episode) - 1):
            if episode[t][0] < len(entries) - capacity + stack - 1:
                continue
            after = [each for _, each in episode[t + 1 : t + 1 + nstep]]
            reward = sum(GAMMA**i * float(each.reward) for i, each in enumerate(after))
            discount = 0.0 if after[-1].terminal else GAMMA ** len(after)
            obs, next_obs = (
                np.concatenate([scenes[max(0, end - k)] for k in reversed(range(stack))]) for end in (t, t + len(after))
            )
            rows[tuple(scenes[t])] = np.concatenate([obs, after[0].action, [reward, discount], next_obs])
    return rows


def table(batch):
    """Sampled transitions as rows, and the (episode, episode_step) each of them starts at."""
    columns = (batch.obs, batch.action, batch.reward[:, None], batch.discount[:, None], batch.next_obs)
    rows = np.concatenate([np.asarray(column) for column in columns], axis=1)
    return rows, [tuple(obs[-2:]) for obs in np.asarray(batch.obs)]


def check_samples(batch, expected):
    rows, starts = table(batch)
    assert set(starts) == set(expected)
    np.testing.assert_allclose(rows, [expected[start] for start in starts], rtol=1e-5, atol=1e-6)


class Programs(NamedTuple):
    replay: Replay
    add: Callable
    sample: Callable
    fill: Callable


def stacked(entries) -> Any:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *entries)


def to_only_env(replay):
    """`replay.add` for one env: an entry and whether to keep it."""
    return lambda replay_state, *each: replay.add(
        replay_state, *jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], each)
    )


def compiled(replay, envs=None):
    """Programs of a replay. With `envs`, `add` takes an entry for each of them and `fill` a list for each."""

    def fill(entries, counts):
        def write(replay_state, numbered):
            return replay.add(replay_state, numbered[1], numbered[0] < counts), None

        return jax.lax.scan(write, replay.init(), (jnp.arange(LONGEST), entries))[0]

    program = jax.jit(fill)

    def of_any_number(*streams):
        assert len(streams) == (envs or 1)
        padded = [stacked(entries + entries[:1] * (LONGEST - len(entries))) for entries in streams]
        by_time = jax.tree.map(lambda *leaves: np.stack(leaves, axis=1), *padded)
        return program(by_time, np.array([len(entries) for entries in streams]))

    add = replay.add if envs else to_only_env(replay)
    return Programs(replay, jax.jit(add), jax.jit(replay.sample, static_argnums=2), of_any_number)


@functools.cache
def programs(capacity, stack, nstep, envs=None):
    return compiled(MAKE(capacity=capacity, stack=stack, nstep=nstep, num_envs=envs or 1), envs)


@pytest.mark.parametrize(("capacity", "stack", "nstep"), SIZES)
def test_samples_are_all_valid_transitions_and_only_those(capacity, stack, nstep):
    replay, add, sample, _ = programs(capacity, stack, nstep)
    entries, replay_state = episodes(capacity, 75), jax.jit(replay.init)()
    for count, each in enumerate(entries, start=1):
        replay_state = add(replay_state, each, True)
        expected = oracle(entries[:count], capacity, stack, nstep)
        assert replay.ready(replay_state) == len(expected)
        if expected and (count % 3 == 0 or count > 60):
            check_samples(sample(replay_state, jax.random.key(count), DRAWS), expected)
    assert replay_state.slots == 75


@pytest.mark.parametrize("terminal", [True, False])
def test_termination_ends_the_return_and_truncation_bootstraps(terminal):
    _, _, sample, fill = programs(20, 2, 2)
    episode = [entry(0, t, [1, 1], 10**t, terminal and t == 3) for t in range(4)]
    replay_state = fill([*episode, entry(1, 0, [0, 0], 0, False)])
    batch = sample(replay_state, jax.random.key(0), DRAWS)
    rewards = [10 + GAMMA * 100, 100 + GAMMA * 1000, 1000]
    discounts = [GAMMA**2, 0, 0] if terminal else [GAMMA**2, GAMMA**2, GAMMA]
    for t in range(3):
        at = np.flatnonzero(np.asarray(batch.obs)[:, -1] == t)
        np.testing.assert_allclose(np.asarray(batch.reward)[at], rewards[t], rtol=1e-6)
        np.testing.assert_allclose(np.asarray(batch.discount)[at], discounts[t], rtol=1e-6)
        np.testing.assert_array_equal(np.asarray(batch.next_obs)[at, -1], min(t + 2, 3))


def test_sampling_is_uniform_over_transitions():
    _, _, sample, fill = programs(20, 3, 3)
    replay_state, entries = fill(episodes(5, 100)), episodes(5, 100)
    expected = oracle(entries, 20, 3, 3)
    _, starts = table(sample(replay_state, jax.random.key(3), DRAWS))
    counts, mean = np.array([starts.count(start) for start in expected]), DRAWS / len(expected)
    freedom = len(expected) - 1
    assert abs(((counts - mean) ** 2 / mean).sum() - freedom) < 4 * np.sqrt(2 * freedom)
    repeats = np.mean([left == right for left, right in itertools.pairwise(starts)])
    assert abs(repeats - 1 / len(expected)) < 0.03  # draws are independent of each other


def streams_of(scenes):
    """For each env as many entries as `scenes` says, episodes of its own, numbered from 100 times the env."""

    def renumbered(env, entries):
        return [each._replace(scene=each.scene + np.array([100 * env, 0], np.float32)) for each in entries]

    return [renumbered(env, episodes(50 + env, count)[:count]) for env, count in enumerate(scenes)]


def oracles(streams, size, stack, nstep):
    """Of each env, and of all together."""
    each = [oracle(entries, size, stack, nstep) for entries in streams]
    return each, functools.reduce(lambda all_of, one: all_of | one, each)


# Shares of 5 slots, of which one is left over, and of 7 of which two are; more than all that is stored.
@pytest.mark.parametrize(("capacity", "stack", "nstep", "envs"), [(11, 2, 2, 2), (23, 3, 3, 3), (200, 3, 3, 3)])
def test_environments_fill_at_their_own_pace_and_are_sampled_as_one(capacity, stack, nstep, envs):
    replay, add, sample, fill = programs(capacity, stack, nstep, envs)
    every = [2, 1, 3][:envs]  # env i keeps one entry in every[i]
    streams, replay_state, stored = streams_of([75] * envs), jax.jit(replay.init)(), []
    for t in range(70):
        keep = np.array([t % pace == 0 for pace in every])
        replay_state = add(
            replay_state, stacked([stream[t // pace] for stream, pace in zip(streams, every, strict=True)]), keep
        )
        stored = [stream[: t // pace + 1] for stream, pace in zip(streams, every, strict=True)]
        expected = oracles(stored, capacity // envs, stack, nstep)[1]
        assert replay.ready(replay_state) == len(expected)
        if expected and (t % 5 == 0 or t < 8):
            check_samples(sample(replay_state, jax.random.key(t), DRAWS), expected)
    jax.tree.map(np.testing.assert_array_equal, replay_state, fill(*stored))


def test_an_environment_among_others_holds_what_it_would_alone():
    streams = streams_of([60, 31, 47])
    replay_state = programs(60, 3, 3, 3).fill(*streams)
    for env, entries in enumerate(streams):
        alone = programs(20, 3, 3).fill(entries)
        jax.tree.map(
            lambda all_of, one, env=env: np.testing.assert_array_equal(all_of[env], one[0]), replay_state, alone
        )


def test_sampling_is_uniform_over_the_transitions_of_all_environments():
    streams = streams_of([100, 9, 20])
    each, expected = oracles(streams, 20, 3, 3)
    assert len({len(one) for one in each}) == 3, "envs alike would not tell"
    _, _, sample, fill = programs(60, 3, 3, 3)
    _, starts = table(sample(fill(*streams), jax.random.key(3), DRAWS))
    counts, mean = np.array([starts.count(start) for start in expected]), DRAWS / len(expected)
    freedom = len(expected) - 1
    assert abs(((counts - mean) ** 2 / mean).sum() - freedom) < 4 * np.sqrt(2 * freedom)


def test_an_environment_without_transitions_is_never_sampled():
    _, _, sample, fill = programs(60, 3, 3, 3)
    for scenes in ([1, 30, 30], [30, 1, 30], [30, 30, 1], [1, 1, 30]):
        streams = streams_of(scenes)
        check_samples(sample(fill(*streams), jax.random.key(0), DRAWS), oracles(streams, 20, 3, 3)[1])


@pytest.mark.parametrize(("low", "high"), [(0, 0.3), (0.5, 1), (0.2, 0.4)])
def test_span_is_a_share_of_each_environment(low, high):
    _, _, sample, fill = programs(60, 3, 3, 3)
    streams = streams_of([130, 9, 20])
    # Numbers of episodes and times rise within a env, so sorting orders each from old to new.
    ordered = [sorted(one) for one in oracles(streams, 20, 3, 3)[0]]
    inside = [start for each in ordered for start in each[int(low * len(each)) : int(high * len(each))]]
    _, starts = table(sample(fill(*streams), jax.random.key(0), DRAWS, (low, high)))
    assert sorted(set(starts)) == inside
    counts = np.array([starts.count(start) for start in inside])
    assert np.abs(counts / (DRAWS / len(inside)) - 1).max() < 0.5


def test_narrow_span_gives_a_transition_of_each_young_environment():
    _, _, sample, fill = programs(60, 3, 3, 3)
    streams = streams_of([3, 1, 3])
    assert set(table(sample(fill(*streams), jax.random.key(0), DRAWS, (0.0, 0.3)))[1]) == {(0, 0), (200, 0)}


@pytest.mark.parametrize("horizon", [1, 2, 3])
def test_a_shorter_horizon_samples_as_a_replay_made_with_it(horizon):
    own, other = programs(20, 3, 3), programs(20, 3, horizon)
    replay_state, expected = own.fill(episodes(11, 120)), oracle(episodes(11, 120), 20, 3, horizon)
    short = functools.partial(own.replay.sample, batch=DRAWS, horizon=horizon)
    with_it = other.sample(replay_state, jax.random.key(2), DRAWS)
    check_samples(with_it, expected)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-6), short(replay_state, jax.random.key(2)), with_it
    )
    traced = own.sample(
        replay_state, jax.random.key(2), DRAWS, (0.0, 1.0), jnp.int32(horizon)
    )  # not static: one program
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), traced, with_it)


def test_horizon_is_the_same_in_all_environments():
    _, _, sample, fill = programs(60, 3, 3, 3)
    streams = streams_of([60, 31, 47])
    batch = sample(fill(*streams), jax.random.key(0), DRAWS, (0.0, 1.0), 2)
    check_samples(batch, oracles(streams, 20, 3, 2)[1])


@pytest.mark.parametrize("envs", [1, 3])
def test_adding_copies_nothing_that_grows_with_the_capacity(envs):
    def rollout(capacity):
        replay = make_replay(
            {"frame": jax.ShapeDtypeStruct((4, 4), jnp.uint8), "episode_step": jax.ShapeDtypeStruct((), jnp.int32)},
            lambda scene: scene["frame"],
            2,
            **FITTING | dict(capacity=capacity, num_envs=envs),
        )
        rings = jax.eval_shape(jax.vmap(lambda _: replay.init()), jnp.arange(2))
        each = Entry(rings.scene, rings.action, rings.reward, rings.terminal, rings.episode_step)
        arriving = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((2, envs, *leaf.shape[3:]), leaf.dtype), each)
        keep = jax.ShapeDtypeStruct((2, envs), bool)
        program = jax.jit(jax.vmap(replay.add), donate_argnums=0).lower(rings, arriving, keep).compile()
        found: Any = program.memory_analysis()
        assert found.alias_size_in_bytes >= 2 * replay.nbytes, "the replay_state is not written in place"
        return found.temp_size_in_bytes

    small, large = rollout(1_200), rollout(120_000)
    assert abs(large - small) < 1_000


@pytest.mark.parametrize(("low", "high"), [(0, 0.3), (0.5, 1), (0.2, 0.4)])
def test_span_is_a_share_by_age(low, high):
    _, _, sample, fill = programs(20, 3, 3)
    replay_state, entries = fill(episodes(6, 130)), episodes(6, 130)
    ordered = sorted(oracle(entries, 20, 3, 3))
    _, starts = table(sample(replay_state, jax.random.key(0), DRAWS, (low, high)))
    assert sorted(set(starts)) == ordered[int(low * len(ordered)) : int(high * len(ordered))]
    _, as_array = table(sample(replay_state, jax.random.key(0), DRAWS, jnp.array([low, high])))
    assert as_array == starts


def test_narrow_span_of_a_young_ring_still_gives_a_transition():
    _, _, sample, fill = programs(20, 3, 3)
    replay_state = fill(episodes(7, 130)[:3])
    assert set(table(sample(replay_state, jax.random.key(0), DRAWS, (0.0, 0.3)))[1]) == {(0, 0)}


def test_an_entry_not_kept_leaves_the_ring_untouched():
    replay, add, _, _ = programs(8, 3, 3)
    entries, replay_state = episodes(8, 42), jax.jit(replay.init)()
    for each in entries:
        for extra in (entries[0], entries[1]):
            jax.tree.map(np.testing.assert_array_equal, replay_state, add(replay_state, extra, False))
        replay_state = add(replay_state, each, True)


def test_seeds_under_vmap_have_cursors_of_their_own():
    replay, _, sample, fill = programs(20, 3, 3)
    streams = [episodes(seed, 60) for seed in range(3)]
    every = [1, 2, 3]  # env i keeps one in (i + 1)
    solo = [fill(stream[: 60 // each]) for stream, each in zip(streams, every, strict=True)]
    rings = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), jax.jit(replay.init)())
    add = jax.jit(jax.vmap(to_only_env(replay)))
    for t in range(60):
        entries = [stream[t // each] for stream, each in zip(streams, every, strict=True)]
        rings = add(rings, stacked(entries), np.array([t % each == 0 for each in every]))
    jax.tree.map(lambda envs, *alone: np.testing.assert_array_equal(envs, np.stack(alone)), rings, *solo)
    keys = jax.random.split(jax.random.key(0), 3)
    batches = jax.jit(jax.vmap(functools.partial(replay.sample, batch=DRAWS)))(rings, keys)
    for env in range(3):
        jax.tree.map(
            lambda envs, alone, env=env: np.testing.assert_allclose(envs[env], alone, rtol=1e-6),
            batches,
            sample(solo[env], keys[env], DRAWS),
        )


def test_a_scene_of_many_arrays_samples_as_its_stored_frames():
    def observe(scene):
        grid = jnp.arange(16).reshape(4, 4, 1) * scene["episode_step"] + jnp.outer(scene["place"], scene["place"]).sum()
        return jnp.concatenate([grid % 256, (grid * 7) % 256], axis=-1).astype(jnp.uint8)

    shape = {"place": jax.ShapeDtypeStruct((2,), jnp.float32), "episode_step": jax.ShapeDtypeStruct((), jnp.int32)}
    settings: dict[str, Any] = dict(capacity=20, stack=3, nstep=2, discount=GAMMA)
    scenes = compiled(make_replay(shape, observe, 2, **settings))
    frames = compiled(make_replay(jax.ShapeDtypeStruct((4, 4, 2), jnp.uint8), lambda frame: frame, 2, **settings))
    entries = [
        e._replace(scene={"place": e.scene + 1, "episode_step": np.int32(e.episode_step)}) for e in episodes(9, 47)
    ]
    seen = jax.jit(observe)
    observed = [e._replace(scene=np.asarray(seen(e.scene))) for e in entries]
    batch = scenes.sample(scenes.fill(entries), jax.random.key(1), 300)
    jax.tree.map(np.testing.assert_array_equal, batch, frames.sample(frames.fill(observed), jax.random.key(1), 300))
    assert batch.obs.shape == batch.next_obs.shape == (300, 4, 4, 6)
    assert batch.obs.dtype == jnp.uint8
    assert len(np.unique(batch.obs, axis=0)) > 10


def test_nbytes_is_what_a_ring_allocates():
    several = {"a": jax.ShapeDtypeStruct((3, 5), jnp.uint8), "b": jax.ShapeDtypeStruct((), jnp.int32)}
    for scene, envs in itertools.product((SCENE, several), (1, 4)):
        replay = make_replay(scene, lambda s: s, 4, capacity=33, stack=3, nstep=3, discount=GAMMA, num_envs=envs)
        assert replay.nbytes == sum(leaf.nbytes for leaf in jax.tree.leaves(replay.init()))


def test_pixels_are_stored_once():
    frame = jax.ShapeDtypeStruct((84, 84, 3), jnp.uint8)
    replay = make_replay(frame, lambda s: s, 6, capacity=100_000, stack=3, nstep=3, discount=0.99)
    replay_state = jax.eval_shape(replay.init)
    assert replay_state.scene.shape == (1, 100_000, 84, 84, 3) and replay_state.scene.dtype == jnp.uint8
    assert 84 * 84 * 3 * 100_000 < replay.nbytes <= 2.2e9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(stack=0), "env.frame_stack must be at least 1, got 0"),
        (dict(nstep=0), "replay.nstep must be at least 1, got 0"),
        (dict(discount=1.01), r"replay.discount must lie in \[0, 1\], got 1.01"),
        (dict(discount=-0.1), r"replay.discount must lie in \[0, 1\], got -0.1"),
        (dict(capacity=5), "replay.capacity=5 cannot hold one transition of 3 frames and 2 steps$"),
        (dict(num_envs=0), "env.num_envs must be at least 1, got 0"),
        (
            dict(capacity=17, num_envs=3),
            "replay.capacity=17 cannot hold one transition of 3 frames and 2 steps for each of 3 environments",
        ),
    ],
)
def test_bad_settings_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        MAKE(**{**FITTING, **change})
    MAKE(**FITTING)
    MAKE(**{**FITTING, "capacity": 18, "num_envs": 3})
