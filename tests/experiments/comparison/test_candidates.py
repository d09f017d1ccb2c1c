"""What is tried of each method, and on which seeds."""

import pytest

from configs import gymnax_states
from experiments.comparison.candidates import draw_candidates, grids_of, read_dev_seeds

METHODS = {"none": {"plasticity.method": "none"}, "ne,omega=0.3": {"plasticity.omega": "0.3"}}
RATES = "agent.learning_rate=1e-4,1e-3"


def test_each_method_has_the_product_of_what_is_for_all_and_what_is_its_own():
    grids = grids_of(METHODS, [RATES, "ne,omega=0.3:plasticity.tau=0.1,0.2"])
    assert grids["none"] == [{"agent.learning_rate": "1e-4"}, {"agent.learning_rate": "1e-3"}]
    assert [tuple(each.values()) for each in grids["ne,omega=0.3"]] == [
        ("1e-4", "0.1"), ("1e-4", "0.2"), ("1e-3", "0.1"), ("1e-3", "0.2")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("tune", "sentence"),
    [
        (["ne,omega=0.3:plasticity.tau=0.1,0.2"], "--method=none has nothing to be tuned; give it --tune="),
        (["agent.learning_rate=1e-4"], "--method=none has one setting to try, so nothing to choose"),
        ([RATES, RATES], "--tune=agent.learning_rate comes twice"),
        (["agent.learning_rate=1e-4,,"], "--tune='agent.learning_rate=1e-4,,' has an empty value"),
        (["learning rate=1,2"], "--tune='learning rate=1,2' must be KEY=VALUE,VALUE"),
        (["total_frames=10,20"], "--tune=total_frames would measure each setting by another rule"),
        (["env.action_repeat=1,2"], "--tune=env.action_repeat would measure"),
        (["eval.every=1,2"], "--tune=eval.every would measure"),
        ([RATES, "plasticity.omega=0.1,0.2"], "--tune=plasticity.omega varies what --method=ne,omega=0.3 sets"),
    ],
)
def test_what_cannot_be_tried_is_a_sentence(tune, sentence):
    with pytest.raises(ValueError) as found:
        grids_of(METHODS, tune)
    assert sentence in str(found.value)


def test_all_are_tried_or_the_same_draw_each_time():
    grids = grids_of(METHODS, ["agent.learning_rate=1e-4,2e-4,3e-4,4e-4,5e-4,6e-4"])
    every = draw_candidates(grids, 6)["none"]
    assert list(every) == [f"learning_rate={i}e-4" for i in range(1, 7)]
    drawn = draw_candidates(grids, 3)
    assert drawn == draw_candidates(grids, 3) and len(drawn["none"]) == 3 and drawn["none"].items() <= every.items()


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ([], "--dev-seeds= must be different whole numbers from 0 to 2**32 - 1, at least one"),
        (["1", "x"], "--dev-seeds=1,x must be whole numbers, such as 100,101,102"),
        (["7", "7"], "--dev-seeds=7,7 must be different whole numbers"),
        (["-1"], "--dev-seeds=-1 must be different whole numbers from 0"),
        (["7", "4", "2"], "--dev-seeds and --config.seeds share 2, 4; a setting looks better on the seeds that it was"),
    ],
)
def test_seeds_to_tune_on_are_not_those_of_the_table(said, sentence):
    config = gymnax_states.get_config()
    assert read_dev_seeds(["100", "5"], config) == (100, 5)
    with pytest.raises(ValueError) as found:
        read_dev_seeds(said, config)
    assert sentence in str(found.value)


def test_a_method_that_is_not_compared_cannot_be_tuned():
    with pytest.raises(ValueError, match=r"--tune=rigl:agent.tau=1,2: --method=rigl is not compared; add it"):
        grids_of({"none": {}}, ["agent.tau=1,2", "rigl:agent.tau=1,2"])
