"""`HostPool`: the same results from every backend, snapshots that continue bit for bit, and failures that are told."""

import functools
import os
import signal
import subprocess
import sys
import time
from typing import Any

import fake_env
import numpy as np
import pytest
from fake_env import Counter

from envs.pools.host import HostPool
from envs.registry import host_env

BACKENDS = ["serial", "thread", "process"]
STREAMS = [(0, 0), (0, 1), (7,)]


def episode_seed(stream, episode):
    return int(np.random.SeedSequence((*stream, episode)).generate_state(1)[0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_lanes_reset_themselves(backend):
    actions = np.zeros((3, 2), np.float32)
    with HostPool(Counter, STREAMS, backend) as pool:
        seeds = [[episode_seed(stream, episode) for stream in STREAMS] for episode in range(3)]
        np.testing.assert_array_equal(pool.reset()[:, 0], seeds[0])
        outcome = pool.step(np.array([[1, 0], [0, 0], [0, 0]], np.float32))  # lane 0 terminates
        np.testing.assert_array_equal(outcome.step.terminated, [True, False, False])
        np.testing.assert_array_equal(outcome.step.scene[:, 1], [1, 1, 1])
        np.testing.assert_array_equal(outcome.reset[0], [seeds[1][0], 0, 0])
        np.testing.assert_array_equal(outcome.reset[1:], outcome.step.scene[1:])
        for _ in range(4):
            outcome = pool.step(actions)
        np.testing.assert_array_equal(outcome.step.truncated, [False, True, True])
        np.testing.assert_array_equal(outcome.reset[1:, 0], seeds[1][1:])
        np.testing.assert_array_equal(pool.pictures(4)[:, 0, 0, 0], [4, 0, 0])
        snapshot = pool.snapshot()
        np.testing.assert_array_equal(snapshot["episode"], [1, 1, 1])
        np.testing.assert_array_equal(snapshot["steps"], [4, 0, 0])
        assert outcome.step.reward.dtype == np.float32
        np.testing.assert_array_equal(pool.reset([2, 0, 1])[:, 0], [seeds[2][0], seeds[0][1], seeds[1][2]])


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_backends_agree_with_serial_on_pixels(backend):
    make = host_env("dmc", "reacher_easy", pixels=True, image_size=32, action_repeat=250)
    actions = np.random.default_rng(0).uniform(-1, 1, (5, 2, 2)).astype(np.float32)

    def run(which):
        with HostPool(make, [(3,), (4,)], which) as pool:
            return pool.spec, pool.reset(), [pool.step(each) for each in actions], pool.pictures(40)

    (spec, first, steps, frame), (spec2, first2, steps2, frame2) = run("serial"), run(backend)
    assert spec.draw == spec2.draw and spec.episode_steps == 4
    np.testing.assert_array_equal(first, first2)
    np.testing.assert_array_equal(frame, frame2)
    assert sum(step.step.truncated.sum() for step in steps) == 2
    for left, right in zip(steps, steps2, strict=True):
        for a, b in zip((*left.step, left.reset), (*right.step, right.reset), strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype


# Tasks whose model itself changes from episode to episode: targets, joints, gains, terrain.
@pytest.mark.parametrize(
    ("name", "renderer", "other", "repeat", "before"),
    [
        ("reacher_easy", "jax", "process", 200, 7),  # 5 steps an episode: into the second one
        ("finger_turn_hard", "gl", "serial", 4, 6),
        ("quadruped_escape", "gl", "thread", 2, 3),
    ],
)
def test_snapshot_continues_bit_for_bit(name, renderer, other, repeat, before):
    make = host_env("dmc", name, pixels=True, image_size=32, action_repeat=repeat, renderer=renderer)
    with HostPool(make, [(0, 5), (0, 6)], "serial") as pool, HostPool(make, [(0, 5), (0, 6)], other) as second:
        shape = (before + 3, 2, pool.spec.action_dim)
        actions = np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)
        scene = pool.reset([3, 0])
        for each in actions[:before]:
            scene = pool.step(each).step.scene
        snapshot = {key: value.copy() for key, value in pool.snapshot().items()}
        wanted = [pool.step(each) for each in actions[before:]]
        np.testing.assert_array_equal(second.restore(snapshot), scene)
        for key, value in second.snapshot().items():
            np.testing.assert_array_equal(value, snapshot[key])
        for each, outcome in zip(actions[before:], wanted, strict=True):
            got = second.step(each)
            for mine, theirs in zip((*got.step, got.reset), (*outcome.step, outcome.reset), strict=True):
                np.testing.assert_array_equal(mine, theirs)


def test_scenes_of_several_arrays_are_stacked():
    with HostPool(functools.partial(Counter, form="dict"), STREAMS, "serial") as pool:
        scene = pool.reset()
        assert (scene["where"].shape, scene["rest"].shape) == ((3, 1), (3, 2))


@pytest.mark.parametrize("backend", BACKENDS)
def test_errors_of_a_lane_reach_the_caller(backend):
    with pytest.raises(RuntimeError, match="no luck"):
        HostPool(functools.partial(Counter, fail=RuntimeError("no luck")), [(0,)], backend)
    with HostPool(functools.partial(Counter, unready=True), [(0,), (1,)], backend) as pool:
        with pytest.raises(ValueError, match="not ready"):
            pool.reset()
        with pytest.raises(RuntimeError, match="closed"):
            pool.reset()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_lane_that_fails_begins_its_next_episode_and_the_third_time_in_a_row_is_the_last(backend, caplog):
    with HostPool(Counter, [(0,), (1,)], backend) as pool, HostPool(Counter, [(0,), (1,)], "serial") as whole:
        well, bad = np.zeros((2, 2), np.float32), np.array([[0, 0], [0, 0.5]], np.float32)
        for each in (pool, whole):
            each.reset()
        before = pool.step(well).step.scene
        whole.step(well)
        failed, other = pool.step(bad), whole.step(well)
        assert failed.step.truncated.tolist() == [False, True] and np.asarray(failed.step.reward)[1] == 0
        np.testing.assert_array_equal(failed.step.scene[1], before[1])
        np.testing.assert_array_equal(failed.reset[1], [episode_seed((1,), 1), 0, 0])
        np.testing.assert_array_equal(failed.step.scene[0], other.step.scene[0])
        assert "half is too much" in caplog.text and "in step" in caplog.text and "Traceback" in caplog.text
        assert pool.snapshot()["episode"].tolist() == [0, 1] and pool.snapshot()["steps"].tolist() == [2, 0]
        for _ in range(5):
            pool.step(well)  # a whole episode of each: what failed before no longer counts
        pool.step(bad)
        pool.step(bad)
        assert pool.failure is None
        last = pool.step(bad)
        assert np.asarray(last.step.truncated)[1] and pool.snapshot()["steps"][1] == 0
        assert "environment 1 of counter failed 3 times" in str(pool.failure)
        assert "ValueError: half is too much" in str(pool.failure)
        with pytest.raises(RuntimeError, match="failed 3 times"):
            pool.step(well)


def test_a_worker_that_died_between_two_episodes_is_replaced(caplog):
    with HostPool(Counter, [(0,), (1,)], "process") as pool:
        pool.reset()
        worker: Any = pool._workers[1]
        os.kill(worker._process.pid, signal.SIGKILL)
        np.testing.assert_array_equal(pool.reset([4, 4])[:, 0], [episode_seed((0,), 4), episode_seed((1,), 4)])
        assert "worker 1 died (exit code -9)" in caplog.text


def test_errors_that_do_not_pickle_keep_their_name_and_traceback(caplog):
    with HostPool(Counter, [(0,)], "process") as pool:
        pool.reset()
        pool.step(np.array([[0, 0.25]], np.float32))
    assert "RuntimeError: Unpicklable: a quarter" in caplog.text and "In an environment worker" in caplog.text


@pytest.mark.parametrize(
    ("backend", "action", "told"),
    [
        ("process", -0.5, "worker 1 died (exit code 3)"),
        ("process", -0.25, "worker 1 did not answer within 1 s"),
        ("thread", -0.25, "worker 1 did not answer within 1 s"),
    ],
)
def test_a_dead_or_hung_worker_is_told_and_replaced(backend, action, told, caplog):
    pool = HostPool(Counter, [(0,), (1,)], backend)
    pool.reset()
    pool._timeout = 1.0
    begun = time.monotonic()
    outcome = pool.step(np.array([[0, 0], [0, action]], np.float32))
    pool._timeout = 60.0
    assert told in caplog.text and outcome.step.truncated.tolist() == [False, True]
    assert pool.step(np.zeros((2, 2), np.float32)).step.scene[:, 1].tolist() == [2, 1]
    pool.close()
    assert time.monotonic() - begun < 40, "it waited for a worker that hangs"


def test_mistakes_of_the_caller():
    with pytest.raises(ValueError, match=r"env\.workers"):
        HostPool(Counter, STREAMS, "processes")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one lane"):
        HostPool(Counter, [], "serial")
    with pytest.raises(ValueError, match="picklable"):
        HostPool(lambda: Counter(), STREAMS, "process")
    with HostPool(Counter, STREAMS, "serial") as pool:
        with pytest.raises(RuntimeError, match="reset"):
            pool.step(np.zeros((3, 2), np.float32))
        with pytest.raises(ValueError, match="nothing to restore"):
            pool.restore(pool.snapshot())
        with pytest.raises(ValueError, match="one per lane"):
            pool.reset([0, 1])
        pool.reset()
        with pytest.raises(ValueError, match=r"shape \(3, 2\), got \(2, 2\)"):
            pool.step(np.zeros((2, 2), np.float32))
        with pytest.raises(ValueError, match="'actions' has shape"):
            pool.restore({**pool.snapshot(), "actions": np.zeros((3, 4, 2), np.float32)})
        pool.step(np.zeros((3, 2), np.float32))  # none of these closed the pool


PARENT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started the tests with it ignored
sys.path.insert(0, sys.argv[1])
import numpy as np
from envs.pools.host import HostPool
from fake_env import Counter
pool = HostPool(Counter, [(0,), (1,)], "process")
pool.reset()
print(*(worker._process.pid for worker in pool._workers), flush=True)
while True:
    pool.step(np.array([[0, 0], [0, float(sys.argv[2])]], np.float32))
"""


@pytest.mark.parametrize(
    ("way", "action"),
    [(signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGKILL, 0), pytest.param(signal.SIGKILL, -0.25, id="hung")],
)
def test_workers_end_with_their_parent(way, action):
    command = [sys.executable, "-c", PARENT, os.path.dirname(fake_env.__file__), str(action)]
    parent = subprocess.Popen(
        command, text=True, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert parent.stdout is not None
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(workers) == 2
    if way == signal.SIGINT:
        os.killpg(parent.pid, way)  # as a terminal does: to the workers too
    else:
        parent.send_signal(way)
    try:
        _, errors = parent.communicate(timeout=20)
    finally:
        parent.kill()
    deadline = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{pid}") for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in workers)
    assert errors.count("Traceback") == (1 if way == signal.SIGINT else 0), errors
