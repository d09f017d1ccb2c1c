"""The table of updates beside floor and peer: its lines, its floor, and how its processes are spoken to."""

import importlib.util
import json

import jax
import numpy as np
import pytest
from small_agents import BATCH, STATES, batches, pick, td3

from experiments.benches.figure import draw, times
from experiments.benches.peer import HEADER, Comparison, flops_of, line
from experiments.benches.torch_worker import Peers, Timed, least

FOUND = Comparison("DrQ, dense", Timed(10.0, 18.0), 4.0, Timed(20.0, 40.0))


def test_a_line_holds_both_ratios_and_none_without_a_peer():
    assert line(FOUND).split() == ["DrQ,", "dense", "10.00", "4.00", "2.50", "20.00", "0.50", "18.00", "40.00"]
    alone = line(FOUND._replace(peer=None))
    assert alone.split()[5:] == ["-", "-", "18.00", "-"]
    assert len(line(FOUND)) == len(alone) == len(HEADER)


def test_the_least_is_taken_of_clock_and_processor_apart():
    assert least([Timed(3.0, 1.0), Timed(2.0, 5.0)]) == Timed(2.0, 1.0)


def test_flops_are_those_of_the_products():
    """TD3 5-16-12: critic's target and slope each time, actor's every second time."""
    agent = td3()
    found = flops_of(agent, jax.device_put(pick(batches(1, shape=STATES), 0)), 2)
    actor, critic = (2 * BATCH * (5 * 16 + 16 * 12 + 12 * 2), 2 * 2 * BATCH * (7 * 16 + 16 * 12 + 12))
    products = actor + critic + 3 * critic + (3 * actor + 2 * critic) / 2
    assert 0.6 * products < found < 1.8 * products  # the products' own, and what lies between them


def test_the_picture_takes_rows_with_and_without_a_peer(tmp_path):
    row = {"name": "DrQ, dense", "ours": FOUND.ours._asdict(), "floor": 4.0, "peer": {"clock": 20.0}}
    assert times(row) == {"floor": 4.0, "here": 10.0, "PyTorch": 20.0}
    assert times(row | {"peer": None}) == {"floor": 4.0, "here": 10.0}
    draw([row, row | {"peer": None}], tmp_path / "times.png")
    assert (tmp_path / "times.png").stat().st_size > 5_000


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_processes_of_the_peer_answer_and_a_failure_is_told():
    settings = {"obs": (5,), "actions": 2, "hidden": (16, 12), "learning_rate": 1e-3, "tau": 0.01}
    with Peers("td3", settings, BATCH, 2) as peers:
        found = peers.time(3, 1)
    assert 0 < found.clock < np.inf and found.processor > 0 and json.dumps(found)
    with pytest.raises(RuntimeError, match="PyTorch failed"):
        Peers("td3", settings | {"hidden": "wide"}, BATCH, 1)
