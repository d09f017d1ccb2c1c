"""From what varies to the runs of a sweep, each checked before any starts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.build.run_names import OF_THE_FOLDER, Overrides, name_runs, sweep_folder
from experiments.launch.overrides import with_own


class Planned(NamedTuple):
    """A run of a sweep: what it is called, what is set for it alone, and what is known of it before it starts."""

    name: str
    overrides: Overrides
    command: tuple[str, ...]
    """As it is started."""
    folder: Path
    seeds: tuple[int, ...]
    frames: int
    """Of each seed, up to where the run is asked to come."""
    checkpoint: Path
    """The last one: once it is there, the run is done."""
    memory: int
    """Bytes of all replays."""
    log: Path
    """What it prints. Whoever trains it holds a lock on this file."""

    @property
    def done(self) -> bool:
        """Whether it is trained to its end, or beyond it, as a run that was asked for more frames is."""
        if self.checkpoint.exists():
            return True
        beside = [path.name for path in self.checkpoint.parent.glob("*")] if self.checkpoint.name.isdigit() else []
        return any(int(name) > int(self.checkpoint.name) for name in beside if name.isdigit())


class Asked(NamedTuple):
    """A run as it is asked for, before it is checked."""

    name: str
    told: str
    """What the user has said of it alone."""
    overrides: Overrides
    arguments: tuple[str, ...]
    """Of `experiments.run`."""


def ask_for(shared: Sequence[str], overrides: Sequence[Overrides], results_dir: str, exp_id: str) -> list[Asked]:
    """The runs of a sweep, each named by what varies: its `exp_id`, and the environment where that varies.

    Args:
        shared: arguments of all runs.

    Raises:
        ValueError: two runs would have one name.
    """
    found = []
    for name, each in zip(name_runs(overrides, exp_id), overrides, strict=True):
        own = {"results_dir": str(sweep_folder(results_dir, exp_id)), "exp_id": name, **each}
        label = " ".join([name, *(each[key] for key in OF_THE_FOLDER if key in each)])
        found.append(Asked(label, " ".join(with_own([], each)), each, with_own(shared, own)))
    return found


def make_plan(
    asked: Sequence[Asked],
    logs: Path,
    *,
    judge_memory: bool = True,
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> list[Planned]:
    """All runs, each of them checked.

    Args:
        logs: the folder for what they print.
        judge_memory: whether they run on this machine, so that a replay must fit into its memory.
        tell: called with how many are checked, and of how many.

    Raises:
        ValueError: a run cannot be as it is asked for; the sentence begins with what was said of it.
    """
    plan, configs = [], {}
    for each, found in zip(asked, ask([each.arguments for each in asked]), strict=True):
        error = found.get("error") or (judge_memory and found.get("beyond_memory"))
        if error:
            raise ValueError(f"{each.told}: {error}")
        content = json.dumps(found["config"], sort_keys=True)
        if content in configs:
            raise ValueError(f"{each.told} is the same run as {configs[content]}; name each once")
        configs[content] = each.told
        plan.append(
            Planned(
                each.name,
                each.overrides,
                (sys.executable, "-m", "experiments.run", *each.arguments),
                Path(found["folder"]),
                tuple(found["seeds"]),
                found["frames"],
                Path(found["checkpoint"]),
                found["memory"],
                logs / f"{each.name.replace(' ', '_').replace('/', '-')}.txt",
            )
        )
        tell(len(plan), len(asked))
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
