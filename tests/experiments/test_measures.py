"""When plasticity is measured, and what of: against walking through the steps, and against numpy."""

import jax
import numpy as np
import pytest
import tiny_device
from tiny import lane

from agents.learn import models
from experiments.schedule import Schedule


@pytest.mark.parametrize("every", [1, 3, 8])
@pytest.mark.parametrize("each", [1, 4])
@pytest.mark.parametrize("measure_every", [1, 4, 5, 7])
def test_measurements_are_due_where_the_updates_reach_a_multiple(every, each, measure_every):
    schedule = Schedule(60, 5, every, each, measure_every=measure_every)
    made, due = 0, [0]
    for step in range(100):
        if step >= 5 and (step - 5) % every == 0:
            if made // measure_every < (made + each) // measure_every:
                due.append(step + 1)  # after this step's updates
            made += each
    assert [step for step in range(100) if schedule.measures(step)] == [step for step in due if step < 100]
    for step in range(90):
        assert schedule.next_measure(step) == next((each for each in due if each > step), schedule.next_measure(step))


def test_without_a_period_nothing_is_due_by_itself():
    schedule = Schedule(60, 5)
    assert not any(schedule.measures(step) for step in range(60)) and schedule.next_measure(7) == 60


def test_distance_norms_and_gradient_activity_are_those_of_each_seed():
    """Of TD3 with NE after a few rounds: distances are zero at the start, and then what numpy says."""
    built = tiny_device.build("td3")
    pool = tiny_device.pool_of(built)
    begun = tiny_device.fresh(built, pool)
    initial = built.steps.initial(built.keys)
    first = {name: jax.tree.map(np.asarray, model.params) for name, model in models(begun.learner.agent).items()}
    jax.tree.map(np.testing.assert_array_equal, first, jax.tree.map(np.asarray, initial))

    run, _ = tiny_device.train(built, pool, begun, until=30)
    now = built.schedule.at(30)
    values = jax.device_get(built.steps.look(run.learner, run.memory, built.keys, initial, now))
    for i in range(2):
        for name, model in models(lane(run.learner.agent, i)).items():
            old, new = (jax.tree.leaves(tree) for tree in (lane(first[name], i), model.params))
            moved = np.sqrt(sum(np.square(np.float64(b) - np.float64(a)).sum() for a, b in zip(old, new, strict=True)))
            assert moved > 1e-3
            np.testing.assert_allclose(values[f"weight_distance/{name}"][i], moved, rtol=1e-5)
            assert values[f"gradient_norm/{name}"][i] > 0
    assert not np.allclose(values["gradient_norm/critic"][0], values["gradient_norm/critic"][1])
    layers = [f"{net}/hidden_{i}" for net in ("actor/policy", "critic/q1", "critic/q2") for i in (0, 1)]
    for tau in ("", "_0.025", "_0.1"):
        each = [values[f"grama_ratio{tau}/{layer}"] for layer in layers]
        np.testing.assert_allclose(values[f"grama_ratio{tau}"], np.mean(each, axis=0), rtol=1e-6)  # all of 12 units
    # A unit that never fires gets no gradient.
    for layer in layers:
        assert (values[f"grama_ratio/{layer}"] >= values[f"dormant_ratio/{layer}"] - 1e-6).all()
