"""Which methods keep a network plastic: `python -m experiments.plasticity --out=results/plasticity`.

Trains every method on every stream of tasks, all seeds side by side, beside three references: a fresh network at each
task, a dense one without any method, and a random policy. Then DIR/STREAM.csv, DIR/STREAM.png and DIR/plasticity.md say
what was lost and which share of it a method keeps. The same command again trains what is missing. docs/plasticity.md
explains streams, measures and the gate.
"""

from __future__ import annotations

import argparse
import difflib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from experiments.record.metrics_files import write_json
from experiments.streams.figure import draw
from experiments.streams.progress import ProgressLines
from experiments.streams.registry import STREAMS, default_streams
from experiments.streams.rows import load
from experiments.streams.tables import Compared, page, write_csv
from experiments.streams.types import Arm, Stream
from experiments.streams.workers import Pair, train_pairs


class Plan(NamedTuple):
    """What was asked for, checked."""

    arms: dict[str, list[Arm]]
    """By stream."""
    seeds: list[int]
    out: Path
    jobs: int
    tune: bool


def make_plan(
    streams: Sequence[str],
    methods: Sequence[str],
    seeds: int,
    first_seed: int,
    out: Path,
    jobs: int,
    tune: bool = False,
) -> Plan:
    """Check all that was asked for, before anything is trained.

    Raises:
        ValueError: the sentence says what cannot be, and the cure.
    """
    from experiments.streams.arms import arms_of  # takes seconds; a mistyped stream is answered at once
    from experiments.streams.tuning import candidate_arms

    for name in streams:
        if name not in STREAMS:
            close = difflib.get_close_matches(name, STREAMS, 1)
            meant = f"; did you mean {close[0]}?" if close else f"; there are {', '.join(STREAMS)}"
            raise ValueError(f"unknown stream {name!r}{meant}")
    if seeds < 2:
        raise ValueError(f"--seeds must be at least 2, for intervals are over seeds, got {seeds}")
    if not 0 <= first_seed <= 2**32 - seeds:
        raise ValueError(f"--first_seed must lie in [0, 2**32 - seeds], got {first_seed}")
    if jobs < 1:
        raise ValueError(f"--jobs must be at least 1, got {jobs}")
    wanted = [STREAMS[name] for name in dict.fromkeys(streams or default_streams())]
    plan = Plan({}, list(range(first_seed, first_seed + seeds)), out, jobs, tune)
    for stream in wanted:
        plan.arms[stream.name] = (candidate_arms if tune else arms_of)(stream, methods)
        for arm in plan.arms[stream.name]:
            try:
                stream.protocol(arm)
            except ValueError as error:
                raise ValueError(f"--method={arm.name} on stream {stream.name}: {error}") from error
        finished(plan, stream)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / ".writable").touch()
        (out / ".writable").unlink()
    except OSError as error:
        raise ValueError(f"--out={out} cannot be written to: {error.strerror}") from error
    return plan


def finished(plan: Plan, stream: Stream) -> Compared:
    """The arms of a stream that are trained to the end."""
    return Compared(stream, load(plan.out, stream, plan.seeds, plan.arms[stream.name]))


def carry_out(plan: Plan, command: str) -> int:
    """Train what is missing, write what there is: 0, or 2 if an arm failed, 130 after Ctrl-C."""
    done = {name: finished(plan, STREAMS[name]).arms for name in plan.arms}
    pairs = [Pair(STREAMS[name], arm) for name, arms in plan.arms.items() for arm in arms if arm.name not in done[name]]
    known = {name: [arm.seconds for arm in arms.values()] for name, arms in done.items()}
    progress = ProgressLines(pairs, known, len(plan.seeds), plan.jobs)
    try:
        train_pairs(pairs, plan.seeds, plan.out, plan.jobs, progress)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    compared = [each for name in plan.arms if (each := finished(plan, STREAMS[name])).arms]
    for each in compared:
        write_csv(each, plan.out / f"{each.stream.name}.csv")
        draw(each, plan.out / f"{each.stream.name}.png")
    text = page(compared, command, progress.failures)
    (plan.out / "plasticity.md").write_text(text)
    print(f"{text}\ntables and figures in {plan.out}")
    if plan.tune:
        from experiments.streams.tuning import best_settings

        write_json(plan.out / "settings.json", {each.stream.name: best_settings(each) for each in compared})
    for name, why in progress.failures.items():
        print(f"error: {name}: {why}", file=sys.stderr)
    return 2 if progress.failures else 0


class _Parser(argparse.ArgumentParser):
    """Says in one sentence what is wrong with the command line."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The settings of the command line."""
    parser = _Parser("python -m experiments.plasticity", description=__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--stream", action="append", default=[], help="once for each; default: labels, relabelled, pixels"
    )
    parser.add_argument(
        "--method",
        action="append",
        default=[],
        help="NAME, or NAME,KEY=VALUE with keys of config.plasticity or agent.KEY; default: all",
    )
    parser.add_argument("--seeds", type=int, default=10, help="how many, side by side (default 10)")
    parser.add_argument("--first_seed", type=int, default=0, help="the first of them; the others follow (default 0)")
    parser.add_argument("--out", type=Path, default=Path("results/plasticity"), help="where everything goes")
    parser.add_argument("--jobs", type=int, default=2, help="arms trained at a time, in processes (default 2)")
    parser.add_argument("--tune", action="store_true", help="try each method's candidates, write DIR/settings.json")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """The exit status: 0, 2 for a sentence about what cannot be or what failed, 130 after Ctrl-C."""
    given = parse(argv)
    try:
        plan = make_plan(given.stream, given.method, given.seeds, given.first_seed, given.out, given.jobs, given.tune)
        return carry_out(plan, shlex.join(["python", "-m", "experiments.plasticity", *argv]))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
