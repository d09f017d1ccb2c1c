"""`config.plasticity`: every method for both agents, what may be combined, presets, and settings that cannot be."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_agents import ACTIONS, OBS, QUICK, STATES, UPDATES, batches, now, pick

import ne_jax
from configs import dmc_pixels, gymnax_states
from envs.types import ArraySpec, EnvSpec
from experiments.build.agent import make_agent
from experiments.build.layers import sparse_layers
from experiments.build.methods import METHODS, density_schedule, network_settings, round_period
from experiments.build.optimisers import make_optimisers
from experiments.build.presets import PRESETS, apply_preset
from experiments.record.checkpoints import Checkpoints
from experiments.train.loop import Run
from experiments.train.network_metrics import all_masks
from experiments.train.state import LearnerState, MetricAccumulator, RolloutState

FROM_PIXELS = ("ne", "lifelong_ne", "redo")
"""Methods that the default suite tries from pixels too."""
TOGETHER = ("ne+redo", "static+regenerative_l2", "rigl+reset", "static+plasticity_injection")


def config_of(agent, **plasticity):
    config = (dmc_pixels if agent == "drq" else gymnax_states).get_config("smoke")
    config.agent.hidden = (16, 12)
    if agent == "drq":
        config.agent.update(channels=3, strides=(2, 1), projection=5, shift_pad=1)
        config.env.frame_stack = 1
    config.plasticity.update(dict(every=4, reset_every=8) | plasticity)
    config.agent.layer_norm = "normalise" in config.plasticity.method
    return config


def agent_of(name, **plasticity):
    config = config_of(name, **plasticity)
    pixels = name == "drq"
    scene = ArraySpec(OBS if pixels else STATES, np.dtype(np.uint8 if pixels else np.float32))
    spec = EnvSpec("test", scene, lambda each: each, ACTIONS, 1, 10, pixels)
    return make_agent(config, spec, make_optimisers(config, UPDATES)), config


@pytest.mark.parametrize(
    ("method", "name"),
    [
        pytest.param(method, name, marks=[pytest.mark.slow] if name == "drq" and method not in FROM_PIXELS else [])
        for method in (*METHODS, *TOGETHER, "none")
        for name in ("td3", "drq")
    ],
)
def test_every_method_starts_and_is_saved(name, method, tmp_path):
    """All that a method keeps of a network goes into a checkpoint and comes back, leaf for leaf."""
    agent, config = agent_of(name, method=method)
    shapes = jax.eval_shape(agent.init, jax.random.key(0))
    rng = np.random.default_rng(0)

    def some(leaf):
        return jnp.asarray(rng.integers(0, 2, leaf.shape).astype(leaf.dtype))

    state = jax.tree.map(some, shapes)
    rollout = RolloutState(
        {"episode_step": jnp.ones(3)},  # pyright: ignore
        jnp.ones(2),
        jnp.zeros(1, jnp.int32),
        jnp.zeros(1),
        MetricAccumulator.of(0.0),
    )
    run = Run(3, LearnerState(state, MetricAccumulator.of({"loss": 0.0})), rollout)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(run, [jnp.ones(1)])
    found = checkpoints.restore(run, [jnp.ones(1)])
    assert found is not None
    jax.tree.map(np.testing.assert_array_equal, found[0].learner, run.learner)
    checkpoints.close()
    sparse = {path for path, *_ in sparse_layers(config, agent, UPDATES)}
    topology = [each for each in method.split("+") if each != "none" and METHODS[each].density]
    assert bool(sparse) == bool(topology) and sparse == set(all_masks(state))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["td3", "drq"])
@pytest.mark.parametrize("method", [*METHODS, *TOGETHER])
def test_lanes_are_solo_runs(name, method):
    """Two seeds under vmap learn what each learns alone, through two rounds; the density is what it should be."""
    agent, config = agent_of(name, method=method)
    data = batches(10, shape=OBS if name == "drq" else STATES)
    # With seeds 1 and 2 newborn weights of rigl are equal but for the last digit, and rounding says which one goes.
    keys = [jax.random.key(seed) for seed in (3, 4)]
    solo, states = jax.jit(agent.update), [jax.jit(agent.init)(key) for key in keys]
    both = jax.jit(jax.vmap(agent.update, in_axes=(0, None, 0, None)))
    lanes = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    for i in range(10):
        update_keys = jnp.stack([jax.random.fold_in(key, i) for key in keys])
        lanes, _ = both(lanes, pick(data, i), update_keys, now(i))
        states = [solo(s, pick(data, i), key, now(i))[0] for s, key in zip(states, update_keys, strict=True)]
    for lane, state in enumerate(states):
        for path, mask in all_masks(state).items():
            np.testing.assert_array_equal(mask, all_masks(lanes)[path][lane])
        a, b = (jax.tree.leaves(vars(each)["actor"].params) for each in (lanes, state))
        for batched, alone in zip(a, b, strict=True):
            np.testing.assert_allclose(batched[lane], alone, rtol=5e-3, atol=5e-4)
    for network in ("actor", "critic"):
        schedule = density_schedule(network_settings(config, network), UPDATES)
        held = {p.removeprefix(f"{network}/"): m for p, m in all_masks(states[0]).items() if p.startswith(network)}
        if schedule is not None:
            wanted = ne_jax.counts_at(schedule, {path: mask.shape for path, mask in held.items()}, 8)
            assert {path: int(mask.sum()) for path, mask in held.items()} == {p: int(n) for p, n in wanted.items()}


BAD = [
    (dict(every=0), "plasticity.every must be positive, got 0"),
    (dict(omega=1.0), "plasticity.omega must lie in [0, 1), got 1.0"),
    (dict(omega=-0.1), "plasticity.omega must lie in [0, 1), got -0.1"),
    (dict(initial_sparsity=1.2), "plasticity.initial_sparsity must lie in [0, 1), got 1.2"),
    (dict(final_sparsity=0.9), "plasticity.final_sparsity=0.9 lies above plasticity.initial_sparsity=0.8"),
    (dict(critic=dict(final_sparsity=0.85)), "plasticity.final_sparsity=0.85 lies above"),
    (dict(method="ne+rigl"), "plasticity.method=ne+rigl: neuroplastic and rigl cannot share a network"),
    (dict(method="plasticity_injection+plasticity_injection"), "plasticity_injection comes twice"),
    (dict(method="plasticity_injection+redo"), "plasticity_injection cannot go with redo"),
    (dict(method="ne,redo"), "or several joined by +; got 'ne,redo'"),
    (dict(method="ne+reset", reset_every=6), "plasticity.reset_every=6 must be a multiple of 4"),
    (dict(grad_accumulation=5), "plasticity.grad_accumulation=5 exceeds plasticity.every=4"),
    (dict(birth="he"), "plasticity.birth must be one of own, zero, lecun, got 'he'"),
    (dict(grow="gradients"), "plasticity.grow must be one of gradient, random, got 'gradients'"),
    (dict(prune="small"), "plasticity.prune must be one of dormant, grama, magnitude, none, got 'small'"),
    (dict(revive="yes"), "plasticity.revive must be one of none, bias, lecun, got 'yes'"),
    (dict(after="grow"), "plasticity.after must be one of fixed, rewire, got 'grow'"),
    (dict(reset_layers="first"), "plasticity.reset_layers must be one of all, last, got 'first'"),
    (dict(after="rewire", rewire_until=0.3), "plasticity.rewire_until=0.3 ends rewiring at update 12"),
    (dict(rewire_fraction=1.0), "plasticity.rewire_fraction must lie in [0, 1), got 1.0"),
    (dict(inject_at=0.0), "plasticity.inject_at must lie in (0, 1]"),
    (dict(shrink=1.5), "plasticity.shrink must lie in [0, 1], got 1.5"),
    (dict(method="redo", redo=dict(tau=-1.0)), "plasticity.redo.tau must not be negative, got -1.0"),
    (dict(method="grama", grama=dict(tau=-1.0)), "plasticity.grama.tau must not be negative, got -1.0"),
    (dict(l2_init=0.0), "plasticity.l2_init must be positive, got 0.0"),
    (dict(reset_every=0), "plasticity.reset_every must be positive, got 0"),
    (dict(growth_rate=0.01), "plasticity.growth_rate grows by the same number each round"),
    (dict(growth_rate=0.01, schedule="linear"), "plasticity.growth_rate=0.01 takes 668 updates"),
    (dict(method="reset", reset_every=60), "plasticity.reset_every=60 leaves no round in a run of"),
    (dict(method="redo", every=200), "plasticity.every=200 leaves no round in a run of"),
    (
        dict(method="rigl", rewire_until=0.05),
        "plasticity.rewire_until=0.05 ends rewiring at update 2, and its first round",
    ),
    (dict(method="plasticity_injection", inject_at=1.0), "plasticity.inject_at=1.0 injects after the last of"),
    (dict(method="reset", every=100, grad_accumulation=9), "grad_accumulation=9 exceeds plasticity.reset_every=8"),
    (dict(method="redo", every=5), "plasticity.every=5 must be a multiple of agent.policy_delay=2"),
]


@pytest.mark.parametrize(("plasticity", "sentence"), BAD)
def test_a_bad_setting_is_named(plasticity, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        agent_of("td3", **plasticity)


def test_a_network_may_have_settings_of_its_own():
    """`static_actor`, `stl_critic` and the sparsities per network of the released code."""
    _, config = agent_of("td3", method="ne", actor=dict(method="static", initial_sparsity=0.5))
    assert network_settings(config, "actor").method == "static" and network_settings(config, "critic").method == "ne"
    agent, config = agent_of("td3", actor=dict(method="none"))
    rows = sparse_layers(config, agent, UPDATES)
    assert rows and all(path.startswith("critic/") for path, *_ in rows)
    agent, config = agent_of("td3", actor=dict(method="static", initial_sparsity=0.5))
    assert all(first == last for path, _, first, last in sparse_layers(config, agent, UPDATES) if "actor" in path)
    assert any(first < last for path, _, first, last in sparse_layers(config, agent, UPDATES) if "critic" in path)


def test_presets_set_their_keys_and_refuse_others():
    config = gymnax_states.get_config()
    for name, keys in PRESETS.items():
        config = gymnax_states.get_config()
        config.plasticity.preset = name
        apply_preset(config, {"plasticity.preset": name, "seeds": (0,)})
        for key, value in keys.items():
            group, _, setting = key.partition(".")
            assert config[group][setting] == value
        with pytest.raises(ValueError, match=rf"preset={name} stands for plasticity.prune=.* line says none; drop one"):
            apply_preset(config, {"plasticity.prune": "none"})
    config.plasticity.preset = "published"
    with pytest.raises(ValueError, match=r"plasticity\.preset must be paper or released"):
        apply_preset(config, {})


def test_the_released_preset_grows_as_the_released_code():
    """0.8 % of the growth is born each round, 0.4 of that is pruned by magnitude, then RigL at an annealed 20 %."""
    config = gymnax_states.get_config()
    config.plasticity.preset = "released"
    apply_preset(config, {})
    settings, total = network_settings(config, "critic"), 100_000
    assert round_period(settings) == 100
    schedule = density_schedule(settings, total)
    assert schedule is not None
    shapes = {"hidden_1/kernel": (256, 256)}
    counts = [int(ne_jax.counts_at(schedule, shapes, step)["hidden_1/kernel"]) for step in range(0, 25_000, 100)]
    growth = counts[-1] - counts[0]
    net = np.diff(counts)
    grown = net / (1 - 0.4)  # what is born also makes good what is pruned
    np.testing.assert_allclose(grown[:200], 0.008 * growth, atol=2)
    assert np.argmax(net == 0) == 209  # the 209th round of 0.48 % net brings the rest
    context_settings = settings.copy_and_resolve_references()
    assert context_settings.after == "rewire" and context_settings.rewire_until == 1.0
    assert config.review.auto_batch and config.review.every == 1 and config.review.mode == "none"


@pytest.mark.parametrize("first_masks", [pytest.param("random", marks=pytest.mark.slow), "largest"])
def test_sparse_layers_begin_with_the_weights_that_the_setting_names(first_masks):
    drawn, _ = agent_of("td3", method="none")
    sparse, _ = agent_of("td3", method="ne", first_masks=first_masks)
    dense, begun = (QUICK(agent.init)(jax.random.key(3)).critic for agent in (drawn, sparse))
    path, weights = "q1/hidden_1/dense/kernel", ne_jax.leaves_by_path(dense.params)
    mask = np.asarray(ne_jax.masks(begun.opt_state)[path])
    magnitude = np.abs(weights[path])
    assert 0 < mask.sum() < mask.size
    largest = magnitude >= np.sort(magnitude.ravel())[-mask.sum()]
    assert (mask == largest).all() == (first_masks == "largest")
    np.testing.assert_array_equal(ne_jax.leaves_by_path(begun.params)[path], np.where(mask, weights[path], 0))


def test_encoders_take_part_where_it_means_something():
    shapes = jax.eval_shape(agent_of("drq", method="redo")[0].init, jax.random.key(0))
    assert type(shapes.encoder.opt_state).__name__ == "PlasticState"
    shapes = jax.eval_shape(agent_of("drq", method="ne")[0].init, jax.random.key(0))
    assert type(shapes.encoder.opt_state).__name__ != "PlasticState"


def test_crelu_doubles_what_the_next_layer_sees():
    config = config_of("td3")
    config.agent.activation = "crelu"
    spec = EnvSpec("test", ArraySpec(STATES, np.dtype(np.float32)), lambda each: each, ACTIONS, 1, 10, False)
    agent = make_agent(config, spec, make_optimisers(config, UPDATES))
    shapes = ne_jax.leaves_by_path(jax.eval_shape(agent.init, jax.random.key(0)).critic.params)
    assert shapes["q1/hidden_1/dense/kernel"].shape == (32, 12) and shapes["q1/head/kernel"].shape == (24, 1)


SLOWER = [("set", "zero", True), ("rigl", "own", True), ("ne", "lecun", False)]


@pytest.mark.parametrize(
    ("method", "birth", "zero"),
    [("set", "own", False), *(pytest.param(*each, marks=pytest.mark.slow) for each in SLOWER)],
)
def test_weights_are_born_as_the_method_has_it_or_as_the_setting_says(method, birth, zero):
    agent, _ = agent_of("td3", method=method, birth=birth)
    update, state = QUICK(agent.update), QUICK(agent.init)(jax.random.key(0))
    before = all_masks(state)
    state, _ = update(state, pick(batches(1, shape=STATES), 0), jax.random.key(1), now(4))
    params = ne_jax.leaves_by_path({"critic": state.critic.params})
    masks = {path: mask for path, mask in all_masks(state).items() if path.startswith("critic/")}
    born = np.concatenate([np.asarray(params[p])[np.asarray(m & ~before[p])] for p, m in masks.items()])
    assert born.size and (born == 0).all() == zero
