"""Tasks that take turns in the training loops: cuts, replay, chunks, and resuming in any phase."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from tiny_device import Seen, reader
from turning import ENVS, SEEDS, SWITCHES, TOTAL, build
from turns import TASKS

from agents.replay import make_replay
from envs.types import ArraySpec, DeviceEnv, EnvSpec, TimeStep, observe
from experiments.train.evaluation import Evaluation, Evaluator, device_evaluator
from experiments.train.loop import make_advance
from experiments.train.schedule import Schedule
from experiments.train.step import make_steps
from experiments.train.task_loop import evaluate_in_turns

KINDS = [pytest.param(True, id="device"), pytest.param(False, id="host")]


@pytest.fixture(scope="module", params=KINDS)
def trained(request):
    built = build(request.param)
    run, pool = built.train()
    programs: Any = built.advances or (built.steps.enter, built.steps.remember)
    traced = [program._cache_size() for program in programs]
    assert traced == [1] * len(traced), "a task's program is compiled again when its turn comes again"
    return built, run, pool


def lanes(built, run):
    """Every lane's slots as numpy arrays, cut to what was written; nothing is lost at this capacity."""
    for seed in range(len(SEEDS)):
        for lane in range(ENVS):
            replay_state = jax.tree.map(lambda leaf, at=(seed, lane): np.asarray(leaf[at]), run.rollout.replay_state)
            yield seed, replay_state, int(replay_state.slots)


def test_replay_is_the_tasks_in_turn_and_never_crosses_a_switch(trained):
    built, run, _ = trained
    counted = np.zeros(len(SEEDS))
    for seed, replay_state, slots in lanes(built, run):
        task, mark, steps, gained = replay_state.scene[:slots, :4].T
        assert (steps == replay_state.episode_step[:slots]).all()
        widths = np.array([features for features, *_ in TASKS.values()])[task.astype(int) - 1]
        assert (replay_state.scene[:slots, 4:] == (np.arange(4, 6) < widths[:, None])).all(), "padding"
        made = np.cumsum(replay_state.episode_step[:slots] > 0)  # steps taken up to each slot
        cuts = np.flatnonzero(np.diff(task)) + 1
        assert made[cuts].tolist() == SWITCHES and (replay_state.episode_step[cuts] == 0).all()
        assert (task[cuts] - 1).tolist() == [1, 2, 0, 1]
        # A transition is two slots of one episode; brute force over all neighbours.
        same = (task[1:] == task[:-1]) & (mark[1:] == mark[:-1]) & (steps[1:] == steps[:-1] + 1)
        np.testing.assert_array_equal(replay_state.start[: replay_state.transitions], np.flatnonzero(same))
        assert replay_state.transitions == TOTAL
        # An episode that was cut ended by nothing, and its return is dropped; all other ends are counted.
        ends = np.flatnonzero(replay_state.episode_step[1:slots] == 0)
        steps_of = np.array([limit for *_, limit in TASKS.values()])[task.astype(int) - 1]
        over = (gained > 2) | (steps == steps_of)
        assert (replay_state.terminal[:slots] == (gained > 2)).all()
        np.testing.assert_array_equal(ends[~over[ends]], cuts - 1)
        counted[seed] += sum(over[end] for end in ends)
    np.testing.assert_array_equal(run.rollout.returns.count, counted)


def test_samples_are_of_one_episode_and_their_returns_stop_at_a_cut(trained):
    built, run, _ = trained
    replay_state = jax.tree.map(lambda leaf: leaf[0], run.rollout.replay_state)
    sample = jax.jit(lambda key: built.replay.sample(replay_state, key, 2_000))(jax.random.key(0))
    obs, after = (np.asarray(each).reshape(-1, 2, 6) for each in (sample.obs, sample.next_obs))
    for seen in (obs, after):  # stacks do not cross either
        assert (seen[:, 0, :2] == seen[:, 1, :2]).all()
    assert (obs[:, 1, :2] == after[:, 1, :2]).all()
    length = after[:, 1, 2] - obs[:, 1, 2]
    assert set(length) == {1, 2}
    assert len(np.unique(obs[:, 1, 0])) == 3
    # The reward of a step is what its scene has gained, the fourth entry.
    between = np.where(length == 2, after[:, 0, 3] + 0.9 * after[:, 1, 3], after[:, 1, 3])
    np.testing.assert_allclose(sample.reward, between, rtol=1e-5)
    np.testing.assert_allclose(sample.discount, np.where(after[:, 1, 3] > 2, 0, 0.9**length), rtol=1e-5)


def test_what_is_seen_after_a_switch_is_the_new_tasks_first_scene(trained):
    built, _, _ = trained
    pool = built.pool()
    seen, tasks = [], []

    def callback(run):
        seen.append(run.step)
        tasks.append(pool.task)
        if run.step in SWITCHES:
            obs = np.asarray(run.rollout.obs)  # seeds, envs, stack, features
            assert (obs[..., 0] == pool.task + 1).all() and (obs[..., 2] == 0).all()
            assert not run.rollout.episode_step.any() and not run.rollout.episode_return.any()
        return run

    run, _ = built.train(pool, callback=callback, until=SWITCHES[-1] + 1)
    assert seen == sorted(set(seen)), "paused twice"
    assert set(SWITCHES) <= set(seen) and run.step == seen[-1]
    phases = [sum(step >= switch for switch in SWITCHES) for step in seen]
    assert tasks == [phase % 3 for phase in phases]


def test_chunks_of_any_length_are_one_run():
    built = build(True)
    run, pool = built.train()
    for ends in ((1, 10, 12, 31), SWITCHES, range(0, TOTAL, 7)):
        other, others = built.train(ends=ends)
        tiny.equal(other.learner, run.learner)
        tiny.equal(other.rollout, run.rollout)
        tiny.equal(others.snapshot(), pool.snapshot())


# In a phase; at a switch, as the monitor saves it; at a switch, before the new task has begun; at the end.
@pytest.mark.parametrize(
    ("until", "paused"), [pytest.param(25, False, marks=pytest.mark.slow), (21, True), (21, False), (TOTAL, True)]
)
def test_resumed_equals_uninterrupted_bit_for_bit(trained, until, paused, tmp_path):
    built, whole, end_pool = trained
    folder, pool = tmp_path / "checkpoint", built.pool()

    def callback(run):
        if paused and run.step == until:
            tiny.save(folder, run, pool)
        return run

    stopped, _ = built.train(pool, callback=callback, until=min(until + 1, TOTAL) if paused else until)
    if not paused:
        tiny.save(folder, stopped, pool)

    pool = built.pool()
    run = tiny.restored(folder, built, pool)
    assert run.step == until
    end, pool = built.train(pool, run)
    tiny.equal(end.learner, whole.learner)
    tiny.equal(end.rollout, whole.rollout)
    tiny.equal(pool.snapshot(), end_pool.snapshot())


@pytest.mark.parametrize("on_device", [pytest.param(True, marks=pytest.mark.slow), False], ids=["device", "host"])
def test_pixels_of_all_tasks_are_frames(on_device):
    built = build(on_device, pixels=True)
    run, _ = built.train()
    for _, replay_state, slots in lanes(built, run):
        frames = replay_state.scene[:slots]
        assert frames.shape == (slots, 4, 4, 3) and frames.dtype == np.uint8
        assert (frames == frames[:, :1, :1]).all()
        task, steps = frames[:, 0, 0, 0], frames[:, 0, 0, 2]
        assert (steps == replay_state.episode_step[:slots]).all()
        assert (task[np.flatnonzero(np.diff(task)) + 1] - 1).tolist() == [1, 2, 0, 1]


def clock() -> DeviceEnv:
    """The reward is the frame; episodes of three steps."""

    def made(frame) -> DeviceEnv:
        def reset(key):
            return jnp.int32(0), jnp.zeros(2)

        def step(episode_step, action, key):
            return episode_step + 1, TimeStep(
                jnp.ones(2), jnp.asarray(frame, jnp.float32), jnp.array(False), episode_step == 2
            )

        spec = EnvSpec("clock", ArraySpec((2,), np.dtype(np.float32)), observe, 1, 2, 3, False)
        return DeviceEnv(
            spec, reset, step, lambda episode_step: jnp.zeros(2), lambda picture, size: jnp.zeros((size, size, 3))
        )

    return made(0)._replace(at=made)


def test_the_device_loop_tells_the_environment_the_frame():
    env, schedule = clock(), Schedule(20, 6, num_envs=3)
    replay = make_replay(env.spec.scene, observe, 1, capacity=90, stack=1, nstep=1, discount=0.9, num_envs=3)
    parts: dict[str, Any] = dict(batch_size=4, frame_stack=1, how="vmap", measure=lambda *_: {})
    steps = make_steps(reader(), replay, env.spec, schedule, **parts)
    advance: Any = make_advance(steps, schedule, env)
    keys = jax.random.split(jax.random.key(0))
    state, scene = jax.vmap(env.reset)(jax.random.split(keys[0], 6))
    learner, rollout = steps.init(keys, scene)
    for first, end in ((0, 7), (7, 20)):
        learner, rollout, state = advance(learner, rollout, state, keys, np.int32(first), np.int32(end))
    assert advance._cache_size() == 1
    for lane in np.asarray(rollout.replay_state.reward).reshape(6, 30):
        taken = np.asarray(rollout.replay_state.episode_step).reshape(6, 30)[0] > 0
        np.testing.assert_array_equal(lane[taken], np.arange(20) * 2 * 3)


def test_evaluation_is_at_the_frame_and_one_program():
    keys = jax.random.split(jax.random.key(0))
    evaluator = device_evaluator(clock(), reader(), keys, episodes=2, frame_stack=1, how="vmap")
    state = Seen(jnp.zeros((2, 4)))
    for frame in (0, 5, 7):
        np.testing.assert_array_equal(evaluator.greedy(state, 0, frame).returns, np.full((2, 2), 3 * frame))


def test_tasks_in_turn_are_evaluated_by_their_own_environments():
    asked, closed = [], []

    def told(i):
        def greedy(state, video_size, frame=0):
            asked.append((i, state, video_size))
            return Evaluation(np.full((1, 1), i), None)

        return Evaluator(greedy, lambda: Evaluation(np.full((1, 1), -i), None), lambda: closed.append(i))

    tasks = build(True).tasks
    evaluator = evaluate_in_turns([told(i) for i in range(3)], tasks)
    for frame, task in ((0, 0), (41, 0), (42, 1), (84, 2), (130, 0), (10**6, 10**6 // 42 % 3)):
        assert evaluator.greedy("state", 7, frame).returns == task and asked[-1] == (task, "state", 7)
    assert evaluator.random().returns == 0
    evaluator.close()
    assert closed == [0, 1, 2]
