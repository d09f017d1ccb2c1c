"""A simulated sweep: without failures nothing is lost, and what is lost with them can be counted by hand."""

from experiments.launch.simulate import World, simulate

CALM = World(hours=4.0, slots=10, preempted=0.0, checkpoint_every=0.5, startup=0.5, warned=False)


def test_without_failures_it_takes_as_long_as_it_must():
    told = simulate(CALM, 25, seed=0)
    assert told == (
        "25 of 25 done in 13.5 h (without failures 13.5 h), 0 restarts, 112 machine hours, 12 of them for starting, "
        "0 for work that was lost"
    )


def test_a_warning_saves_all_work():
    warned, not_warned = (simulate(CALM._replace(preempted=0.3, warned=each), 25, seed=0) for each in (True, False))
    assert warned.endswith(" 0 for work that was lost") and not not_warned.endswith(" 0 for work that was lost")
