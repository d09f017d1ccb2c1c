"""When plasticity is measured, and what of: against walking through the steps, and against numpy."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
import tiny_device
from tiny import lane

from agents.updates import TrainState, train_states
from experiments.train.network_metrics import measure_plasticity
from experiments.train.schedule import Schedule


@pytest.mark.parametrize("every", [1, 3, 8])
@pytest.mark.parametrize("each", [1, 4])
@pytest.mark.parametrize("measure_every", [1, 4, 5, 7])
def test_measurements_are_due_where_the_updates_reach_a_multiple(every, each, measure_every):
    schedule = Schedule(60, 5, every, each, measure_every=measure_every)
    made, due = 0, [0]
    for step in range(400):
        if step >= 5 and (step - 5) % every == 0:
            if made // measure_every < (made + each) // measure_every:
                due.append(step + 1)  # after this step's updates
            made += each
    assert [step for step in range(100) if schedule.measures(step)] == [step for step in due if step < 100]
    for step in range(90):
        assert schedule.next_measure(step) == next(each for each in due if each > step)


def test_without_a_period_nothing_is_due_by_itself():
    schedule = Schedule(60, 5)
    assert not any(schedule.measures(step) for step in range(60)) and schedule.next_measure(7) == 60


@pytest.mark.slow
def test_distance_norms_and_gradient_activity_are_those_of_each_seed():
    """Of TD3 with NE after a few rounds: distances are zero at the start, and then what numpy says."""
    built = tiny_device.build("td3")
    pool = tiny_device.pool_of(built)
    begun = tiny_device.fresh(built, pool)
    initial = built.steps.initial(built.keys, 0)
    first = {name: jax.tree.map(np.asarray, model.params) for name, model in train_states(begun.learner.agent).items()}
    jax.tree.map(np.testing.assert_array_equal, first, jax.tree.map(np.asarray, initial))

    run, _ = tiny_device.train(built, pool, begun, until=30)
    now = built.schedule.at(30)
    values = jax.device_get(built.steps.measure(run.learner, run.rollout, built.keys, initial, now))
    for i in range(2):
        for name, model in train_states(lane(run.learner.agent, i)).items():
            old, new = (jax.tree.leaves(tree) for tree in (lane(first[name], i), model.params))
            moved = np.sqrt(sum(np.square(np.float64(b) - np.float64(a)).sum() for a, b in zip(old, new, strict=True)))
            assert moved > 1e-3
            np.testing.assert_allclose(values[f"weight_distance/{name}"][i], moved, rtol=1e-5)
            assert values[f"gradient_norm/{name}"][i] > 0
    assert not np.allclose(values["gradient_norm/critic"][0], values["gradient_norm/critic"][1])


def grama_oracle(gradients, tau):
    """Share of units at or below `tau`, in float64 and by loops: score = mean |g| of a unit over the layer's mean."""
    idle = units = 0
    for gradient in gradients:
        magnitude = [np.abs(np.float64(gradient[..., unit])).mean() for unit in range(gradient.shape[-1])]
        idle += sum(each <= tau * np.mean(magnitude) for each in magnitude)
        units += len(magnitude)
    return idle / units


def test_gradients_and_distances_are_counted_by_layer_and_network():
    """Eleven layers, so that hidden_1 and hidden_10 are told apart; norms and heads are no layers with units."""
    rng = np.random.default_rng(0)

    def some(*shape):
        return (rng.exponential(size=shape) * rng.choice([-1, 1], shape)).astype(np.float32)

    activations, params, gradients, initial = {}, {}, {}, {}
    for network, scale in (("actor", 1.0), ("critic", 30.0)):
        trees = {"params": {}, "gradients": {}, "initial": {}}
        for i in range(11):
            activations[f"{network}/q1/hidden_{i}"] = np.maximum(some(7, 5 + i), 0)
            for tree in trees.values():
                kernel = some(4, 5 + i) * rng.choice([0, 0.02, 0.08, 1], 5 + i) * scale
                norm = {"scale": some(5 + i), "bias": some(5 + i)}
                tree[f"hidden_{i}"] = {"dense": {"kernel": kernel, "bias": some(5 + i)}, "norm": norm}
        for tree in trees.values():
            tree["head"] = {"kernel": np.zeros((4, 2), np.float32)}
        params[network], gradients[network], initial[network] = ({"q1": tree} for tree in trees.values())
    state = SimpleNamespace(**{name: TrainState(params[name], ()) for name in params})
    values = jax.jit(lambda *trees: measure_plasticity(state, *trees))(activations, gradients, initial)  # pyright: ignore

    for tau, name in ((0, "grama_ratio"), (0.025, "grama_ratio_0.025"), (0.1, "grama_ratio_0.1")):
        kernels = {
            f"{network}/q1/hidden_{i}": gradients[network]["q1"][f"hidden_{i}"]["dense"]["kernel"]
            for network in gradients
            for i in range(11)
        }
        for layer, gradient in kernels.items():
            np.testing.assert_allclose(values[f"{name}/{layer}"], grama_oracle([gradient], tau), rtol=1e-6)
        np.testing.assert_allclose(values[name], grama_oracle(kernels.values(), tau), rtol=1e-6)
    assert 0 < values["grama_ratio"] < values["grama_ratio_0.025"] < values["grama_ratio_0.1"] < 1
    for network in gradients:
        flat = [
            np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree[network])]) for tree in (params, initial)
        ]
        whole = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gradients[network])])
        np.testing.assert_allclose(values[f"weight_distance/{network}"], np.linalg.norm(flat[0] - flat[1]), rtol=1e-5)
        np.testing.assert_allclose(values[f"gradient_norm/{network}"], np.linalg.norm(whole), rtol=1e-5)
