"""From what varies to the runs of a sweep, each checked before any starts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.build.run_names import OF_THE_FOLDER, Overrides, name_runs, sweep_folder


class Planned(NamedTuple):
    """A run of a sweep: what it is called, what is set for it alone, and what is known of it before it starts."""

    name: str
    overrides: Overrides
    command: tuple[str, ...]
    """As it is started."""
    folder: Path
    seeds: tuple[int, ...]
    frames: int
    """Of each seed, in the whole run."""
    checkpoint: Path
    """The last one: once it is there, the run is done."""
    memory: int
    """Bytes of all replays."""
    log: Path
    """What it prints. Whoever trains it holds a lock on this file."""

    @property
    def done(self) -> bool:
        """Whether it is trained to the end."""
        return self.checkpoint.exists()


def command_lines(
    shared: Sequence[str], overrides: Sequence[Overrides], results_dir: str, exp_id: str
) -> dict[str, tuple[str, ...]]:
    """The arguments of each run, by its name: `exp_id`, and the environment where that varies.

    Raises:
        ValueError: two runs would have one name.
    """
    found = {}
    for name, each in zip(name_runs(overrides, exp_id), overrides, strict=True):
        own = {"results_dir": str(sweep_folder(results_dir, exp_id)), "exp_id": name, **each}
        label = " ".join([name, *(each[key] for key in OF_THE_FOLDER if key in each)])
        found[label] = (*shared, *(f"--config.{key}={value}" for key, value in own.items()))
    return found


def make_plan(
    shared: Sequence[str],
    overrides: Sequence[Overrides],
    results_dir: str,
    exp_id: str,
    *,
    judge_memory: bool = True,
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> list[Planned]:
    """All runs, each of them checked.

    Args:
        shared: arguments of all runs.
        judge_memory: whether they run on this machine, so that a replay must fit into its memory.
        tell: called with how many are checked, and of how many.

    Raises:
        ValueError: a run cannot be as it is asked for; the sentence begins with its overrides.
    """
    lines, logs = command_lines(shared, overrides, results_dir, exp_id), sweep_folder(results_dir, exp_id) / "logs"
    plan, configs = [], {}
    for (name, arguments), own, found in zip(lines.items(), overrides, ask(list(lines.values())), strict=True):
        told = " ".join(f"--config.{key}={value}" for key, value in own.items())
        error = found.get("error") or (judge_memory and found.get("beyond_memory"))
        if error:
            raise ValueError(f"{told}: {error}")
        content = json.dumps(found["config"], sort_keys=True)
        if content in configs:
            raise ValueError(f"{told} is the same run as {configs[content]}; name each once")
        configs[content] = told
        plan.append(
            Planned(
                name,
                own,
                (sys.executable, "-m", "experiments.run", *arguments),
                Path(found["folder"]),
                tuple(found["seeds"]),
                found["frames"],
                Path(found["checkpoint"]),
                found["memory"],
                logs / f"{name.replace(' ', '_').replace('/', '-')}.txt",
            )
        )
        tell(len(plan), len(lines))
    return plan


def ask(lines: Sequence[Sequence[str]]) -> Any:
    """What `experiments.launch.check` says of each command line, in turn.

    Raises:
        RuntimeError: it ended before it had answered for all.
    """
    command = [sys.executable, "-m", "experiments.launch.check"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, start_new_session=True) as process:
        assert process.stdin and process.stdout
        json.dump(lines, process.stdin)
        process.stdin.close()
        try:
            for _ in lines:
                line = process.stdout.readline()
                if not line:
                    raise RuntimeError(f"the process that checks runs ended with status {process.wait()}")
                yield json.loads(line)
        finally:
            process.kill()
