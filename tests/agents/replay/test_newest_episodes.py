"""The newest whole episodes of a replay against a record kept beside it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.replay import Entry, make_replay

STEPS, ENVS, DISCOUNT, SCALE = 6, 2, 0.8, 0.5


def filled(capacity, steps, cut=()):
    """A replay of two environments after so many steps, and each one's whole episodes, old to new.

    Episodes are truncated after `STEPS` steps, terminated at random, and cut after the steps `cut` as by a new task.
    """
    replay = make_replay(
        jax.ShapeDtypeStruct((1,), jnp.float32), lambda scene: scene, 1, capacity=capacity, stack=2, nstep=1,
        discount=DISCOUNT, num_envs=ENVS, reward_scale=SCALE,
    )  # fmt: skip
    add, rng, state = jax.jit(replay.add), np.random.default_rng(0), replay.init()
    time, rewards, first, whole = np.zeros(ENVS, int), [[], []], np.zeros(ENVS), [[], []]
    everyone = np.ones(ENVS, bool)

    def entry(scene, reward, terminal):
        seen, action = np.asarray(scene[:, None], np.float32), np.zeros((ENVS, 1), np.float32)
        ended, number = np.asarray(terminal, bool), time.astype(np.int32)
        return Entry(*map(jnp.asarray, (seen, action, np.asarray(reward, np.float32), ended, number)))

    def begin(where):
        time[where] = 0
        first[where] = rng.uniform(size=where.sum())
        for env in np.flatnonzero(where):
            rewards[env] = []
        return add(state, entry(first, np.zeros(ENVS), np.zeros(ENVS)), where)

    state = begin(everyone)
    for step in range(steps):
        time += 1
        reward, terminal = rng.normal(size=ENVS), rng.uniform(size=ENVS) < 0.1
        state = add(state, entry(rng.uniform(size=ENVS), reward, terminal), everyone)
        over = terminal | (time == STEPS)
        for env in range(ENVS):
            rewards[env].append(reward[env])
            if over[env]:
                value = SCALE * sum(DISCOUNT**i * each for i, each in enumerate(rewards[env]))
                whole[env].append((first[env], value))
        state = begin(everyone if step in cut else over) if (over.any() or step in cut) else state
    return replay, state, whole


@pytest.mark.parametrize(
    ("capacity", "steps", "cut"), [(200, 90, ()), (200, 0, ()), (200, 4, ()), (60, 90, ()), (200, 90, (40, 80, 86))]
)
def test_they_are_those_that_came_to_their_end(capacity, steps, cut):
    replay, state, whole = filled(capacity, steps, cut)
    found = jax.device_get(jax.jit(lambda state: replay.episodes(state, STEPS))(state))
    for env, each in enumerate(np.split(np.arange(len(found.whole)), ENVS)):
        kept = each[found.whole[each]]
        newest = whole[env][::-1][: len(kept)]
        assert len(kept) >= min(len(whole[env]), 2 if cut or capacity < 100 else 5)
        np.testing.assert_allclose(found.value[kept], [value for _, value in newest], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.obs[kept].T, [[start for start, _ in newest]] * 2, rtol=1e-6)
