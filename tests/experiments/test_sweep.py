"""The program: what it refuses before anything starts, and sweeps of real, tiny runs that are killed and go on."""

import csv
import functools
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import waiting

from experiments.record.metrics_files import read_metrics

ROOT = Path(__file__).parents[2]
TINY = ["--config=configs/gymnax_states.py:smoke", "--config.video.every=0"]
ONE_SEED = ("--config.seeds=(0,)",)


def program(*arguments, module="experiments.sweep", seeds=ONE_SEED, **more):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-m", module, *TINY, *seeds, *arguments], cwd=ROOT, **pipes, **more)


def finished(process, status=0):
    out, err = process.communicate(timeout=1800)
    assert process.returncode == status, out + err
    return out, err


def rows(folder, seed=0):
    """What a run has measured, but for its speed."""
    found = read_metrics(folder / str(seed) / "metrics.jsonl")
    return [{key: value for key, value in row.items() if not key.startswith("time/")} for row in found]


REFUSED = [
    ([], "error: a sweep needs what varies"),
    (["--over=agent.tau=1,1"], "error: two runs would have one name, tau=1"),
    (["--over=agent.tau=1", "--slurm.partition=gpu"], "error: --slurm.KEY=VALUE goes with --launcher=submitit"),
    (["--over=agent.tau=1", "--launcher=submitit", "--slurm.cluster=moon"], "error: --slurm.cluster must be"),
    (["--over=agent.tau=1", "--launcher=submitit", "--ray.num_cpus=1"], "error: --ray.KEY=VALUE goes with"),
]


@pytest.mark.parametrize(
    ("arguments", "sentence"), [REFUSED[0], *(pytest.param(*each, marks=pytest.mark.slow) for each in REFUSED[1:])]
)
def test_what_cannot_be_is_a_sentence(arguments, sentence):
    _, err = finished(program(*arguments), 2)
    assert err.startswith(sentence) and err.count("\n") == 1, err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("over", "sentence"),
    [
        ("agent.learnig_rate=1e-3", "the config has no key agent.learnig_rate; did you mean learning_rate?"),
        ("agent.tau=0.1,7", "--config.agent.tau=7: agent.tau must lie in (0, 1], got 7.0"),
        ("agent.tau=0.1,0.10", "--config.agent.tau=0.10 is the same run as --config.agent.tau=0.1; name each once"),
        ("env.name=Pendulum-v1,Pendulm-v1", "did you mean"),
        ("slice=0/2", "slice=0/2 is one of 2 processes, and there are 1 seeds"),
        ("distributed=True", "a sweep starts one process for each run; leave distributed=False, or take slice"),
        ("resume=False", "a sweep goes on where it was stopped, so leave resume=True"),
    ],
)
def test_every_run_is_checked_before_any_starts(tmp_path, over, sentence):
    _, err = finished(program(f"--config.results_dir={tmp_path}", f"--over={over}"), 2)
    assert sentence in err and err.startswith("error: ") and err.count("\n") == 1, err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_dry_run_starts_none(tmp_path):
    out, _ = finished(program(f"--config.results_dir={tmp_path}", "--over=agent.tau=0.1,0.2", "--dry-run"))
    assert out.count("to do: python -m experiments.run --config=configs/gymnax_states.py:smoke") == 2
    assert "2 runs, 0 of them done" in out and not list(tmp_path.iterdir())


OVER = ["--over=plasticity.method=none,ne", "--over=seeds=(0,),(1,),(2,)"]
NAMES = {f"method={method},seeds={seed}": (method, seed) for method in ("none", "ne") for seed in range(3)}


def runs_of(process):
    """The processes of `experiments.run` below this one."""
    found = []
    for each in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.Error):  # it has just ended
            found += [each] if "experiments.run" in each.cmdline() else []
    return found


def kill(process):
    """End it at once, and leave no pipe open; what it has started may still hold the other end."""
    process.kill()
    process.wait()
    for pipe in (process.stdout, process.stderr):
        pipe.close()


wait_for = functools.partial(waiting.wait_for, seconds=900.0)


@pytest.mark.slow
def test_a_sweep_whose_processes_are_killed_ends_as_solo_runs_do(tmp_path):
    arguments = [f"--config.results_dir={tmp_path}", "--config.checkpoint_every=100", "--max-parallel=2"]
    root = tmp_path / "td3_ne_smoke_sweep"
    sweep = program(*arguments, *OVER, seeds=())
    # One run is killed once it has begun to train, and the sweep starts it again.
    wait_for(lambda: list(root.glob("*/*/metrics.jsonl")))
    victim = wait_for(lambda: runs_of(sweep))[0]
    victim.kill()
    wait_for(lambda: any(path.name.isdigit() for path in root.glob("*/checkpoint/*")))
    left = runs_of(sweep)
    kill(sweep)  # and then the sweep itself
    out, _err = finished(program(*arguments, *OVER, seeds=()))
    assert not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in left)
    with (root / "sweep.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [(line["plasticity.method"], line["state"]) for line in lines] == [
        (method, "done") for method in ("none", "ne") for _ in range(3)
    ]
    for name, (method, seed) in NAMES.items():
        own = [f"--config.results_dir={tmp_path / 'solo'}", f"--config.exp_id={name}", "--config.checkpoint_every=100"]
        own += [f"--config.plasticity.method={method}", f"--config.seeds=({seed},)"]
        finished(program(*own, module="experiments.run", seeds=()))
        folder = f"{name}_Pendulum-v1"
        assert rows(root / folder, seed) == rows(tmp_path / "solo" / folder, seed)
    begun = time.monotonic()
    out, _ = finished(program(*arguments, *OVER, seeds=()))  # and again, which finds all done
    assert "6 runs: 6 done" in out and "running" not in out and time.monotonic() - begun < 300


@pytest.mark.slow
def test_asked_to_stop_a_sweep_stops_its_runs_and_goes_on(tmp_path):
    arguments = [f"--config.results_dir={tmp_path}", "--over=agent.tau=0.1,0.2", "--max-parallel=1"]
    sweep = program(*arguments)
    wait_for(lambda: list(tmp_path.glob("*/*/0/metrics.jsonl")))
    (run,) = runs_of(sweep)
    sweep.send_signal(signal.SIGTERM)
    out, err = finished(sweep, 130)
    assert "stopped" in out and "the same command goes on from here" in err and not run.is_running()
    finished(program(*arguments))


@pytest.mark.slow
def test_jobs_of_submitit_survive_the_sweep_go_back_into_the_queue_and_end_as_solo_runs_do(tmp_path):
    pytest.importorskip("submitit")
    arguments = [f"--config.results_dir={tmp_path}", "--launcher=submitit", "--slurm.cluster=local", "--max-parallel=2"]
    arguments += ["--config.total_frames=2000", "--over=agent.tau=0.1,0.2"]
    root = tmp_path / "td3_ne_smoke_sweep"
    sweep = program(*arguments, start_new_session=True)
    wait_for(lambda: len(list(root.glob("*/0/metrics.jsonl"))) == 2)
    kill(sweep)
    jobs = json.loads((root / "submitit" / "jobs.json").read_text())
    controller = psutil.Process(int(jobs["tau=0.1"]))
    (task,) = [each for each in controller.children() if "submitit.core._submit" in each.cmdline()]
    task.send_signal(signal.SIGUSR2)  # as SLURM does before it takes the machine away
    _out, _ = finished(program(*arguments))
    assert json.loads((root / "submitit" / "jobs.json").read_text()) == jobs  # found again, not submitted twice
    assert "resuming at frame" in (root / "logs" / "tau=0.1.txt").read_text()
    for tau in ("0.1", "0.2"):
        own = [f"--config.results_dir={tmp_path / 'solo'}", f"--config.exp_id=tau={tau}", f"--config.agent.tau={tau}"]
        finished(program(*own, "--config.total_frames=2000", module="experiments.run"))
        assert rows(root / f"tau={tau}_Pendulum-v1") == rows(tmp_path / "solo" / f"tau={tau}_Pendulum-v1")


@pytest.mark.slow
def test_runs_on_ray_survive_the_sweep_and_their_own_death_and_end_as_solo_runs_do(tmp_path):
    pytest.importorskip("ray")
    arguments = [f"--config.results_dir={tmp_path}", "--launcher=ray", "--max-parallel=2", "--config.total_frames=2000"]
    arguments += ["--config.checkpoint_every=100", "--over=agent.tau=0.1,0.2,0.3"]
    root = tmp_path / "td3_ne_smoke_sweep"
    sweep = program(*arguments)
    wait_for(lambda: len(list(root.glob("*/0/metrics.jsonl"))) == 2)
    wait_for(lambda: any(path.name.isdigit() for path in root.glob("*/checkpoint/*")))
    victim, other = wait_for(lambda: len(found := runs_of(sweep)) == 2 and found)
    victim.kill()  # and the sweep starts it again
    wait_for(lambda: victim.pid not in [each.pid for each in runs_of(sweep)] and len(runs_of(sweep)) == 2)
    kill(sweep)
    wait_for(lambda: not other.is_running() or other.status() == psutil.STATUS_ZOMBIE)  # saves and stops
    out, _ = finished(program(*arguments))
    assert "[3 of 3 done]" in out
    assert any("resuming at frame" in path.read_text() for path in (root / "logs").iterdir())
    for tau in ("0.1", "0.2", "0.3"):
        own = [f"--config.results_dir={tmp_path / 'solo'}", f"--config.exp_id=tau={tau}", f"--config.agent.tau={tau}"]
        own += ["--config.total_frames=2000", "--config.checkpoint_every=100"]
        finished(program(*own, module="experiments.run"))
        assert rows(root / f"tau={tau}_Pendulum-v1") == rows(tmp_path / "solo" / f"tau={tau}_Pendulum-v1")


@pytest.mark.slow
def test_two_processes_with_a_slice_each_one_killed_equal_one_process(tmp_path):
    # Of unequal size, and none of one seed alone: XLA compiles a loop of one otherwise, to other last digits.
    common = ["--config.seeds=(0,1,2,3,4)", "--config.over_seeds=map", "--config.checkpoint_every=100"]
    sliced = [*common, f"--config.results_dir={tmp_path / 'sliced'}"]
    parts = [program(*sliced, f"--config.slice={i}/2", module="experiments.run", seeds=()) for i in range(2)]
    name = "td3_ne_smoke_Pendulum-v1"
    root, whole = tmp_path / "sliced" / name, tmp_path / "whole" / name
    wait_for(lambda: any(path.name.isdigit() for path in root.glob("slices/1_of_2/checkpoint/*")))
    parts[1].kill()
    parts[1].communicate()
    finished(parts[0])
    finished(program(*sliced, "--config.slice=1/2", module="experiments.run", seeds=()))
    finished(program(*common, f"--config.results_dir={tmp_path / 'whole'}", module="experiments.run", seeds=()))
    for seed in range(5):
        assert rows(root, seed) == rows(whole, seed)
    kept = [json.loads((each / "config.json").read_text()) for each in (root, whole)]
    for config in kept:
        config.pop("results_dir")
    assert kept[0] == kept[1]
    played = [
        subprocess.run(
            [sys.executable, "-m", "experiments.evaluate", f"--run={each}", "--episodes=1", "--json"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env={**os.environ},
        )
        for each in (root, whole)
    ]
    assert played[0].returncode == 0 and len(played[0].stdout) > 20, played[0].stderr
    assert played[0].stdout.replace("sliced", "whole") == played[1].stdout
