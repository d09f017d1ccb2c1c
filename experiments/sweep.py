"""Many runs: `python -m experiments.sweep --config=F --over="plasticity.method=none,ne" --over="agent.tau=0.005,0.01"`.

Every value of each --over goes with every other (--zip: the first ones together, then the second ones; --random=K: only
K of them; --file: a CSV with a column for each key). Each combination is a run of `experiments.run` with a name of its
own under {results_dir}/{exp_id}_sweep; --config.KEY=VALUE holds for all. All are checked before any starts. The same
command again goes on, tries again what failed, and skips what is done. docs/sweeps.md explains launchers and results.
"""

from __future__ import annotations

from pathlib import Path

from absl import app, flags
from ml_collections import ConfigDict

from experiments.build.run_names import sweep_folder
from experiments.launch import program
from experiments.launch.overrides import make_overrides, shared_arguments
from experiments.launch.plan import ask_for
from experiments.launch.results import table, write_csv

_OVER = flags.DEFINE_multi_string("over", [], "What varies: KEY=VALUE,VALUE. Once for each key.")
_ZIP = flags.DEFINE_bool("zip", False, "The first values of all --over together, then the second ones, and so on.")
_RANDOM = flags.DEFINE_integer("random", None, "So many of all combinations, drawn at random.")
_RANDOM_SEED = flags.DEFINE_integer("random-seed", 0, "Of that draw.")
_FILE = flags.DEFINE_string("file", None, "A CSV file in place of --over: a column for each key, a line for each run.")


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
    shared = shared_arguments(argv[1:], overrides[0])
    root = sweep_folder(config.results_dir, config.exp_id)
    through = program.Runs(root, argv)
    runs = through.plan(ask_for(shared, overrides, config.results_dir, config.exp_id))
    if program.only_listed(runs):
        return 0
    result = through.train(runs)
    text = table(runs, write_csv(runs, result.states, root / "sweep.csv"))
    (root / "table.md").write_text(text)
    print(f"\n{text}\nall runs, seeds and metrics in {root / 'sweep.csv'}")
    return program.status(runs, result)


def main(argv: list[str]) -> int:
    """Carry out the sweep of the command line; the exit status."""
    return program.answer(argv, sweep)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    flags.adopt_module_key_flags(program)  # for --help
    app.run(main, flags_parser=program.parse_all)
