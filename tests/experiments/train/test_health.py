"""A seed that diverges is frozen, with its step and what went first; its neighbours do not notice."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from tiny_device import Seen, blob, build, train

from agents.types import Clock
from agents.updates import train_states
from envs.pools.device import auto_reset_step
from envs.types import TimeStep
from experiments.train.health import finite_part, has_diverged, healthy, intact, note_broken, watch
from experiments.train.loop import Run
from experiments.train.seeds import NEVER

SICK = 1


def poisoned(run: Run) -> Run:
    """The run with one weight of one seed's critic at NaN."""
    critic = run.learner.agent.critic
    leaves, structure = jax.tree.flatten(critic.params)
    leaves[1] = leaves[1].at[SICK].set(jnp.nan)  # of the head: what it says of actions is no number, either
    agent = replace(run.learner.agent, critic=replace(critic, params=structure.unflatten(leaves)))
    return run._replace(learner=replace(run.learner, agent=agent))


@pytest.mark.parametrize("how", ["vmap", "map"])
@pytest.mark.slow
def test_a_seed_that_diverges_is_frozen_and_the_others_go_on_bit_for_bit(how):
    built: Any = build("td3", how=how)
    whole, _ = train(built)
    run: Any
    run, pool = train(built, until=20)
    before = jax.device_get(run.learner.agent.actor.params)
    run, _ = train(built, pool, poisoned(run))
    for part in ("learner", "rollout"):
        tiny.equal(tiny.lane(getattr(run, part), 0), tiny.lane(getattr(whole, part), 0))
    health = jax.device_get(run.learner.health)
    assert has_diverged(run.learner.health, run.rollout.broken).tolist() == [False, True]
    assert health.env.tolist() == [NEVER, 20] and health.update.tolist() == [NEVER, 14]
    metrics, networks = sorted(run.learner.metrics.total), sorted(train_states(run.learner.agent))
    assert health.losses[SICK] >> metrics.index("critic_loss") & 1
    assert health.networks[SICK] >> networks.index("critic") & 1
    tiny.equal(tiny.lane(run.learner.agent.actor.params, SICK), tiny.lane(before, SICK))
    assert not np.array_equal(jax.tree.leaves(run.learner.agent.actor.params)[0][0], jax.tree.leaves(before)[0][0])
    assert np.isfinite(np.asarray(run.rollout.replay_state.action)).all(), "it acts with numbers, whatever it is"

    again = built.steps.restart(run.learner, built.keys, jnp.array([False, True]))
    tiny.equal(tiny.lane(again, 0), tiny.lane(whole.learner, 0))
    assert again.health.restarts.tolist() == [0, 1] and again.health.env.tolist() == [NEVER] * 2
    fresh = jax.tree.leaves(again.agent.critic.params)[0]
    assert not again.agent.critic.frozen.any() and np.isfinite(fresh).all() and not np.allclose(fresh[0], fresh[SICK])


def breaking(when):
    """The blob, whose observation and reward are NaN from a step on."""
    env = blob(False)

    def step(world, action, key):
        world, step = env.step(world, action, key)
        reward: Any = step.reward
        bad = jnp.where(world.episode_step >= when, jnp.nan, 0.0)
        return world, TimeStep(step.scene + bad, reward + bad, step.terminated, step.truncated)

    return env._replace(step=step)


def test_an_environment_that_breaks_begins_a_new_episode():
    env = breaking(3)
    world, _ = env.reset(jax.random.key(0))
    ends = []
    for i in range(4):
        world, outcome = auto_reset_step(env, world, jnp.zeros(1), jax.random.key(i))
        ends.append(bool(outcome.step.truncated))
        assert np.isfinite(outcome.reset).all()
    assert ends == [False, False, True, False] and int(world.episode_step) == 1


def test_what_is_not_finite_is_noted_once_and_stored_as_zero():
    sound, not_sound = jnp.array([True, True]), jnp.array([True, False])
    broken = note_broken(intact(), sound, sound, Clock(7, 0))
    assert broken.tolist() == [NEVER, NEVER]
    broken = note_broken(broken, sound, not_sound, Clock(8, 0))
    broken = note_broken(broken, not_sound, not_sound, Clock(9, 0))
    assert broken.tolist() == [9, 8]
    given = {"a": jnp.array([1.0, jnp.nan, -jnp.inf]), "b": jnp.array([3], jnp.uint8)}
    tiny.equal(finite_part(given), {"a": [1.0, 0.0, 0.0], "b": [3]})


def test_the_first_update_that_goes_wrong_is_kept():
    health, nothing = healthy(), Seen(jnp.zeros(1))  # a state without networks
    for update, loss in enumerate((1.0, jnp.inf, jnp.nan)):
        metrics = {"b": jnp.float32(loss), "a": jnp.float32(0)}
        health, _ = watch(health, nothing, nothing, metrics, Clock(10 * update, update))
    assert (int(health.env), int(health.update), int(health.losses), int(health.networks)) == (10, 1, 0b10, 0)
