"""The device loop: what the host loop computes, in chunks of any length, without copying the replay."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import tiny_device
from tiny_device import build, train

import ne_jax
from experiments.train.loop import Run, train_on_host
from experiments.train.network_metrics import all_masks
from experiments.train.schedule import Schedule
from ne_jax.experience_review import make_review

REVIEW = make_review("gate", every=3, awaken=1.0, auto_batch=True)


def host_run(built):
    pool: Any = tiny_device.HostBlobs(built)
    run = Run(0, *built.steps.init(built.keys, pool.reset()))
    return train_on_host(built.steps, built.schedule, pool, built.keys, run, tiny.quiet)


def same_run(one, other, exact=True):
    """Whole numbers and masks bit for bit in any case."""
    assert one.step == other.step
    tiny.equal(all_masks(one.learner.agent), all_masks(other.learner.agent))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        tiny.equal(a, b, exact or not jnp.issubdtype(jnp.asarray(a).dtype, jnp.floating))


@pytest.mark.parametrize(
    ("num_envs", "how", "every", "each"),
    [
        (1, "vmap", 1, 1),
        pytest.param(3, "map", 1, 2, marks=pytest.mark.slow),
        pytest.param(3, "vmap", 2, 1, marks=pytest.mark.slow),
        pytest.param(1, "map", 2, 2, marks=pytest.mark.slow),
    ],
)
def test_device_and_host_loop_are_one(num_envs, how, every, each):
    built = build("reader", num_envs=num_envs, how=how, every=every, each=each)
    run, _ = train(built)
    same_run(run, host_run(built), exact=False)
    made = built.schedule.updates(40)
    assert made == sum(each for step in range(40) if step >= 6 and (step - 6) % every == 0)
    assert run.learner.metrics.count.tolist() == [made] * 2
    last_update = 6 + (33 // every) * every
    for i in range(2):
        told = jax.tree.map(lambda total, i=i: float(total[i]), run.learner.metrics.total)
        assert told["update"] == sum(range(made))
        assert told["env"] == num_envs * each * sum(range(6, last_update + 1, every))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "settings"),
    [("td3", dict(num_envs=3, each=2)), ("drq", dict(how="map", every=2, store="frame"))],
)
def test_device_and_host_loop_train_one_agent(kind, settings):
    built = build(kind, **settings)
    assert built.schedule.updates(40) > 16, "too few topology rounds"
    run, _ = train(built)
    same_run(run, host_run(built), exact=False)
    start, _ = train(built, until=0)
    density, before = (ne_jax.density(all_masks(r.learner.agent))["all"] for r in (run, start))
    assert (np.asarray(density) > np.asarray(before) + 0.2).all()


@pytest.mark.slow
def test_chunks_of_any_length_are_one_run():
    built = build("td3", num_envs=3, each=2)
    one, pool = train(built, ends=())
    for ends in ((1, 2, 5, 12, 13, 30), range(0, 40, 7)):
        many, other = train(built, ends=ends)
        same_run(one, many)
        tiny.equal(pool.snapshot(), other.snapshot())
    assert built.advance._cache_size() == 1


def test_one_chunk_goes_as_far_as_the_clock_allows():
    """Chunks start short and grow, and end where something is due."""
    built, steps = build("reader"), []
    train(built, ends=(17, 33), callback=lambda run: steps.append(run.step) or run)
    assert steps[0] == 0 and steps[1] == 1 and steps[-1] == 40
    assert {17, 33} <= set(steps)
    assert len(steps) < 20


@pytest.mark.slow
@pytest.mark.parametrize("how", ["vmap", "map"])
def test_a_lane_is_the_seed_alone(how):
    together, _ = train(build("td3", num_envs=3, each=2, how=how), until=16)
    alone, _ = train(build("td3", num_envs=3, each=2, how=how, seeds=(5,)), until=16)
    one, other = (Run(16, *(tiny.lane(part, i) for part in run[1:])) for run, i in ((together, 1), (alone, 0)))
    assert all_masks(one.learner.agent)
    same_run(one, other, exact=False)


@pytest.mark.parametrize(
    ("kind", "settings", "depths"),
    [
        ("td3", dict(num_envs=3, each=2), {2, 3}),  # the critic's rounds, and the actor's inside the delayed branch
        pytest.param("td3", dict(num_envs=3, each=2, how="map"), {2, 3}, marks=pytest.mark.slow),
        ("drq", dict(how="map", every=2, store="frame"), {2}),
        pytest.param("drq", dict(how="vmap"), {2}, marks=pytest.mark.slow),
    ],
)
def test_rounds_and_delays_stay_branches(kind, settings, depths):
    built = build(kind, **settings)
    found = list(tiny.primitives(jax.make_jaxpr(built.advance)(*abstract(built)).jaxpr))
    assert ("cond", 0) in found
    assert {depth for name, depth in found if name == "select"} == depths
    assert {depth for name, depth in found if name == "dot_general"} == set(range(max(depths) + 1))


def abstract(built):
    """The arguments of `advance`, as shapes only."""
    worlds, scene = jax.eval_shape(jax.vmap(built.env.reset), tiny_device.pool_of(built)._keys)
    learner, rollout = jax.eval_shape(built.steps.init, built.keys, scene)
    return learner, rollout, worlds, built.keys, np.int32(0), np.int32(1)


@pytest.mark.parametrize(
    ("kind", "how", "store", "review"),
    [
        ("reader", "map", "scene", None),
        pytest.param("td3", "vmap", "scene", None, marks=pytest.mark.slow),
        pytest.param("td3", "vmap", "scene", REVIEW, marks=pytest.mark.slow),
        pytest.param("td3", "map", "frame", None, marks=pytest.mark.slow),
        pytest.param("drq", "map", "frame", REVIEW, marks=pytest.mark.slow),
    ],
)
def test_the_replay_is_never_copied(kind, how, store, review):
    temporary = []
    for capacity in (2_000, 50_021):
        built = build(kind, how=how, store=store, capacity=capacity, review=review)
        compiled = built.advance.lower(*abstract(built)).compile()
        analysis = compiled.memory_analysis()
        temporary.append(analysis.temp_size_in_bytes)
        assert analysis.alias_size_in_bytes > 2 * built.replay.nbytes, "not donated"
    copies = [line for line in compiled.as_text().splitlines() if "50021" in line and " copy(" in line]
    assert not copies
    assert abs(temporary[1] - temporary[0]) < 2_000, temporary


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "how"), [("drq", "map")])
def test_what_the_replay_keeps_changes_nothing(kind, how):
    frame, _ = train(build(kind, how=how, every=2, store="frame"))
    scene, _ = train(build(kind, how=how, every=2, store="scene"))
    tiny.equal(frame.learner, scene.learner)
    tiny.equal(frame.rollout.obs, scene.rollout.obs)
    for store, run in (("frame", frame), ("scene", scene)):
        arrays = jax.tree.leaves(run.rollout.replay_state)
        assert sum(array.nbytes for array in arrays) == 2 * build(kind, how=how, every=2, store=store).replay.nbytes
    assert (
        frame.rollout.replay_state.scene.shape == (2, 1, 60, 8, 8, 3)
        and frame.rollout.replay_state.scene.dtype == np.uint8
    )
    assert scene.rollout.replay_state.scene.shape == (2, 1, 60, 3)


@pytest.mark.slow
def test_returns_sum_one_reward_before_nstep_from():
    settings = dict(num_envs=3, each=2)
    later = build("reader", **settings, nstep=3, nstep_from=36)  # agent steps: 12 steps of the loop
    single, triple = (build("reader", **settings, nstep=n) for n in (1, 3))
    run, pool = train(single, until=12)
    expected, _ = train(triple, pool, run)
    got, _ = train(later)
    same_run(got, expected, exact=False)
    always, _ = train(triple)
    assert np.abs(np.asarray(always.learner.agent.values - got.learner.agent.values)).min() > 1e-3


def test_returns_are_counted_by_episode():
    """Against the environments' own account, read from the replay, of which nothing is lost here."""
    run, _ = train(build("reader", num_envs=3, capacity=600))
    for i in range(2):
        rollout, ended, total, reasons = tiny.lane(run.rollout, i), 0, 0.0, set()
        for lane in range(3):
            replay_state = jax.tree.map(lambda leaf, lane=lane: np.asarray(leaf[lane]), rollout.replay_state)
            episode_step, reward = (
                replay_state.episode_step[: replay_state.slots],
                replay_state.reward[: replay_state.slots],
            )
            firsts = np.flatnonzero(episode_step == 0)
            episodes = [part.sum() for part in np.split(reward, firsts[1:])]
            reasons |= set(replay_state.terminal[firsts[1:] - 1].tolist())
            np.testing.assert_allclose(rollout.episode_return[lane], episodes[-1], rtol=1e-5)
            assert (
                rollout.episode_step[lane] == episode_step[-1]
                and replay_state.slots == 41 + len(firsts) - 1
                and replay_state.transitions == 40
            )
            assert (episode_step[firsts[1:] - 1][~replay_state.terminal[firsts[1:] - 1]] == tiny_device.EPISODE).all()
            ended, total = ended + len(firsts) - 1, total + sum(episodes[:-1])
        assert rollout.returns.count == ended > 6 and reasons == {True, False}
        np.testing.assert_allclose(rollout.returns.total, total, rtol=1e-5)


@pytest.mark.slow
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path):
    built = build("td3", num_envs=3, each=2)
    uninterrupted, end_pool = train(built)
    run, pool = train(built, until=23)
    tiny.save(tmp_path / "checkpoint", run, pool)

    pool = tiny_device.pool_of(built)
    run = tiny.restored(tmp_path / "checkpoint", built, pool)
    assert run.step == 23
    run, _ = train(built, pool, run, until=25)
    traced = built.advance._cache_size()
    end, pool = train(built, pool, run)
    same_run(end, uninterrupted)
    tiny.equal(pool.snapshot(), end_pool.snapshot())
    assert built.advance._cache_size() == traced, "traced again after the restore"


MOST = 2**31 - 1


@pytest.mark.parametrize(
    ("schedule", "last"),
    [
        (Schedule(MOST // 2, 5), MOST // 2),
        (Schedule(MOST // 2, 5, num_envs=2), MOST // 2),
        (Schedule(MOST // 7, 5, updates_each=7), MOST // 7),
        (Schedule(MOST // 1000, 999, num_envs=1000), MOST // 1000),
        (Schedule(MOST // 2, 12345, every=1000), MOST // 2),
    ],
)
def test_the_longest_runs_count_in_32_bits(schedule, last):
    @jax.jit
    def count(step):
        return schedule.due(step), schedule.updates(step), schedule.at(step)

    for step in (0, 4, 5, 6, last // 2, last - 1, last):
        due, updates, at = count(np.int32(step))
        assert updates.dtype == at.env.dtype == np.int32
        exact = max(0, -((schedule.first_update - step) // schedule.every)) * schedule.updates_each
        assert int(updates) == int(at.update) == exact <= MOST
        assert int(at.env) == step * schedule.num_envs <= MOST
        assert bool(due) == (step >= schedule.first_update and (step - schedule.first_update) % schedule.every == 0)
