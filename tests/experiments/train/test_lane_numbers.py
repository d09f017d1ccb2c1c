"""Numbers that differ between the rows of a program: each row learns as the run that has them as constants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import tiny_config

import experiments.build.experiment as building
import ne_jax
from experiments.build.experiment import setup
from experiments.build.lanes import check_traced, numbers_of, traceable_keys, with_numbers
from experiments.train.loop import Run

DENSE = (
    "redo+grama+reset+shrink_and_perturb+regenerative_l2+l2+weight_decay+parseval+weight_clipping+upgd+"
    "self_normalised_resets+continual_backprop"
)
DYNAMIC = dict(on=True, min_size=5, every=10)
GROUPS = {
    "td3": (
        "gymnax-states-td3",
        dict(
            plasticity=dict(method="ne", after="rewire", rewire_until=1.0, grow_until=0.5), replay=dict(dynamic=DYNAMIC)
        )
        | dict(review=dict(mode="slope", every=2, window=2)),
        ("agent.", "replay.", "review.fraction", "review.most", "plasticity.omega", "plasticity.rewire_fraction"),
    ),
    "sac": (
        "gymnax-states-sac",
        dict(plasticity=dict(method=DENSE), review=dict(mode="gate", every=2, auto_batch=True)),
        (
            *("agent.", "replay.d", "replay.reward", "review.awaken", "review.gain"),
            *("plasticity.shrink", "plasticity.perturb", "plasticity.l2_init"),
            *(f"plasticity.{name}." for name in DENSE.split("+")),
        ),
    ),
    "grown": ("gymnax-states-td3", dict(plasticity=dict(method="ne", tau=0.1)), ("plasticity.tau", "plasticity.omega")),
    "lifelong": (
        "gymnax-states-td3",
        dict(total_frames=40, plasticity=dict(method="lifelong_ne", lifelong_ne=dict(maturity=2))),
        ("plasticity.lifelong_ne.",),
    ),
    "drq": ("gymnax-pixels-drq", dict(plasticity=dict(method="none")), ("agent.",)),
}
"""A config file's variant, what is set beside it, and the beginnings of the keys that differ."""
OTHERS = {"plasticity.upgd.sigma": (1e-3, 0.0)}
OTHERS |= {"agent.preactivation_penalty": (0.1, 0.0), "agent.ema": (0.9, 0.5), "plasticity.tau": (0.3, 0.1)}
OTHERS |= {f"plasticity.lifelong_ne.{name}": pair for name, pair in dict(tau=(0.3, 0.1), turnover=(0.2, 0.1)).items()}
OTHERS |= {"plasticity.lifelong_ne.novelty": (0.4, 0.1), "plasticity.lifelong_ne.pull": (1e-2, 1e-3)}
OTHERS |= {"agent.target_entropy": (-1.0, -0.5), "plasticity.redo.tau": (0.5, 0.1)}


def config_of(group):
    variant, settings, begin = GROUPS[group]
    config = tiny_config.get_config(variant)
    config.update(settings)
    keys = [key for key in traceable_keys(config) if key.startswith(begin)]
    return config, keys


def pair(group):
    """Two configs that differ in all keys of a group."""
    config, keys = config_of(group)
    pairs = {key: OTHERS.get(key) for key in keys}
    found = []
    for i in range(2):
        own = config.copy_and_resolve_references()
        for key in keys:
            *groups, name = key.split(".")
            place = own
            for each in groups:
                place = place[each]
            values = pairs[key] or ((place[name] or 0.1), 0.7 * (place[name] or 0.1))
            place[name] = values[i]
        found.append(own)
    return found


def trained(config):
    built = setup(config)
    start = Run(0, *built.steps.init(built.keys, built.pool.reset(), built.numbers))
    end = built.train(start, tiny.quiet, lambda step: built.schedule.total)
    return built, end.learner, end.rollout


def measured(built, learner, rollout):
    """What is logged of the networks, and returns of greedy actions."""
    initial, now = built.steps.initial(built.keys, 0, built.numbers), built.schedule.at(built.schedule.total)
    found = built.steps.measure(learner, rollout, built.keys, initial, now)
    return found | {"return": built.evaluator.greedy(learner.agent, 0).returns}


def test_each_key_is_in_a_group_and_can_be_traced_when_the_agent_is_made():
    covered, wanted = set(), set()
    for group in GROUPS:
        config, keys = config_of(group)
        covered |= set(keys)
        wanted |= set(traceable_keys(config))
        numbers = numbers_of(pair(group), 1)
        assert numbers is not None and sorted(numbers) == sorted(keys)
    assert covered == wanted and len(wanted) > 35


def test_a_number_inside_a_program_is_that_of_its_row():
    config, _ = config_of("td3")
    seen = jax.vmap(lambda numbers: with_numbers(config, numbers).agent.tau * 2)({"agent.tau": np.array([0.1, 0.2])})
    np.testing.assert_allclose(seen, [0.2, 0.4])
    assert config.agent.tau == tiny_config.get_config("gymnax-states-td3").agent.tau


@pytest.mark.parametrize("look", [lambda omega: int(omega * 10), np.asarray, lambda omega: range(omega.astype(int))])
def test_a_number_that_is_looked_at_is_a_sentence(look):
    def make(numbers):
        return look(numbers["plasticity.omega"])

    with pytest.raises(ValueError, match=r"^lanes.plasticity.omega: with this config plasticity.omega decides on how"):
        check_traced(make, {"plasticity.omega": jnp.zeros(2)})


def differing(found, wanted):
    """The share of numbers that differ by more than float tolerance, and the largest difference; masks must agree."""
    pairs = list(zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True))
    apart = [~np.isclose(a, b, rtol=2e-4, atol=2e-5) for a, b in pairs]
    most = max(float(np.max(np.abs(np.asarray(a, float) - np.asarray(b, float)), initial=0)) for a, b in pairs)
    return sum(each.sum() for each in apart) / sum(each.size for each in apart), most


@pytest.mark.slow
def test_lifelong_rows_differ_from_runs_alone_where_adam_makes_much_of_rounding(monkeypatch):
    """Adam's first steps along a gradient of next to nothing, of a weight that is new, have the length of its rate.

    So a few weights tell of float32's last digits, in which two programs differ; the numbers of another row move most.
    """
    own = pair("lifelong")
    alone = [trained(config)[1].agent for config in own]
    monkeypatch.setattr(building, "lanes_of", lambda _: own)
    together = trained(own[0])[1].agent
    rows = [jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], together) for i in range(2)]
    for row, wanted, other in zip(rows, alone, alone[::-1]):
        for name in ("actor", "critic"):
            found, expected, wrong = (getattr(each, name) for each in (row, wanted, other))
            tiny.equal(ne_jax.masks(found.opt_state), ne_jax.masks(expected.opt_state))
            share, most = differing(found.params, expected.params)
            assert share < 0.1 and most < 3 * own[0].agent.learning_rate
            assert differing(found.params, wrong.params)[0] > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("group", [group for group in GROUPS if group != "lifelong"])
def test_each_row_learns_as_the_run_with_its_numbers(group, monkeypatch):
    own = pair(group)
    alone = [trained(config) for config in own]
    monkeypatch.setattr(building, "lanes_of", lambda _: own)
    together = trained(own[0])
    leaves = zip(*(jax.tree.leaves(learner.agent) for _, learner, _ in alone), strict=True)
    assert any(np.any(np.asarray(a) != np.asarray(b)) for a, b in leaves), "the numbers change nothing"
    for i, (_, learner, rollout) in enumerate(alone):
        row = jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], together[1:])
        tiny.equal(row[1], rollout, exact=False)
        tiny.equal(row[0].replace(numbers=None), learner, exact=False)
    if group in ("grown", "drq"):  # each takes long to compile
        wanted, found = [measured(*each) for each in alone], measured(*together)
        for i, each in enumerate(wanted):
            tiny.equal({name: value[i : i + 1] for name, value in found.items()}, each, exact=False)
