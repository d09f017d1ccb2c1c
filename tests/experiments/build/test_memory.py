"""What a run will take of the memory: against what its programs and arrays take, and how it is told."""

from typing import Any

import jax
import numpy as np
import pytest

from configs import dmc_pixels, gymnax_pixels, gymnax_states
from experiments.build import experiment
from experiments.build.experiment import setup
from experiments.build.memory import Memory, predict_memory
from experiments.record import summary
from experiments.record.summary import CompileClock, memory_line, tell_memory
from experiments.train.loop import Run


def shapes_of(built):
    scene = built.pool.reset()
    return jax.eval_shape(lambda keys, scene: Run(0, *built.steps.init(keys, scene)), built.keys, scene), scene


@pytest.mark.parametrize(("free", "warned"), [(3_000_000_000, False), (2_400_000_000, True)])
def test_what_is_predicted_is_told_and_too_little_is_warned_of(free, warned, monkeypatch, capsys):
    monkeypatch.setattr(summary, "predict_memory", lambda *args, compiled: Memory(2_000_000_000, 500_000_000))
    monkeypatch.setattr(summary, "free_memory", lambda: free)
    tell_memory(None, None, quiet=True)  # pyright: ignore
    told = capsys.readouterr().out
    sentence = "the run will take 2.5 GB, and 2.4 GB are free; lower replay.capacity or batch_size, or train fewer"
    assert told.startswith(sentence) if warned else told == ""
    tell_memory(None, None, quiet=False)  # pyright: ignore
    line = "2,000.0 MB of replays, networks and environments, 500.0 MB more while it learns"
    assert capsys.readouterr().out.startswith(f"     memory  {line}; {free / 1e6:,.1f} MB are free\n")


def test_what_was_not_compiled_is_not_told():
    line = memory_line(Memory(2_000_000_000, None), 3_000_000_000)
    assert line == "     memory  2,000.0 MB of replays, networks and environments; 3,000.0 MB are free"


@pytest.mark.slow
@pytest.mark.parametrize("make", [gymnax_states.get_config, dmc_pixels.get_config], ids=["device", "host"])
def test_the_prediction_is_what_the_program_and_its_arrays_take(make):
    config = make("smoke")
    if make is dmc_pixels.get_config:
        config.env.workers = "serial"
    built = setup(config)
    try:
        shapes, scene = shapes_of(built)
        clock = CompileClock()
        predicted = predict_memory(built, shapes, compiled=True)
        run = Run(0, *built.steps.init(built.keys, scene))
        held = sum(leaf.nbytes for leaf in jax.tree.leaves((run.learner, run.rollout)))
        program: Any = built.advance or built.steps.learn
        on_host = (built.keys, built.schedule.at(0))
        args: Any = (built.pool.state, built.keys, np.int32(0), np.int32(1)) if built.advance else on_host  # pyright: ignore
        found = program.lower(run.learner, run.rollout, *args).compile().memory_analysis()
        taken = found.argument_size_in_bytes + found.temp_size_in_bytes
        taken += found.output_size_in_bytes - found.alias_size_in_bytes
        assert predicted.total == pytest.approx(taken, rel=0.1)
        assert predicted.state == pytest.approx(held, rel=0.01)
        before = clock.seconds
        jax.block_until_ready(program(run.learner, run.rollout, *args))
        assert clock.seconds == before > 0, "compiled twice"
    finally:
        built.close()


@pytest.mark.slow
def test_a_larger_replay_takes_no_more_while_it_learns():
    found = []
    for capacity in (1_000, 50_000):
        config = gymnax_states.get_config("smoke")
        config.replay.capacity = capacity
        built = setup(config)
        found.append(predict_memory(built, shapes_of(built)[0], compiled=True))
    assert found[1].working == pytest.approx(found[0].working, rel=0.1)
    assert found[1].state > 10 * found[0].state


@pytest.mark.slow
def test_a_replay_that_this_machine_may_not_hold_is_predicted(monkeypatch):
    monkeypatch.setattr(experiment, "free_memory", lambda: 10**12)
    monkeypatch.setattr(experiment, "total_memory", lambda: 10**12)
    config = gymnax_pixels.get_config()
    config.replay.store = "frame"
    built = setup(config)
    predicted = predict_memory(built, shapes_of(built)[0], compiled=False)
    networks = predicted.state - 4 * built.replay.nbytes
    assert 4 * 100_000 * 84 * 84 * 3 < predicted.state < 10e9 and 0 < networks < 1e9
