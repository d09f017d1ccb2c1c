"""Methods side by side: `python -m experiments.compare --config=configs/continual.py` trains each and makes a table.

`--method` names them, once for each, with settings of `config.plasticity` behind commas: `--method=ne,revive=bias`. The
default are all. Every method is a run of its own with the config's seeds, started as the runs of a sweep are; the same
command again goes on. Table and figure go to `{results_dir}/{exp_id}_{env.name}_methods`.

`--tune="agent.learning_rate=1e-4,3e-4,1e-3" --dev-seeds=100,101,102` first finds each method's best setting, by
successive halving with the same budget for all, on seeds that the table does not have; `_tuned` in place of `_methods`
then holds all runs, and `protocol.json` says what was tried. docs/comparing.md explains it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
from absl import app, flags
from ml_collections import ConfigDict, config_flags

from experiments.build.checks import validate
from experiments.build.lanes import refuse_lanes
from experiments.build.methods import METHODS
from experiments.build.run_names import Overrides
from experiments.comparison.columns import columns_of
from experiments.comparison.methods import overrides_of
from experiments.comparison.tables import draw, table
from experiments.comparison.tuning import Protocol, Train, as_file, asked_for, halve, make_tuning
from experiments.launch import program
from experiments.launch.overrides import shared_arguments, with_own
from experiments.launch.plan import Asked, Planned
from experiments.record.folder import versions_in
from experiments.record.metrics_files import read_metrics

_ALL = ["none", *(name for name in METHODS if name != "normalise_and_project")]
"""That one wants `agent.layer_norm`, which would hold for all."""
_METHODS = flags.DEFINE_multi_string("method", _ALL, "One of them, `NAME` or `NAME,KEY=VALUE`.")
_TUNE = flags.DEFINE_multi_string("tune", [], "What to try of each method, KEY=VALUE,VALUE, or METHOD:KEY=VALUE,VALUE.")
_DEV_SEEDS = flags.DEFINE_list("dev-seeds", [], "Seeds on which --tune chooses; none of --config.seeds.")
_BUDGET = flags.DEFINE_float(
    "budget", None, "Whole runs that --tune may take for each method; what the fewest settings need.", lower_bound=0
)


def compare(config: ConfigDict, argv: list[str]) -> int:
    """Check all, tune if asked to, train what is not trained yet, write table and figure; the exit status.

    A run that fails does not keep the others from training, nor from the table, of which it is left out.
    """
    refuse_lanes(config, "experiments.compare")
    given = config_flags.get_override_values(flags.FLAGS["config"])
    for key in {"plasticity.method", "plasticity.preset"} & set(given):
        raise ValueError(f"{key} is set for each method: --method=NAME, or --method=ne,preset=released")
    if config.stop_at_frame:
        raise ValueError(
            f"stop_at_frame={config.stop_at_frame} ends runs early, and the table is of whole ones; leave it at 0"
        )
    if config.distributed:
        raise ValueError("distributed=True shares the seeds of one run, and a comparison starts many; leave it False")
    if config.slice:
        raise ValueError(f"slice={config.slice} trains some of the seeds, and the table is of all; leave it empty")
    validate(config)
    methods = overrides_of(config, _METHODS.value)
    if not _TUNE.value:
        if _DEV_SEEDS.value or _BUDGET.value is not None:
            raise ValueError(
                "--dev-seeds and --budget say how to tune; name what is to be tried by --tune=KEY=VALUE,VALUE"
            )
        return _untuned(config, methods, argv)
    return _tuned(config, methods, argv)


def _untuned(config: ConfigDict, methods: Mapping[str, Overrides], argv: list[str]) -> int:
    root = Path(config.results_dir) / f"{config.exp_id}_{config.env.name}_methods"
    through = program.Runs(root, argv)
    shared = shared_arguments(argv[1:], ())
    runs = through.plan(_asked(methods, shared, config.results_dir, f"{config.exp_id}_"))
    return 0 if program.only_listed(runs) else _train(config, through.train, runs, root, [])


def _tuned(config: ConfigDict, methods: Mapping[str, Overrides], argv: list[str]) -> int:
    root = Path(config.results_dir) / f"{config.exp_id}_{config.env.name}_tuned"
    tuning = make_tuning(config, methods, _TUNE.value, _DEV_SEEDS.value, _BUDGET.value)
    protocol = Protocol(root / "protocol.json", tuning, config.total_frames)
    through = program.Runs(root, argv)
    varied = {key for each in tuning.candidates.values() for own in each.values() for key in own}
    shared = shared_arguments(argv[1:], varied, "--tune")
    tried = asked_for(tuning, methods, shared, root)
    held_out = _asked(methods, shared, str(root / "unstarted"), "")  # to be refused now if they cannot be
    runs = through.plan([*tried, *held_out])[: len(tried)]
    assert all(run.seeds == tuning.dev_seeds for run in runs), "no seed of the table takes part in tuning"
    if program.only_listed(runs):
        return 0
    planned = iter(runs)
    by_method = {label: {name: next(planned) for name in names} for label, names in tuning.candidates.items()}
    status = halve(tuning, by_method, through.train, protocol)
    if status:
        return status
    chosen = {label: methods[label] | protocol.methods[label]["overrides"] for label in methods}
    runs = through.plan(_asked(chosen, shared, str(root / "final"), ""))
    tuned = [run for of_method in by_method.values() for run in of_method.values()]
    return _train(config, through.train, runs, root, protocol_notes(protocol, list(methods)), protocol, tuned)


def _asked(methods: Mapping[str, Overrides], shared: Sequence[str], results_dir: str, begin: str) -> list[Asked]:
    """The run of each method in the table."""
    found = []
    for label, overrides in methods.items():
        own = {"results_dir": results_dir, "exp_id": begin + as_file(label), **overrides}
        found.append(Asked(label, f"--method={label}", overrides, with_own(shared, own)))
    return found


def _train(
    config: ConfigDict,
    train: Train,
    runs: Sequence[Planned],
    root: Path,
    notes: Sequence[str],
    protocol: Protocol | None = None,
    tuned: Sequence[Planned] = (),
) -> int:
    """Train the runs of the table, and make it of those that are trained to the end; the exit status."""
    result = train(runs)
    status = program.status(runs, result)
    if result.stopped:
        return status
    trained = [run for run in runs if run.done]
    if len(trained) < len(runs):
        missing = ", ".join(run.name for run in runs if not run.done)
        print(f"not trained to the end, so not in the table: {missing}", file=sys.stderr)
    if not trained:
        return status
    if protocol:
        protocol.write(made_with=made_with(trained), tuned_with=made_with(tuned))
        notes = [*notes, f"protocol: {protocol.path} (sha256 {sha256(protocol.path.read_bytes()).hexdigest()[:12]})"]
    print(f"\n{report(config, trained, root, notes)}\ntable and figure in {root}")
    return status


def report(config: ConfigDict, trained: Sequence[Planned], root: Path, notes: Sequence[str]) -> str:
    """Write table and figure of trained runs; the table."""
    columns = columns_of(config)
    results = {}
    for run in trained:
        rows = [read_metrics(run.folder / str(seed) / "metrics.jsonl") for seed in config.seeds]
        results[run.name] = {name: np.array([column.read(each) for each in rows]) for name, column in columns.items()}
    draw(results, root / "methods.png")
    text = table(results, columns, [*_notes(config, trained), *notes])
    (root / "table.md").write_text(text)
    return text


def protocol_notes(protocol: Protocol, labels: Sequence[str]) -> list[str]:
    """How the settings of these methods were chosen."""
    common = protocol.common
    count, rounds = common["rungs"][0]["candidates"], len(common["rungs"])
    notes = [
        f"tuned by {common['algorithm']}: {count} settings of each method in {rounds} round{'s' * (rounds > 1)} on "
        f"the seeds {', '.join(map(str, common['dev_seeds']))}, {common['frames_per_method']:,} frames each; "
        "the seeds of the table played no part in it"
    ]
    for label in labels:
        own = protocol.methods[label]["overrides"]
        notes.append(f"`{label}` has {', '.join(f'{key}={value}' for key, value in own.items())}")
    return notes


def made_with(runs: Sequence[Planned]) -> dict[str, list[str]]:
    """On what, and with which code, runs were made, as they say themselves."""
    made = [versions for run in runs for versions in versions_in(run.folder)]
    made = [first | changed for first in made for changed in [{}, *first.get("resumed", [])]]
    return {
        key: list(dict.fromkeys(str(each.get(key, "unknown")) for each in made)) for key in ("device", "jax", "commit")
    }


def _notes(config: ConfigDict, runs: Sequence[Planned]) -> list[str]:
    where = ", ".join(f"{key} {' or '.join(values)}" for key, values in made_with(runs).items())
    seeds = len(config.seeds)
    return [
        f"{config.env.name}, {config.total_frames:,} frames, seeds {', '.join(map(str, config.seeds))}; {where}",
        f"interquartile mean over {seeds} seeds [95 % percentile bootstrap interval; with five seeds it is too narrow, "
        "and covers about 90 % for normal values]",
    ]


def main(argv: list[str]) -> int:
    """Compare the methods of the command line; the exit status."""
    return program.answer(argv, compare)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    flags.adopt_module_key_flags(program)  # for --help
    app.run(main, flags_parser=program.parse_all)
