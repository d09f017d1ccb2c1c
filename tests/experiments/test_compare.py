"""The program: a run that fails, what it refuses before anything starts, and small comparisons of real runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from compared import config_of, rows

from experiments.compare import _train
from experiments.launch.engine import Result
from experiments.launch.plan import Planned
from experiments.launch.progress import State

ROOT = Path(__file__).parents[2]
METHODS = ("--method=none", "--method=ne,revive=bias")


def program(results, *arguments, config="configs/continual.py:smoke", status=0):
    command = [sys.executable, "-m", "experiments.compare", f"--config={config}", f"--config.results_dir={results}"]
    done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=3600)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout, done.stderr


def made(runs):
    """Half of the rows for all methods, the other half and the last checkpoint only without a method."""
    for run in runs:
        for seed in run.seeds:
            (run.folder / str(seed)).mkdir(parents=True, exist_ok=True)
            kept = rows()[: None if run.name == "none" else 7]
            text = "".join(json.dumps(row) + "\n" for row in kept)
            (run.folder / str(seed) / "metrics.jsonl").write_text(text)
        (run.folder / "versions.json").write_text('{"device": "made by hand", "jax": "0", "commit": "none"}')
        if run.name == "none":
            run.checkpoint.mkdir(parents=True, exist_ok=True)
    states = {run.name: State.DONE if run.done else State.FAILED for run in runs}
    return Result(states, {run.name: "no room" for run in runs if not run.done}, stopped=False)


def test_a_run_that_fails_is_not_in_the_table(tmp_path, capsys):
    config = config_of()
    runs = []
    for name in ("ne", "none"):
        checkpoint = tmp_path / name / "checkpoint" / "1000"
        runs.append(Planned(name, {}, (), tmp_path / name, (0, 1), 1_000, checkpoint, 0, tmp_path / "x"))
    assert _train(config, made, runs[:1], tmp_path, []) == 2 and not (tmp_path / "table.md").exists()
    told = "error: ne: no room\nnot trained to the end, so not in the table: ne\n"
    assert capsys.readouterr().err == told
    assert _train(config, made, runs, tmp_path, ["tuned by hand"]) == 2
    text = (tmp_path / "table.md").read_text()
    assert [line[:8] for line in text.splitlines() if line.startswith("| `")] == ["| `none`"]
    assert "- tuned by hand." in text and "device made by hand, jax 0, commit none" in text
    assert (tmp_path / "methods.png").stat().st_size > 10_000


REFUSED = [
    (["--method=ne,omega=2"], "--method=ne,omega=2: plasticity.omega must lie in"),
    (["--method=nee"], "--method=nee: plasticity.method must be one of none, ne"),
    (["--method=ne", "--method=ne,omega=0.4"], "--method=ne,omega=0.4 is the same run as --method=ne; name each once"),
    (["--config.env.num_envs=0"], "env.num_envs must be positive, got 0"),
    (["--config.plasticity.method=ne"], "plasticity.method is set for each method: --method=NAME"),
    (
        ["--config.stop_at_frame=100"],
        "stop_at_frame=100 ends runs early, and the table is of whole ones",
    ),
    (["--config.distributed=True"], "distributed=True shares the seeds of one run, and a comparison starts many"),
    (["--config.slice=0/2"], "slice=0/2 trains some of the seeds, and the table is of all; leave it empty"),
    (["--config.stop_after=1h", "--method=none"], "--method=none: a sweep takes a run that stops by itself"),
    (["--dev-seeds=9"], "--dev-seeds and --budget say how to tune; name what is to be tried"),
    (["--slurm.partition=gpu"], "--slurm.KEY=VALUE goes with --launcher=submitit"),
    (
        ["--method=none", "--tune=agent.tau=0.1,7", "--dev-seeds=9"],
        "--method=none --config.agent.tau=7: agent.tau must lie in (0, 1], got 7.0",
    ),
    (
        ["--method=none", "--tune=agent.tau=0.1,0.2", "--dev-seeds=9", "--config.agent.tau=0.3"],
        "agent.tau is set for all runs by --config.agent.tau, and varies by --tune; drop one of the two",
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "sentence"), REFUSED)
def test_what_cannot_be_is_named_before_anything_trains(tmp_path, arguments, sentence):
    _, err = program(tmp_path, *arguments, status=2)
    assert err.startswith(f"error: {sentence}") and err.count("\n") == 1, err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_two_methods_train_once_and_make_a_table(tmp_path):
    more = ("--config.metrics_every=70",)
    out, _ = program(tmp_path, *METHODS, *more)
    root = tmp_path / "td3_continual_smoke_Pendulum-v1_methods"
    text = (root / "table.md").read_text()
    assert text in out
    assert [line.split("|")[1].strip() for line in text.splitlines()[2:4]] == ["`none`", "`ne,revive=bias`"]
    assert "| method | final return | mean return | forgetting |" in text and "seeds 0, 1; device cpu" in text
    assert (root / "methods.png").stat().st_size > 10_000 and "no number" not in text.splitlines()[2]
    logs = [path.read_text() for path in sorted((root / "logs").iterdir())]
    assert len(logs) == 2 and all("compiled in" in log for log in logs)
    out, _ = program(tmp_path, *METHODS, *more)
    assert "2 runs: 2 done" in out and "running" not in out and (root / "table.md").read_text() == text


@pytest.mark.slow
def test_each_method_is_tuned_on_other_seeds_with_the_whole_schedule_and_the_table_cites_the_protocol(tmp_path):
    arguments = ["--method=ne", "--tune=agent.tau=0.1,0.2,0.3,0.4", "--dev-seeds=7", "--config.seeds=(0,)"]
    arguments += ["--config.seed_frames=100", "--config.eval.every=100", "--config.video.every=0"]
    config = "configs/gymnax_states.py:smoke"
    out, _ = program(tmp_path, *arguments, config=config)
    root = tmp_path / "td3_ne_smoke_Pendulum-v1_tuned"
    protocol, text = json.loads((root / "protocol.json").read_text()), (root / "table.md").read_text()
    assert protocol["rungs"] == [{"candidates": 4, "frames": 200}, {"candidates": 2, "frames": 400}]
    own = protocol["methods"]["ne"]
    (chosen,) = own["rounds"][1]["kept"]
    assert text in out and f"`ne` has agent.tau={own['overrides']['agent.tau']}." in text
    assert f"protocol: {root / 'protocol.json'} (sha256 " in text and "seeds 7, 1,200 frames each" in text
    final = json.loads((root / "final" / "ne_Pendulum-v1" / "config.json").read_text())
    assert final["agent"]["tau"] == float(chosen[4:]) and final["seeds"] == [0] and final["stop_at_frame"] == 0
    for setting in own["candidates"]:
        tried = json.loads((root / "tuning" / "ne" / f"{setting}_Pendulum-v1" / "config.json").read_text())
        assert tried["seeds"] == [7]
    logs = (root / "logs" / f"ne_{chosen}.txt").read_text()
    assert "ended at frame 200" in logs and "resuming at frame 200 of 400" in logs
    # A tuned run that came through both rounds is the same as one that was never cut.
    solo = [f"--config={config}", f"--config.results_dir={tmp_path / 'solo'}", "--config.seeds=(7,)", *arguments[4:]]
    solo += [f"--config.agent.tau={chosen[4:]}", "--config.plasticity.method=ne"]
    subprocess.run([sys.executable, "-m", "experiments.run", *solo], cwd=ROOT, check=True, capture_output=True)
    whole, cut = tmp_path / "solo" / "td3_ne_smoke_Pendulum-v1", root / "tuning" / "ne" / f"{chosen}_Pendulum-v1"
    assert _rows(whole) == _rows(cut)
    again, _ = program(tmp_path, *arguments, config=config)
    assert "running" not in again and (root / "table.md").read_text() == text


def _rows(folder):
    lines = (folder / "7" / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if not key.startswith("time/")} for line in lines]
