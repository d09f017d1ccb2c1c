"""Train: `python -m experiments.run --config=configs/dmc_pixels.py`. The same command again resumes."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from experiments.build.allocator import keep_freed_memory
from experiments.build.command_line import apply_presets, parse
from experiments.build.errors import CURABLE, UserError, is_told

if TYPE_CHECKING:
    from experiments.build.experiment import Experiment
    from experiments.record.checkpoints import Checkpoints
    from experiments.record.folder import Folder
    from experiments.record.lane_checkpoints import LaneCheckpoints
    from experiments.record.summary import CompileClock
    from experiments.train.loop import Run

CONFIG = config_flags.DEFINE_config_file("config", None, "A file under configs/, with `:variant` behind it if wanted.")
QUIET = flags.DEFINE_bool("quiet", False, "Print neither a summary nor progress; errors and what is unusual stay.")


def main(argv: list[str]) -> int:
    """Run the experiment of `--config`; the exit status is 0, 2 for a setting that cannot be, 130 after Ctrl-C."""
    status = 1
    try:
        status = command(argv, lambda config: run(config, QUIET.value))
        return status
    finally:
        if "jax" in sys.modules:
            from experiments.build.processes import end_alone

            end_alone(status)


def command(argv: list[str], program: Callable[[ConfigDict], int]) -> int:
    """`program(config)` with the command line's config; what a user can cure becomes a sentence and status 2."""
    if len(argv) > 1:
        print(f"error: what is {argv[1]!r}? Settings begin with --config.", file=sys.stderr)
        return 2
    try:
        CONFIG.value.exp_id  # noqa: B018  (a config file that cannot be read raises only when it is used)
    except OSError as error:
        print(f"error: the config file cannot be read: {str(error).splitlines()[-1].strip()}", file=sys.stderr)
        return 2
    try:
        word = apply_presets(flags.FLAGS)
        if word and not QUIET.value:
            print(word)
        return program(CONFIG.value)
    except ValueError as error:
        if not is_told(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped at once; what came after the last checkpoint is lost", file=sys.stderr)
        return 130


def run(config: ConfigDict, quiet: bool = False) -> int:
    """Check, build, resume if there is something to resume, train, and draw the curves.

    Args:
        quiet: print errors and what is unusual, and no more.
    """
    keep_freed_memory()
    # Imported here, so that a mistyped command is answered at once.
    from experiments.build.checks import validate
    from experiments.build.compile_cache import keep_compiled
    from experiments.build.experiment import setup
    from experiments.build.lanes import lanes_of
    from experiments.build.layers import sparse_layers
    from experiments.build.processes import is_first, joined, part, say, wait_for_all
    from experiments.build.slices import own_seeds
    from experiments.record.checkpoints import Checkpoints
    from experiments.record.curves import draw_curves
    from experiments.record.folder import open_folder
    from experiments.record.lane_checkpoints import LaneCheckpoints
    from experiments.record.summary import CompileClock, print_summary, warn_of_checkpoints
    from experiments.record.wandb_runs import check_wandb

    experiment, clock = None, CompileClock()
    try:
        lanes = lanes_of(config)
        folders = _checked_folders(lanes)
        check_wandb(config)
        if config.compile_cache:
            keep_compiled()
        config.replay.store = lanes[0].replay.store  # perhaps the choice of then
        for lane in lanes:
            validate(lane)  # before processes wait for one another
        experiment = setup(joined(own_seeds(config)))
        quiet = quiet or not is_first()
        begun = config.resume and any(folder.config.exists() for folder in folders)
        for folder, lane in zip(folders, lanes, strict=True):
            lane.replay.store = experiment.config.replay.store  # the choice of now
            if is_first():
                open_folder(folder, lane)
        wait_for_all()
        layers = sparse_layers(config, experiment.agent, experiment.schedule.lifetime)
        if not quiet:
            print_summary(experiment, folders, layers)
        warn_of_checkpoints(experiment, folders[0])
        places = [folder.checkpoint for folder in folders]
        checkpoints = Checkpoints(places[0]) if len(places) == 1 else LaneCheckpoints(places)
        start = _begin(experiment, checkpoints, layers, quiet)
        if begun and start.step == 0:
            say(f"{places[0].parent} holds no checkpoint beyond frame 0; starting from there")
        status = _train(experiment, folders, checkpoints, start, clock, quiet)
        wait_for_all()  # whose metrics are all written
        for folder in folders if is_first() else ():
            if any(folder.root.glob("*/metrics.jsonl")):
                draw_curves(folder.root)
    except CURABLE as error:
        if not is_told(error):
            raise
        logging.debug("%s", traceback.format_exc())  # shown with --verbosity=1
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        if experiment:
            experiment.close()
    if not quiet:
        print(f"results in {', '.join(str(folder.root) for folder in folders)}")
    part()
    return status


def _checked_folders(lanes: Sequence[ConfigDict]) -> list[Folder]:
    """The folder of a run, or of each lane, after the checks of what earlier runs have left there."""
    from experiments.record.folder import Folder, check_folder
    from experiments.record.lane_checkpoints import check_together

    folders = [Folder(lane) for lane in lanes]
    for folder, lane in zip(folders, lanes, strict=True):
        check_folder(folder, lane)
    if lanes[0].resume:
        check_together([folder.checkpoint for folder in folders])
    return folders


def _begin(experiment: Experiment, checkpoints: Checkpoints | LaneCheckpoints, layers: list, quiet: bool) -> Run:
    """The run to go on from: the newest checkpoint, or fresh networks and the first scenes."""
    import jax

    from experiments.build.layers import check_masks
    from experiments.build.processes import say
    from experiments.record.summary import tell_memory
    from experiments.train.loop import Run

    def fresh(keys, scene):
        return Run(0, *experiment.steps.init(keys, scene, experiment.numbers))

    scene = experiment.pool.reset()
    shapes = jax.eval_shape(fresh, experiment.keys, scene)
    tell_memory(experiment, shapes, quiet)
    found = checkpoints.restore(*experiment.shapes(shapes))
    if found is None:
        run = fresh(experiment.keys, scene)
        check_masks(layers, run.learner.agent)
        return run
    run, envs, failures = found
    run = experiment.go_on(run, envs)
    for failure in failures:
        say(failure)
    if not quiet:
        print(f"resuming at frame {experiment.frame(run.step)} of {experiment.frame(experiment.schedule.total)}")
    return run


def _train(
    experiment: Experiment,
    folders: Sequence[Folder],
    checkpoints: Checkpoints | LaneCheckpoints,
    start: Run,
    clock: CompileClock,
    quiet: bool,
) -> int:
    """Train to the end, or until Ctrl-C; the exit status."""
    from experiments.build.processes import say
    from experiments.record.calendar import stop_step
    from experiments.record.monitor import Monitor, Stopped
    from experiments.record.stopping import Reached, ending_at

    monitor = Monitor(experiment, folders, checkpoints, start.step, clock, quiet)
    total = experiment.schedule.total
    stop = stop_step(experiment.config, total)
    try:
        experiment.train(start, ending_at(stop, monitor) if stop < total else monitor, monitor.next_due)
        return 130 if monitor.stopped else 0  # asked for when nothing was left to do
    except Stopped:
        say("\nstopped; the same command goes on from here")
        return 130
    except Reached:
        here = max(stop, start.step)
        more = "; a later one goes on from here" if here < total else ""
        say(f"\nended at frame {experiment.frame(here):,}, by stop_at_frame{more}")
        return 0
    except UserError:  # says itself what is saved
        raise
    except Exception:
        print(f"\n{monitor.rescue()}", file=sys.stderr)
        raise
    finally:
        try:
            monitor.close()
        finally:
            checkpoints.close()
        for each in monitor.divergence.found:
            if each is not None and experiment.config.on_divergence != "stop":  # whose error has said it
                print(f"{each}; it is frozen since then, and has no result")


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=parse)
