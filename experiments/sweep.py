"""Many runs: `python -m experiments.sweep --config=F --over="plasticity.method=none,ne" --over="agent.tau=0.005,0.01"`.

Every value of each --over goes with every other (--zip: the first ones together, then the second ones; --random=K: only
K of them; --file: a CSV with a column for each key). Each combination is a run of `experiments.run` with a name of its
own under {results_dir}/{exp_id}_sweep; --config.KEY=VALUE holds for all. All are checked before any starts. The same
command again goes on, tries again what failed, and skips what is done. docs/sweeps.md explains launchers and results.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from absl import app, flags
from ml_collections import ConfigDict

from experiments.build.run_names import sweep_folder
from experiments.launch.engine import carry_out
from experiments.launch.local import LocalLauncher, cores_here, gpus_here, make_slots, memory_here
from experiments.launch.overrides import is_of, make_overrides, settings_given, shared_arguments
from experiments.launch.plan import Planned, make_plan
from experiments.launch.progress import Board, State
from experiments.launch.ray_cluster import RayLauncher
from experiments.launch.results import table, write_csv
from experiments.launch.slurm import SubmititLauncher
from experiments.run import command, parse

_OVER = flags.DEFINE_multi_string("over", [], "What varies: KEY=VALUE,VALUE. Once for each key.")
_ZIP = flags.DEFINE_bool("zip", False, "The first values of all --over together, then the second ones, and so on.")
_RANDOM = flags.DEFINE_integer("random", None, "So many of all combinations, drawn at random.")
_RANDOM_SEED = flags.DEFINE_integer("random-seed", 0, "Of that draw.")
_FILE = flags.DEFINE_string("file", None, "A CSV file in place of --over: a column for each key, a line for each run.")
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


def sweep(config: ConfigDict, argv: list[str]) -> int:
    """Check all runs, train those that are not done, write CSV and table; the exit status.

    0 if all are done, 2 if one failed or cannot be, 130 after Ctrl-C.
    """
    overrides = make_overrides(
        _OVER.value,
        zipped=_ZIP.value,
        table=Path(_FILE.value) if _FILE.value else None,
        count=_RANDOM.value,
        seed=_RANDOM_SEED.value,
    )
    shared = shared_arguments(argv[1:], overrides)
    root = sweep_folder(config.results_dir, config.exp_id)
    jobs = _cluster(root, argv)
    here = jobs is None or jobs.here
    try:
        runs = make_plan(shared, overrides, config.results_dir, config.exp_id, judge_memory=here, tell=_tell_checked)
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    except KeyboardInterrupt:
        print("\nstopped before any run has started", file=sys.stderr)
        return 130
    launcher = jobs or _local_launcher(runs)
    if _DRY_RUN.value:
        return _list(runs)
    (root / "logs").mkdir(parents=True, exist_ok=True)
    board = Board(runs)
    try:
        result = carry_out(runs, launcher, board, partial(print, file=sys.stderr), _RETRIES.value)
    finally:
        board.close()
    text = table(runs, write_csv(runs, result.states, root / "sweep.csv"))
    (root / "table.md").write_text(text)
    print(f"\n{text}\nall runs, seeds and metrics in {root / 'sweep.csv'}")
    return _status(runs, result.states, result.why, result.stopped)


def _cluster(root: Path, argv: list[str]) -> SubmititLauncher | RayLauncher | None:
    """The launcher of the command line where it is another engine's; None: this machine is to be dealt out.

    Raises:
        ValueError: it is not installed, or cannot be used with its settings.
    """
    given = {name: settings_given(argv, prefix) for name, prefix in PREFIXES.items()}
    for name, settings in given.items():
        if settings and _LAUNCHER.value != name:
            raise ValueError(f"--{PREFIXES[name]}.KEY=VALUE goes with --launcher={name}")
    if _LAUNCHER.value == "submitit":
        return SubmititLauncher(root, given["submitit"], _PARALLEL.value)
    return RayLauncher(given["ray"], _PARALLEL.value) if _LAUNCHER.value == "ray" else None


def _local_launcher(runs: list[Planned]) -> LocalLauncher:
    gpus, memory = gpus_here(), int(_MEMORY.value * 1e9) if _MEMORY.value else memory_here()
    launcher = LocalLauncher(make_slots(_PARALLEL.value, cores_here(), gpus), memory)
    launcher.check(runs)
    return launcher


def _tell_checked(done: int, of: int) -> None:
    if sys.stderr.isatty():
        print(f"\rchecked {done} of {of} runs", end="" if done < of else "\n", file=sys.stderr, flush=True)


def _list(runs: list[Planned]) -> int:
    """What would be started, as command lines."""
    for run in runs:
        print(f"{'done' if run.done else 'to do'}: {shlex.join(['python', *run.command[1:]])}")
    print(f"{len(runs)} runs, {sum(run.done for run in runs)} of them done; all can be as they are asked for")
    return 0


def _status(runs: list[Planned], states: Mapping[str, State], why: Mapping[str, str], stopped: bool) -> int:
    failed = [run.name for run in runs if states[run.name] is State.FAILED]
    for name in failed:
        print(f"error: {name}: {why[name]}", file=sys.stderr)
    if stopped:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 2 if failed else 0


def parse_all(argv: list[str]) -> list[str]:
    """Parse the command line, but for the settings of launchers, whose keys are those of other engines."""
    return parse([each for each in argv if not any(is_of(each, prefix) for prefix in PREFIXES.values())])


def main(argv: list[str]) -> int:
    """Carry out the sweep of the command line; the exit status."""
    return command(argv, partial(sweep, argv=sys.argv))


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=parse_all)
