"""Seeds that diverge in a run: what the user is told, what the files say, and what is done about it."""

import math
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from configs import gymnax_states
from experiments.record.divergence import DivergenceGuard, diverged_seeds, without_frozen
from experiments.record.folder import Folder
from experiments.record.metrics_files import read_metrics
from experiments.run import run
from experiments.train.devices import ONE_DEVICE
from experiments.train.health import Health
from experiments.train.seeds import NEVER


def test_what_went_first_is_named_once():
    experiment: Any = SimpleNamespace(
        rows=[SimpleNamespace(name=f"seed {seed}") for seed in (3, 5, 7)],
        spec=SimpleNamespace(action_repeat=2),
        devices=ONE_DEVICE,
    )
    health = Health(
        *(jnp.array(each) for each in ([NEVER, 40, NEVER], [NEVER, 12, NEVER], [0, 2, 0], [0, 0, 0], [0, 0, 1]))
    )
    learner = SimpleNamespace(
        health=health, metrics=SimpleNamespace(total=dict.fromkeys(("q", "critic_loss"))), agent=SimpleNamespace()
    )
    broken = jnp.array([[NEVER, NEVER], [41, 41], [9, 10]])
    state: Any = SimpleNamespace(learner=learner, rollout=SimpleNamespace(broken=broken))
    guard = DivergenceGuard(experiment)
    assert guard.read(state) == [
        "seed 5 diverged at frame 80: q not finite in update 12",
        "seed 7 diverged at frame 18: the environment sent an observation that is no finite number",
    ]
    assert guard.read(state) == [] and guard.frozen.tolist() == [False, True, True]
    assert guard.restarts(state).tolist() == [0, 0, 1]


def test_a_frozen_seed_has_no_numbers_but_those_of_the_clock():
    values = {"eval/return": np.array([1.0, 2.0]), "train/updates": np.array([3, 3])}
    found = without_frozen(values, np.array([False, True]))
    assert found["eval/return"][0] == 1 and math.isnan(found["eval/return"][1])
    assert found["train/updates"].tolist() == [3, 3]
    assert without_frozen(values, np.array([False, False])) is values


@pytest.mark.slow
def test_a_run_goes_on_without_what_diverged_stops_or_starts_it_anew(tmp_path, capsys):
    config = gymnax_states.get_config("smoke")
    config.update(seeds=(0, 1, 2, 3), results_dir=str(tmp_path), eval=dict(episodes=2), video=dict(every=0))
    config.update(env=dict(kind="own_kinds:DEVICE", name="brittle"), plasticity=dict(method="none"))
    config.on_divergence = "stop"
    assert run(config) == 2
    out, err = capsys.readouterr()
    error = err.splitlines()[-1]
    assert (out + err).count("diverged at frame") == error.count("diverged at frame"), "said once"
    assert error.startswith("error: seed ") and "--config.on_divergence=freeze" in error
    assert any(Folder(config).checkpoint.iterdir())

    config.on_divergence = "freeze"
    assert run(config) == 0
    root = Folder(config).root
    lost, out = diverged_seeds(root, config.seeds), capsys.readouterr().out
    assert 0 < len(lost) < 4, "choose other seeds"
    for seed in config.seeds:
        last = read_metrics(root / str(seed) / "metrics.jsonl")[-1]
        assert (last["train/critic_loss"] is None) == (seed in lost) == ("train/diverged" in last)
        assert seed not in lost or last["eval/return"] is None
        assert (f"seed {seed} diverged at frame" in out) == (seed in lost)

    config.update(on_divergence="restart", exp_id="again")
    assert run(config) == 0
    rows = read_metrics(Folder(config).seed(lost[0]) / "metrics.jsonl")
    first = next(i for i, row in enumerate(rows) if "train/diverged" in row)
    assert rows[first + 1]["train/restarts"] >= 1
