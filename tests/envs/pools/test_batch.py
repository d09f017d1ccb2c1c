"""`BatchPool`: every lane as dm_control alone steps it, bit for bit, through ends, cuts, failures and snapshots."""

from typing import Any

import numpy as np
import pytest

from envs.dmc.rules import DOMAINS
from envs.pools.batch import BatchPool
from envs.pools.host import HostPool
from envs.registry import find_kind, host_env

STREAMS = [(0, 0), (0, 1), (1, 0)]


def pools(name, **settings):
    """A pool that steps lane by lane, and one that steps them together."""
    kind: Any = find_kind("dmc")
    make, together = host_env("dmc", name, **settings), kind.together(name)
    return HostPool(make, STREAMS, "serial"), BatchPool(make, together, STREAMS)


def same(left, right):
    for a, b in zip((*left.step, left.reset), (*right.step, right.reset), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype


def random_actions(pool, steps, seed=0):
    """Some are beyond the limits."""
    shape = (steps, pool.lanes, pool.spec.action_dim)
    return np.random.default_rng(seed).uniform(-1.3, 1.3, shape).astype(np.float32)


def play(name, steps, **settings):
    """Steps both pools side by side, cuts episodes in the middle, restores, and gives the ends that there were."""
    usual, batch = pools(name, **settings)
    with usual, batch:
        np.testing.assert_array_equal(usual.reset(), batch.reset())
        ends, paid, snapshot = 0, 0.0, batch.snapshot()
        for t, actions in enumerate(random_actions(usual, steps)):
            left, right = usual.step(actions), batch.step(actions)
            same(left, right)
            ends, paid = ends + int(left.step.truncated.sum()), paid + float(left.step.reward.sum())
            if t == 3:
                np.testing.assert_array_equal(usual.reset([5, 3, 4]), batch.reset([5, 3, 4]))
            if t == steps // 2:
                snapshot = batch.snapshot()
        for key, value in usual.snapshot().items():
            np.testing.assert_array_equal(value, batch.snapshot()[key])
        np.testing.assert_array_equal(usual.restore(snapshot), batch.restore(snapshot))
        for actions in random_actions(usual, 6, seed=1):
            same(usual.step(actions), batch.step(actions))
    return ends, paid


# With 30 frames an action the last step of an episode has ten.
@pytest.mark.parametrize(
    ("name", "repeat", "steps"),
    [
        ("cheetah_run", 30, 42),
        ("cartpole_swingup", 30, 42),
        ("reacher_easy", 30, 42),
        ("finger_spin", 30, 42),
        ("walker_walk", 2, 40),
    ],
)
def test_lanes_are_what_they_are_alone(name, repeat, steps):
    ends, _ = play(name, steps, action_repeat=repeat)
    assert ends == (3 if repeat == 30 else 0)


TASKS = [name for name in find_kind("dmc").tasks() if any(name.startswith(f"{domain}_") for domain in DOMAINS)]
PAY_BY_CHANCE = ("reacher_easy", "finger_turn_easy", "ball_in_cup_catch", "cartpole_balance_sparse")


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_what_it_is_alone(name):
    ends, paid = play(name, 600, action_repeat=2)
    assert ends == 3
    assert paid > 0 or name not in PAY_BY_CHANCE


def test_each_of_the_domains_is_one_of_the_suite():
    tasks = find_kind("dmc").tasks()
    assert all(any(task.startswith(f"{domain}_") for task in tasks) for domain in DOMAINS)


@pytest.mark.parametrize("pixels", [True, False])
def test_pictures_show_where_the_batch_is(pixels):
    usual, batch = pools("reacher_hard", pixels=pixels, image_size=32, action_repeat=300)  # four steps an episode
    with usual, batch:
        np.testing.assert_array_equal(usual.reset(), batch.reset())
        np.testing.assert_array_equal(usual.pictures(40), batch.pictures(40))
        for actions in random_actions(usual, 6):
            same(usual.step(actions), batch.step(actions))
            np.testing.assert_array_equal(usual.pictures(40), batch.pictures(40))


def lines(caplog):
    """What the log says of failures, without where in the code."""
    found = [(record.args[0], record.getMessage().splitlines()[-1]) for record in caplog.records if record.args]
    caplog.clear()
    return found


def test_one_lane_fails_as_it_would_alone(caplog):
    usual, batch = pools("cheetah_run", action_repeat=4)
    with usual, batch:
        np.testing.assert_array_equal(usual.reset(), batch.reset())
        for t, actions in enumerate(random_actions(usual, 12)):
            if t == 4:
                actions[1, 0] = np.nan
            same(usual.step(actions), batch.step(actions))
            told = lines(caplog)
            if t == 4:
                np.testing.assert_array_equal(batch.failed, [False, True, False])
                assert told[0] == told[1] and "mjWARN_BADCTRL" in told[0][1] and told[0][0] == 1
            else:
                assert not told and not batch.failed.any()
        np.testing.assert_array_equal(batch.snapshot()["episode"], [0, 1, 0])


def test_an_error_of_mujoco_is_one_lanes_own(caplog):
    usual, batch = pools("cheetah_run")
    with usual, batch:
        np.testing.assert_array_equal(usual.reset(), batch.reset())
        for pool in (usual, batch):
            worker: Any = pool._workers[2]
            worker.lane.env._model().opt.solver = 99
        for actions in random_actions(usual, 4):
            same(usual.step(actions), batch.step(actions))
        told = lines(caplog)
        assert told[0] == told[1] and told[0][0] == 2 and "solver" in told[0][1]


def test_a_pool_that_is_closed_says_so():
    _, batch = pools("pendulum_swingup")
    batch.reset()
    batch.close()
    with pytest.raises(RuntimeError, match="closed"):
        batch.step(np.zeros((3, 1), np.float32))
    assert batch.snapshot()["steps"].tolist() == [0, 0, 0]


def test_other_domains_are_refused():
    kind: Any = find_kind("dmc")
    with pytest.raises(ValueError, match=r"not humanoid_run; set --config.env.workers=thread"):
        kind.together("humanoid_run")
