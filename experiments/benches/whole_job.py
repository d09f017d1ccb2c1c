"""`make run`'s job from start to end, ours and eager PyTorch with a process per seed: frames per second of all seeds.

`python -m experiments.benches.whole_job --frames=4000`

Ours is `python -m experiments.run`, with start-up, compiling, evaluations and checkpoints; only videos are off, for the
peer has none. The peer is `torch_job`: dense, drawn by MuJoCo through OpenGL, one thread per process, evaluations, no
checkpoints. They take turns. Both are told with their processor time, which says more on a machine that others use.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from absl import app, flags
from ml_collections import ConfigDict

from configs import dmc_pixels
from experiments.benches.peer import WITHOUT
from experiments.benches.torch_worker import Timed
from experiments.build.presets import apply_task


class Job(NamedTuple):
    """What is trained: by which settings, and the same as words of a command line."""

    config: ConfigDict
    words: list[str]


def job_of(variant: str, frames: int, method: str) -> Job:
    """The job of `configs/dmc_pixels.py:VARIANT`, so many frames of it."""
    given = {"total_frames": frames, "video.every": 0, "plasticity.method": method}
    config = dmc_pixels.get_config(variant)
    config.update_from_flattened_dict(given)
    apply_task(config, given)
    words = [f"--config=configs/dmc_pixels.py:{variant}", *(f"--config.{key}={value}" for key, value in given.items())]
    return Job(config, words)


def ours(job: Job) -> Timed:
    """Milliseconds of our run, all in all, in a fresh folder."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "experiments.run", *job.words, f"--config.results_dir={folder}"]
        found = timed([command])
        for rows in sorted(Path(folder).glob("*/*/metrics.jsonl"))[:1]:
            last = json.loads(rows.read_text().splitlines()[-1])
            shares = {name.removeprefix("time/share_"): each for name, each in last.items() if "/share_" in name}
            print("  shares of the last interval: " + ", ".join(f"{k} {100 * v:.0f} %" for k, v in shares.items()))
    return found


def peer(job: Job) -> Timed:
    """Milliseconds of all of the peer's processes, side by side, all in all."""
    spec, module = json.dumps(job.config.to_dict()), "experiments.benches.torch_job"
    return timed([[sys.executable, "-m", module, spec, str(seed), "1"] for seed in job.config.seeds])


def timed(commands: Sequence[list[str]]) -> Timed:
    """Milliseconds until all commands, started at once, are done, and their processor time.

    Raises:
        RuntimeError: one of them failed.
    """
    begun, before = time.perf_counter(), _processor()
    children = [subprocess.Popen(each, stdout=subprocess.DEVNULL) for each in commands]
    failed = [each for each, child in zip(commands, children) if child.wait()]
    if failed:
        raise RuntimeError(f"{' '.join(failed[0][:3])} failed; what it said stands above")
    return Timed(1e3 * (time.perf_counter() - begun), 1e3 * (_processor() - before))


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(_: list[str]) -> int:
    """Measure in turn, and print seconds, processor time and frames per second of all seeds together."""
    job = job_of(_VARIANT.value, _FRAMES.value, _METHOD.value)
    frames = len(job.config.seeds) * job.config.total_frames
    if find_spec("torch") is None:
        print(WITHOUT)
    print(f"{len(job.config.seeds)} seeds, {job.config.total_frames:,} frames each, by {_METHOD.value}")
    print(f"{'':<24}{'seconds':>10}{'processor':>11}{'frames/s':>10}{'frames per processor second':>30}")
    sides = {"ours": ours} | ({"PyTorch": peer} if find_spec("torch") else {})
    for _turn in range(_ROUNDS.value):
        for name, train in sides.items():
            try:
                found = Timed(*(each / 1e3 for each in train(job)))
            except RuntimeError as error:
                print(f"error: {error}", file=sys.stderr)
                return 2
            row = f"{name:<24}{found.clock:>10.1f}{found.processor:>11.1f}{frames / found.clock:>10.1f}"
            print(f"{row}{frames / found.processor:>30.1f}", flush=True)
    return 0


if __name__ == "__main__":
    _FRAMES = flags.DEFINE_integer("frames", 80_000, "Frames per seed; those of `make run` by default.", lower_bound=1)
    _VARIANT = flags.DEFINE_enum("variant", "quick", ["quick", "smoke"], "Of configs/dmc_pixels.py.")
    _METHOD = flags.DEFINE_string("method", "ne", "Our plasticity method; the peer is dense.")
    _ROUNDS = flags.DEFINE_integer("rounds", 1, "How often each is measured.", lower_bound=1)
    app.run(main)
