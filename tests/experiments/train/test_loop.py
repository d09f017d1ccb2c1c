"""The loop: seeds side by side equal seeds alone, branches stay branches, and nothing is traced twice."""

import jax
import numpy as np
import pytest
import tiny

import ne_jax
from agents.types import Clock
from experiments.train.schedule import Schedule


def trained(how="map", seeds=(3, 5), until=None):
    built = tiny.experiment(seeds, how)
    return built, tiny.train(built, until=until)


@pytest.fixture(scope="module")
def mapped():
    return trained()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["map", "vmap"])
def test_a_lane_is_the_seed_alone(how):
    # Short of exact, because XLA fuses and sums otherwise for one seed than for two; so few steps, and masks exactly.
    built, together = trained(how, until=16)
    assert built.schedule.updates(16) > 8, "no topology round would be compared"
    _, alone = trained(how, seeds=(5,), until=16)
    one, other = tiny.lane(together.learner.agent, 1), tiny.lane(alone.learner.agent, 0)
    for name in ("actor", "critic", "encoder"):
        tiny.equal(getattr(one, name).params, getattr(other, name).params, exact=False)
    for name in ("actor", "critic"):
        masks, others = (ne_jax.masks(getattr(agent, name).opt_state) for agent in (one, other))
        assert masks
        tiny.equal(masks, others)
    tiny.equal(tiny.lane(together.rollout.replay_state.scene, 1), tiny.lane(alone.rollout.replay_state.scene, 0))


@pytest.mark.parametrize("how", ["map", "vmap"])
def test_the_topology_round_stays_a_branch(how):
    built = tiny.experiment(how=how)
    learner, rollout = jax.eval_shape(built.steps.init, built.keys, built.pool.reset())
    step = Clock(9, 4)
    found = list(tiny.primitives(jax.make_jaxpr(built.steps.learn)(learner, rollout, built.keys, step).jaxpr))
    assert ("cond", 0) in found
    assert {depth for name, depth in found if name == "select"} == {1}


def test_every_program_is_traced_once():
    # Programs of its own: the shared ones are also called with what a checkpoint gave.
    built = tiny.experiment(total=24)
    tiny.train(built)
    for name in ("init", "act", "learn", "remember"):
        assert getattr(built.steps, name)._cache_size() == 1, name


def test_what_the_actor_sees_is_what_replay_gives(mapped):
    # The stack that is pushed frame by frame, against the one that replay builds from its slots.
    built = tiny.experiment()
    seen = []

    def callback(run):
        seen.append(
            (
                int(run.rollout.replay_state.slots[0, 0]) - 1,
                np.concatenate(list(np.asarray(run.rollout.obs[0, 0])), axis=-1),
            )
        )
        return run

    run = tiny.train(built, callback=callback)
    slots = dict(seen)
    replay_state = tiny.lane(run.rollout.replay_state, 0)
    batch = built.replay.sample(replay_state, jax.random.key(0), 64)
    compared = 0
    for obs in np.asarray(batch.obs):
        compared += any(np.array_equal(obs, other) for other in slots.values())
    assert compared == 64


def test_returns_are_counted_by_episode(mapped):
    _, run = mapped
    for i in range(2):
        replay_state = tiny.lane(run.rollout.replay_state, i)
        assert int(run.rollout.returns.count[i]) >= 40 // tiny.EPISODE - 1
        assert float(run.rollout.returns.total[i]) + float(run.rollout.episode_return[i, 0]) > 0
        assert int(replay_state.slots[0]) == 41 + int(run.rollout.returns.count[i])  # one slot more for each reset


def test_off_mask_is_zero_for_parameters_targets_and_moments():
    built = tiny.experiment()
    checked = []

    def callback(run):
        agent = run.learner.agent
        for model in (agent.actor, agent.critic):
            adam = model.opt_state.inner[0]
            for tree in (model.params, adam.mu, adam.nu):
                tiny.equal(tree, ne_jax.apply(ne_jax.masks(model.opt_state), tree))
        tiny.equal(agent.target_critic, ne_jax.apply(ne_jax.masks(agent.critic.opt_state), agent.target_critic))
        checked.append(float(ne_jax.density(ne_jax.masks(agent.actor.opt_state))["all"]))
        return run

    tiny.train(built, callback=callback)
    assert checked[0] < 0.25 < 0.7 < checked[-1]


@pytest.mark.parametrize(("first", "every", "each"), [(0, 1, 1), (5, 1, 1), (5, 3, 1), (1, 2, 1), (5, 1, 3), (4, 3, 2)])
def test_updates_are_those_that_were_due(first, every, each):
    schedule, made = Schedule(50, first, every, each), 0
    for step in range(50):
        assert schedule.updates(step) == made
        made += schedule.due(step) * each
    assert schedule.updates(50) == made
    counted = jax.vmap(schedule.updates)(np.arange(51, dtype=np.int32))  # the device counts alike
    assert counted.dtype == np.int32
    assert counted.tolist() == [schedule.updates(step) for step in range(51)]


def test_environments_side_by_side_count_as_steps_of_the_agent():
    assert Schedule(50, 5, num_envs=3).at(7) == (21, 2)
