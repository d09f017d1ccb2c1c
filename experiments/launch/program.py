"""What programs that start many runs share: the flags of launchers, and the way from a checked plan to trained runs."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from experiments.build.command_line import parse
from experiments.launch.engine import Result, carry_out
from experiments.launch.local import LocalLauncher, cores_here, gpus_here, make_slots, memory_here
from experiments.launch.overrides import is_of, settings_given
from experiments.launch.plan import Asked, Planned, make_plan
from experiments.launch.progress import Board, State
from experiments.launch.ray_cluster import RayLauncher
from experiments.launch.slurm import SubmititLauncher
from experiments.run import command

_LAUNCHER = flags.DEFINE_enum(
    "launcher", "local", ["local", "submitit", "ray"], "Processes of this machine, SLURM jobs, or a cluster of Ray."
)
_PARALLEL = flags.DEFINE_integer(
    "max-parallel", None, "Runs at a time; local: as many as GPUs, or cores.", lower_bound=1
)
_MEMORY = flags.DEFINE_float("memory", None, "GB that local runs may take together; all that is free.", lower_bound=0)
_RETRIES = flags.DEFINE_integer(
    "retries", 2, "How often a run that was killed, no further, is started again.", lower_bound=0
)
_DRY_RUN = flags.DEFINE_bool("dry-run", False, "Check all runs and list them; start none.")

PREFIXES = {"submitit": "slurm", "ray": "ray"}
"""Launchers with settings of their own, which are --PREFIX.KEY=VALUE."""


class Interrupted(Exception):
    """Ctrl-C, while runs were checked."""


class Runs:
    """Checks runs and starts them, as the command line says.

    Args:
        root: the folder for what they print, and for what a launcher keeps.
        argv: the command line.

    Raises:
        ValueError: the launcher is not installed, or cannot be used with its settings.
    """

    def __init__(self, root: Path, argv: Sequence[str]) -> None:
        self._root, self._jobs = root, _cluster(root, argv)
        self._local: LocalLauncher | None = None

    def plan(self, asked: Sequence[Asked]) -> list[Planned]:
        """All runs, each of them checked.

        Raises:
            ValueError: one cannot be.
            Interrupted: the user has stopped it.
        """
        here = self._jobs is None or self._jobs.here
        try:
            runs = make_plan(asked, self._root / "logs", judge_memory=here, tell=_tell_checked)
        except RuntimeError as error:
            raise ValueError(str(error)) from error
        except KeyboardInterrupt:
            raise Interrupted from None
        if self._jobs is None:
            self._local = self._local or _local_launcher()
            self._local.check(runs)
        return runs

    def train(self, runs: Sequence[Planned]) -> Result:
        """Train those that are not done, and show how far they are."""
        launcher = self._jobs or self._local
        assert launcher is not None, "what is trained was planned"
        (self._root / "logs").mkdir(parents=True, exist_ok=True)
        board = Board(runs)
        try:
            return carry_out(runs, launcher, board, partial(print, file=sys.stderr), _RETRIES.value)
        finally:
            board.close()


def only_listed(runs: Sequence[Planned]) -> bool:
    """Whether the user has only asked what would be started; it is printed, as command lines."""
    if not _DRY_RUN.value:
        return False
    for run in runs:
        print(f"{'done' if run.done else 'to do'}: {shlex.join(['python', *run.command[1:]])}")
    print(f"{len(runs)} runs, {sum(run.done for run in runs)} of them done; all can be as they are asked for")
    return True


def status(runs: Sequence[Planned], result: Result) -> int:
    """The exit status, after what there is to say: 0 if all are done, 2 if one failed, 130 after Ctrl-C."""
    failed = [run.name for run in runs if result.states[run.name] is State.FAILED]
    for name in failed:
        print(f"error: {name}: {result.why[name]}", file=sys.stderr)
    if result.stopped:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 2 if failed else 0


def answer(argv: list[str], work: Callable[[ConfigDict, list[str]], int]) -> int:
    """The exit status of `work(config, command line)`, which plans runs and trains them."""
    try:
        return command(argv, lambda config: work(config, sys.argv))
    except Interrupted:
        print("\nstopped while runs were checked", file=sys.stderr)
        return 130


def _cluster(root: Path, argv: Sequence[str]) -> SubmititLauncher | RayLauncher | None:
    """The launcher of the command line where it is another engine's; None: this machine is to be dealt out."""
    given = {name: settings_given(argv, prefix) for name, prefix in PREFIXES.items()}
    for name, settings in given.items():
        if settings and _LAUNCHER.value != name:
            raise ValueError(f"--{PREFIXES[name]}.KEY=VALUE goes with --launcher={name}")
    if _LAUNCHER.value == "submitit":
        return SubmititLauncher(root, given["submitit"], _PARALLEL.value)
    return RayLauncher(given["ray"], _PARALLEL.value) if _LAUNCHER.value == "ray" else None


def _local_launcher() -> LocalLauncher:
    memory = int(_MEMORY.value * 1e9) if _MEMORY.value else memory_here()
    return LocalLauncher(make_slots(_PARALLEL.value, cores_here(), gpus_here()), memory)


def _tell_checked(done: int, of: int) -> None:
    if sys.stderr.isatty():
        print(f"\rchecked {done} of {of} runs", end="" if done < of else "\n", file=sys.stderr, flush=True)


def parse_all(argv: list[str]) -> list[str]:
    """Parse the command line, but for the settings of launchers, whose keys are those of other engines."""
    return parse([each for each in argv if not any(is_of(each, prefix) for prefix in PREFIXES.values())])
