"""The dynamic replay in the loops: the distance of policies, what is forgotten and when, and exact resumption."""

from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import tiny_device
from tiny_device import build, fresh, pool_of

from experiments.train.experience import Dynamic
from experiments.train.loop import Run, train_on_host
from experiments.train.schedule import Schedule
from ne_jax.experience_review import make_review

FORGETS = Dynamic(min_size=5, threshold=0.0)  # at the least difference between policies
GATE = make_review("gate", every=3, awaken=1.0, auto_batch=True)
SLOPE = make_review("slope", every=2, window=3, most=1.0)
DEVICE: dict[str, Any] = dict(num_envs=3, each=2, capacity=600, dynamic=FORGETS, forget_every=4, review=GATE)


def train(*args, **kwargs) -> Any:
    return tiny_device.train(*args, **kwargs)


def device() -> Any:
    return build("td3", **DEVICE)


@cache
def hardly_forgetting(until=40) -> Any:
    """A run whose policies do not move as far as its threshold."""
    built = build("td3", **{**DEVICE, "dynamic": Dynamic(100, 0.05)})
    return built, train(built, until=until)[0]


def by_age(replay_state, i, lanes=3):
    """Of seed `i`, (start slot, slot after it) of each lane's transitions, the oldest first; nothing is lost yet."""
    replay_state = jax.tree.map(lambda leaf: np.asarray(leaf[i]), replay_state)
    ages = [replay_state.episode_step[lane, : replay_state.slots[lane]] for lane in range(lanes)]
    return replay_state, [
        [s for s in range(len(episode_step) - 1) if episode_step[s + 1] == episode_step[s] + 1] for episode_step in ages
    ]


@pytest.mark.slow
def test_means_are_those_of_the_policy_that_acted():
    """While actions are random, they are the actions (RLx2's code has it so); then the policy's, noise left out."""
    built = device()
    run, pool = train(built, until=5)  # one check, in step 4; learning begins in step 6
    assert run.rollout.distance.count.tolist() == [1, 1]
    assert (np.asarray(run.rollout.replay_state.forgotten) == 0).all()
    greedy = jax.jit(jax.vmap(lambda state, obs: built.agent.act(state, obs, jax.random.key(0), None), (None, 0)))
    random = -(-built.agent.random_steps // 3)  # steps: three environments take theirs in each
    for i in range(2):
        replay_state, starts = by_age(run.rollout.replay_state, i)
        squares = []
        for lane in range(3):
            means = greedy(tiny.lane(run.learner.agent, i), replay_state.scene[lane, starts[lane]])
            action, mean = (each[lane, np.add(starts[lane], 1)] for each in (replay_state.action, replay_state.mean))
            np.testing.assert_array_equal(mean[:random], action[:random])
            np.testing.assert_allclose(mean[random:], means[random:], rtol=1e-5, atol=1e-6)
            assert np.abs(action - means)[random:].max() > 0.01
            squares.append((mean - means)[:4] ** 2)  # the check comes before the fifth step
        np.testing.assert_allclose(run.rollout.distance.total[i], np.mean(squares) / 2, rtol=1e-4)
    run, _ = train(built, pool, run, until=13)
    assert run.rollout.distance.count.tolist() == [3, 3]
    assert (np.asarray(run.rollout.distance.total) > 1e-8).all()


@pytest.mark.parametrize("until", [pytest.param(8, marks=pytest.mark.slow), 40])
def test_the_distance_is_half_the_mean_square_over_the_oldest(until):
    """With an actor of zeros, whose mean is zero everywhere, the distance is that of the stored means from zero."""
    built, run = hardly_forgetting(until)
    zeros = jax.tree.map(jnp.zeros_like, run.learner.agent.actor.params)
    agent = replace(run.learner.agent, actor=replace(run.learner.agent.actor, params=zeros))
    before, check = run.rollout.distance, built.steps.forget(replace(run.learner, agent=agent), run.rollout)
    found = np.asarray(check.distance.total - before.total)
    for i in range(2):
        replay_state, starts = by_age(run.rollout.replay_state, i)
        assert sum(map(len, starts)) == 3 * until
        oldest = [(lane, starts[lane][n]) for n in range(until) for lane in range(3)][:64]  # as many as there are
        means = np.array([replay_state.mean[lane, start + 1] for lane, start in oldest], np.float64)
        np.testing.assert_allclose(found[i], (means**2).mean() / 2, rtol=1e-4)
        assert means.std() > 1e-3
    np.testing.assert_array_equal(check.distance.count, np.asarray(before.count) + 1)


def test_each_seed_forgets_when_its_own_policy_has_moved():
    built, run = hardly_forgetting()
    agent = run.learner.agent
    # Seed 0 has the actor of always: its stored means are made what it does now. Those of seed 1 are far from that.
    means = jnp.stack([run.rollout.replay_state.mean[0], jnp.full_like(run.rollout.replay_state.mean[1], 5.0)])
    replay_state, _ = by_age(run.rollout.replay_state, 0)
    now = jax.vmap(jax.vmap(lambda obs: built.agent.act(tiny.lane(agent, 0), obs, jax.random.key(0), None)))(
        replay_state.scene
    )
    means = means.at[0, :, 1:].set(now[:, :-1])
    rollout = replace(run.rollout, replay_state=replace(run.rollout.replay_state, mean=means))
    sizes = []
    for _ in range(5):
        rollout = rollout.after(built.steps.forget(run.learner, rollout))
        sizes.append(jax.vmap(built.replay.ready)(rollout.replay_state).tolist())
    # 12 of each lane of 40, 36, 33, ... are a tenth: 120 - 12 = 108, and then as many as leave 100.
    assert sizes == [[120, 108], *[[120, 100]] * 4]
    batch = built.replay.sample(tiny.lane(rollout.replay_state, 1), jax.random.key(0), 3_000)
    assert len(np.unique(batch.obs, axis=0)) == 100


@pytest.mark.slow
def test_the_device_loop_checks_when_the_host_loop_does():
    built = device()
    run, _ = train(built, ends=(3, 4, 9, 29))
    pool: Any = tiny_device.HostBlobs(built)
    start = Run(0, *built.steps.init(built.keys, pool.reset()))
    other: Any = train_on_host(built.steps, built.schedule, pool, built.keys, start, tiny.quiet)
    assert run.rollout.distance.count.tolist() == other.rollout.distance.count.tolist() == [9, 9]  # 4, 8, ..., 36
    np.testing.assert_array_equal(run.rollout.replay_state.forgotten, other.rollout.replay_state.forgotten)
    np.testing.assert_array_equal(run.learner.review.count, other.learner.review.count)
    tiny.equal(run.learner.agent, other.learner.agent, exact=False)
    tiny.equal(run.rollout, other.rollout, exact=False)
    # The check in step 4 finds no distance; from step 8 on each takes a tenth of every lane.
    gone = 0
    for held in range(8, 40, 4):
        gone += (held - gone) // 10
    assert gone > 4 and (np.asarray(run.rollout.replay_state.forgotten) == gone).all()


@pytest.mark.slow
def test_a_lane_is_the_seed_alone():
    together, alone = device(), build("td3", **DEVICE, seeds=(5,))
    one, other = (train(built, until=17)[0] for built in (together, alone))
    assert (np.asarray(one.rollout.replay_state.forgotten) > 0).all()
    assert (np.asarray(one.learner.metrics.total["review/share"]) > 0).all()
    tiny.equal(tiny.lane(one.rollout, 1), tiny.lane(other.rollout, 0), exact=False)
    tiny.equal(tiny.lane(one.learner, 1), tiny.lane(other.learner, 0), exact=False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["td3", "drq"])
def test_resumed_equals_uninterrupted_bit_for_bit(kind, tmp_path):
    """TD3 on the device with the gate, DrQ with its environments on the host and the slope; both forget."""

    def begun() -> Any:
        if kind == "td3":
            built = device()
            pool = pool_of(built)
            return built, pool, lambda run, until=None: train(built, pool, run, until=until)[0]
        built = tiny.experiment(review=SLOPE, dynamic=FORGETS)
        return built, built.pool, lambda run, until=None: tiny.train(built, run, until=until)

    built, pool, go = begun()
    run = go(fresh(built, pool), 23)
    tiny.save(tmp_path / "checkpoint", run, pool)
    end = go(run)
    assert (np.asarray(end.rollout.replay_state.forgotten) > 0).all()
    assert (np.asarray(end.learner.metrics.total["review/share"]) > 0).all()

    built, pool, go = begun()
    run = tiny.restored(tmp_path / "checkpoint", built, pool)
    assert run.step == 23
    resumed = go(run)
    tiny.equal(resumed.learner, end.learner)
    tiny.equal(resumed.rollout, end.rollout)


@pytest.mark.slow
def test_the_replay_is_never_copied():
    temporary = []
    for capacity in (2_000, 50_021):
        built = build("td3", dynamic=FORGETS, forget_every=4, capacity=capacity, review=GATE)
        worlds, scene = jax.eval_shape(jax.vmap(built.env.reset), pool_of(built)._keys)
        learner, rollout = jax.eval_shape(built.steps.init, built.keys, scene)
        compiled = built.advance.lower(learner, rollout, worlds, built.keys, np.int32(0), np.int32(1)).compile()
        temporary.append(compiled.memory_analysis().temp_size_in_bytes)
    assert not [line for line in compiled.as_text().splitlines() if "50021" in line and " copy(" in line]
    assert abs(temporary[1] - temporary[0]) < 2_000, temporary


@pytest.mark.parametrize("how", ["vmap", pytest.param("map", marks=pytest.mark.slow)])
def test_the_check_stays_a_branch(how):
    """By matrix products: the means cost one more policy in acting, the check all of its own behind one cond."""
    counts = []
    for dynamic in (None, FORGETS):
        built = build("td3", how=how, dynamic=dynamic, forget_every=4 if dynamic else 0)
        worlds, scene = jax.eval_shape(jax.vmap(built.env.reset), pool_of(built)._keys)
        learner, rollout = jax.eval_shape(built.steps.init, built.keys, scene)
        jaxpr = jax.make_jaxpr(built.advance)(learner, rollout, worlds, built.keys, np.int32(0), np.int32(1)).jaxpr
        depths = [depth for name, depth in tiny.primitives(jaxpr) if name == "dot_general"]
        counts.append([depths.count(depth) for depth in range(4)])
    (acting, learning, *deeper), (both, with_check, *still) = counts
    assert both == 2 * acting and with_check == learning + acting and still == deeper


def test_checks_come_every_so_many_steps():
    schedule = Schedule(100, 6, forget_every=7)
    assert [step for step in range(30) if schedule.forgets(step)] == [7, 14, 21, 28]
    assert jax.jit(schedule.forgets)(np.int32(14)) and not jax.jit(schedule.forgets)(np.int32(0))
    assert Schedule(100, 6).forgets(7) is False
