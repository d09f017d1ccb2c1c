"""Experience review in the loops: what an update samples, measures and logs, and what it leaves alone."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import tiny_device
from tiny_device import build

from agents.types import Clock
from experiments.train.experience import critic_fau
from experiments.train.seeds import LEARN, REVIEW, key_at
from ne_jax.experience_review import make_review

GATE: Any = make_review("gate", every=3, awaken=1.0, fraction=0.3, auto_batch=True)
SLOPE = make_review("slope", every=2, window=3, most=1.0)
IDLE: Any = make_review("gate", every=3, awaken=0.0)  # measures, and never reviews
BOTH: dict[str, Any] = dict(num_envs=3, each=2)
EARLY, WHOLE = (0.0, 0.3), (0.0, 1.0)


def trained(kind, review, until) -> Any:
    """TD3 on the device, several updates a step; DrQ with its environments on the host."""
    if kind == "td3":
        built = build("td3", **BOTH, review=review)
        return built, tiny_device.train(built, until=until)[0]
    built = tiny.experiment(review=review)
    return built, tiny.train(built, until=until)


def updated_by_hand(built, run, i, reviews):
    """Of seed `i`, the agent after the updates of the next step, and the FAU that the last of them measures first.

    The others review if `reviews` says so, with half a batch. The last decides by what it measures on a uniform batch.
    """
    state, rollout, key = *(tiny.lane(part, i) for part in (run.learner.agent, run.rollout)), built.keys[i]
    now, fau = built.schedule.at(run.step), None
    sample = jax.jit(lambda key, span: built.replay.sample(rollout.replay_state, key, 8, span))
    update, activations = jax.jit(built.agent.update), jax.jit(built.agent.activations)
    for number in range(now.update, now.update + built.schedule.updates_each):
        sample_key, update_key = jax.random.split(key_at(key, number, LEARN))
        review_key, half = key_at(key, number, REVIEW), reviews
        if number % GATE.every == 0:
            fresh = sample(jax.random.fold_in(review_key, 1), jnp.array(WHOLE))
            critic = [h for path, h in activations(state, fresh).items() if path.split("/")[0] == "critic"]
            fau = np.concatenate([(np.asarray(h) > 0).ravel() for h in critic]).mean()
            odds = 0.9 * np.exp(1.0 - fau)
            reviews, half = bool(jax.random.uniform(review_key) < odds / (1 + odds)), fau < 0.9
        batch = sample(sample_key, jnp.array(EARLY if reviews else WHOLE))
        if half:
            batch = jax.tree.map(lambda leaf: jnp.concatenate([leaf[:4]] * 2), batch)
        state, _ = update(state, batch, update_key, Clock(now.env, number))
    assert fau is not None, "the last update does not measure"
    return state, fau


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "until"), [("td3", 19), ("drq", 20)])
def test_one_seed_reviews_its_early_data_while_the_other_does_not(kind, until):
    built, run = trained(kind, GATE, until)
    share = np.asarray(run.learner.metrics.total["review/share"] / run.learner.metrics.count)
    assert (share > 0.2).all() and (share < 0.95).all(), "each update decides anew"
    # Let seed 0 review for sure, with half a batch, and seed 1 for sure not: what a seed decides is its own.
    state = run.learner.review
    samples = jnp.full_like(state.samples, 0.1).at[1].set(0.95)
    state = state._replace(samples=samples, probability=jnp.array([1.0, 0.0]))
    run = run._replace(learner=replace(run.learner, review=state))
    expected = [updated_by_hand(built, run, i, reviews) for i, reviews in enumerate([True, False])]
    now, made = built.schedule.at(run.step), built.schedule.updates_each
    assert (now.update + made - 1) % GATE.every == 0, "the last update does not measure"
    before = run.learner.metrics
    learner = built.steps.learn(jax.tree.map(jnp.array, run.learner), run.rollout, built.keys, now)
    for i, (agent, fau) in enumerate(expected):
        tiny.equal(tiny.lane(learner.agent, i), agent, exact=False)
        np.testing.assert_allclose(
            learner.review.samples[i, -2:], np.asarray([samples[i, -1], fau], np.float32), rtol=1e-6
        )
    told = {name: np.asarray(value - before.total[name]) for name, value in learner.metrics.total.items()}
    odds = 0.9 * np.exp(1 - np.array([fau for _, fau in expected]))
    by_hand = odds / (1 + odds) + np.array([made - 1, 0])  # the last update's, and the forced ones before it
    np.testing.assert_allclose(told["review/probability"], by_hand, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["td3", "drq"])
def test_measuring_alone_changes_no_bit_of_a_run(kind):
    built, run = trained(kind, IDLE, 20)
    _, plain = trained(kind, None, 20)
    assert plain.learner.review is None and run.learner.review is not None
    tiny.equal(run.learner.agent, plain.learner.agent)
    tiny.equal(run.rollout, plain.rollout)
    for name, total in plain.learner.metrics.total.items():
        np.testing.assert_array_equal(total, run.learner.metrics.total[name])
    made = built.schedule.updates(20)
    assert run.learner.review.count.tolist() == [-(-made // IDLE.every)] * 2
    assert (run.learner.metrics.total["review/share"] == 0).all()
    fau = np.asarray(run.learner.metrics.total["review/fau"]) / made
    assert (fau > 0.05).all() and (fau < 0.95).all() and fau[0] != fau[1]


@pytest.mark.slow
def test_slope_reviews_once_its_window_is_full():
    """On the host and on the device; samples come every second update, and the third of them fills the window."""
    built, run = trained("drq", SLOPE, 5 + 5)  # updates 0, 2 and 4
    assert (run.learner.review.count == 3).all() and (run.learner.review.probability == 0).all()
    assert (run.learner.review.steepest > 0).all(), "the first slope is the steepest so far"
    assert (run.learner.metrics.total["review/share"] == 0).all()
    _, run = trained("drq", SLOPE, 40)
    share = np.asarray(run.learner.metrics.total["review/share"])
    assert (share > 0).all() and (share < built.schedule.updates(40)).all()
    state = run.learner.review
    for i in range(2):
        slope = abs(np.polyfit(range(3), np.asarray(state.samples[i], np.float64), 1)[0])
        np.testing.assert_allclose(state.probability[i], 1 - slope / float(state.steepest[i]), atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("drq", "map"),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in (("td3", "map"), ("td3", "vmap"), ("drq", "vmap"))),
    ],
)
def test_measuring_stays_a_branch_and_nothing_is_computed_twice(kind, how):
    """Matrix products by the conds around them: review adds some where one more cond is around, and nowhere else."""
    counts = []
    for review in (None, GATE):
        built = build(kind, how=how, review=review)
        worlds, scene = jax.eval_shape(jax.vmap(built.env.reset), tiny_device.pool_of(built)._keys)
        learner, rollout = jax.eval_shape(built.steps.init, built.keys, scene)
        jaxpr = jax.make_jaxpr(built.advance)(learner, rollout, worlds, built.keys, np.int32(0), np.int32(1)).jaxpr
        depths = [depth for name, depth in tiny.primitives(jaxpr) if name == "dot_general"]
        counts.append([depths.count(depth) for depth in range(4)])
        assert 0 not in {depth for name, depth in tiny.primitives(jaxpr) if name == "select"}
    plain, reviewed = counts
    assert reviewed[:2] == plain[:2] and reviewed[2] > plain[2] and reviewed[3] == plain[3]


def test_an_agent_without_a_critic_is_refused():
    with pytest.raises(ValueError, match="the activations of a critic, and the agent has none; "):
        critic_fau({"actor/hidden_0": jnp.ones((2, 3))})
    assert critic_fau({"actor/hidden_0": jnp.ones((2, 3)), "critic/hidden_0": jnp.eye(2)}) == 0.5
