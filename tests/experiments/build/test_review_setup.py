"""Experience review and the dynamic replay from a config: what reaches the programs, what is logged and refused."""

import inspect
import json
import re
from typing import Any

import jax
import numpy as np
import pytest

from configs import gymnax_states, mujoco_states
from experiments.build import experiment as setups
from experiments.build import learning
from experiments.build.experiment import setup
from experiments.run import run
from experiments.train.experience import Dynamic
from ne_jax.experience_review import make_review

REVIEW = dict(mode="gate", every=7, fraction=0.2, awaken=1.0, gain=1e4, window=3, most=0.7, auto_batch=True)
DYNAMIC: dict[str, Any] = dict(on=True, min_size=60, threshold=1e-6, every=60)


def smoke(folder, module=gymnax_states, **settings):
    config = module.get_config("smoke")
    config.results_dir = str(folder)
    config.update(settings)
    return config


def test_every_key_of_the_config_is_an_argument_and_has_its_default():
    arguments = inspect.signature(make_review).parameters
    config = gymnax_states.get_config().review
    assert set(config) == set(arguments)
    defaults = {name: each.default for name, each in arguments.items() if name != "mode"}
    assert config.mode == "none" and {name: config[name] for name in defaults} == defaults


@pytest.mark.parametrize("on", [True, False])
def test_settings_reach_the_programs(on, tmp_path, monkeypatch):
    told: dict[str, Any] = {}
    make_steps, make = setups.make_steps, learning.make_review

    def steps(*args, **kwargs):
        told.update(kwargs)
        return make_steps(*args, **kwargs)

    def review(**kwargs):
        told["settings"] = kwargs
        return make(**kwargs)

    monkeypatch.setattr(setups, "make_steps", steps)
    monkeypatch.setattr(learning, "make_review", review)
    extra: dict[str, Any] = dict(review=REVIEW, replay=dict(dynamic=DYNAMIC)) if on else {}
    experiment = setup(smoke(tmp_path, env=dict(num_envs=4), **extra))
    run = jax.eval_shape(experiment.steps.init, experiment.keys, experiment.pool.reset())
    experiment.close()
    learner, rollout = run
    if on:
        assert told["settings"] == REVIEW and told["review"].every == 7
        assert told["dynamic"] == Dynamic(min_size=60, threshold=1e-6)
        assert experiment.schedule.forget_every == 15, "60 agent steps are 15 steps of 4 environments"
        assert learner.review.samples.shape == (2, 3)
        assert (
            rollout.replay_state.mean.shape == rollout.replay_state.action.shape
            and rollout.replay_state.forgotten.shape == (2, 4)
        )
    else:
        assert told["review"] is None and told["dynamic"] is None and experiment.schedule.forget_every == 0
        assert learner.review is rollout.replay_state.mean is rollout.replay_state.forgotten is rollout.distance is None
    assert (
        sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(rollout.replay_state))
        == 2 * experiment.replay.nbytes
    )


@pytest.mark.parametrize("on", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_run_logs_what_was_reviewed_and_forgotten(on, tmp_path):
    extra: dict[str, Any] = dict(review=REVIEW, replay=dict(dynamic=DYNAMIC)) if on else {}
    config = smoke(tmp_path, video=dict(every=0), **extra)
    assert run(config) == 0
    for seed in config.seeds:
        file = tmp_path / "td3_ne_smoke_Pendulum-v1" / str(seed) / "metrics.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        told = [{key: value for key, value in row.items() if key.startswith(("review/", "replay/"))} for row in rows]
        names = {f"review/{name}" for name in ("probability", "share", "fau", "half_batch")} | {"replay/distance"}
        assert set().union(*told) == {"replay/size"} | (names if on else set())
        if not on:
            assert [row["replay/size"] for row in told] == [row["step"] for row in rows]
            continue
        last = told[-1]
        # The first 100 actions are random, which is far from the policy: all checks take a tenth, once 60 are exceeded.
        assert last["replay/size"] == 400 - 12 - 16 - 21 - 25 - 28 and told[2]["replay/size"] == 200 - 12 - 16
        assert told[2]["replay/distance"] > 0.05 and rows[2]["step"] == 200  # of all actions E(u - m)^2 / 2 >= 1 / 6
        assert last["replay/distance"] > 0
        # With such a gain it reviews all the time.
        assert last["review/share"] == 1 and last["review/probability"] == pytest.approx(1, abs=1e-3)
        assert 0.05 < last["review/fau"] < 0.95
        assert last["review/half_batch"] == (last["review/fau"] < 0.9)


def test_the_dynamic_replay_counts_the_means_in_its_bytes(tmp_path):
    sizes = []
    for on in (False, True):
        experiment = setup(smoke(tmp_path, replay=dict(dynamic=dict(DYNAMIC, on=on))))
        experiment.close()
        sizes.append(experiment.replay.nbytes)
    assert sizes[1] - sizes[0] == 1_000 * 4 + 4


GATE = dict(mode="gate")
BAD = [
    (dict(review=dict(mode="recall")), "review.mode must be one of none, slope, gate, got 'recall'"),
    (dict(review=dict(fraction=0.0)), r"review.fraction must lie in \(0, 1\]"),
    (dict(review=dict(gain=float("inf"))), "review.gain must be a finite number, got inf"),
    (dict(review=dict(auto_batch=True), batch_size=7), "review.auto_batch .* batch_size must be even, got 7"),
    (
        dict(review=dict(mode="slope", every=50)),
        "review.window=10 samples every review.every=50 updates are never there in a run of 200 updates",
    ),
    (dict(review=dict(GATE, every=2**31)), "review.every=2147483648 does not fit into a 32-bit counter"),
    (dict(replay=dict(dynamic=dict(every=0))), "replay.dynamic.every must be positive, got 0"),
    (dict(replay=dict(dynamic=dict(min_size=0))), "replay.dynamic.min_size must be positive, got 0"),
    (dict(replay=dict(dynamic=dict(threshold=-0.1))), "replay.dynamic.threshold must not be negative, got -0.1"),
    (dict(replay=dict(capacity=60, dynamic=DYNAMIC)), "replay.dynamic.min_size=60 .* with 60 scenes; lower it"),
    (dict(replay=dict(dynamic=dict(DYNAMIC, min_size=400))), "replay.dynamic.min_size=400 .* with 400 agent steps"),
    (dict(replay=dict(dynamic=dict(DYNAMIC, every=400))), "replay.dynamic.every=400 .* with 400 agent steps"),
]


@pytest.mark.parametrize(("settings", "sentence"), BAD)
def test_a_bad_setting_is_one_sentence(settings, sentence, tmp_path, capsys):
    assert run(smoke(tmp_path, **settings)) == 2
    error = capsys.readouterr().err
    assert re.search(sentence, error), error
    assert error.count("\n") == 1 and error.startswith("error: ")
    assert not any(tmp_path.iterdir())


def test_the_longest_window_that_fits_is_accepted(tmp_path):
    for every in (22, 21):  # 200 updates: the tenth sample is that of update 198, and update 199 decides by it
        setup(smoke(tmp_path, review=dict(mode="slope", every=every))).close()
    with pytest.raises(ValueError, match=r"review\.window"):
        setup(smoke(tmp_path, review=dict(mode="slope", every=23)))
    assert np.isfinite(mujoco_states.get_config().replay.dynamic.threshold)
