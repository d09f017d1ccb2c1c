"""Train: `python -m experiments.run --config=configs/dmc_pixels.py`. The same command again resumes."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from experiments.build.allocator import keep_freed_memory
from experiments.build.errors import CURABLE, UserError, is_told
from experiments.build.help_text import help_text
from experiments.build.presets import apply_preset, apply_task

if TYPE_CHECKING:
    from experiments.build.experiment import Experiment
    from experiments.record.checkpoints import Checkpoints
    from experiments.record.folder import Folder
    from experiments.record.lane_checkpoints import LaneCheckpoints
    from experiments.record.summary import CompileClock
    from experiments.train.loop import Run

CONFIG = config_flags.DEFINE_config_file("config", None, "A file under configs/, with `:variant` behind it if wanted.")
QUIET = flags.DEFINE_bool("quiet", False, "Print neither a summary nor progress; errors and what is unusual stay.")

PARSE_ERRORS = (AttributeError, KeyError, TypeError, ValueError, OSError, flags.Error)
"""What a command line raises that cannot be parsed."""
UNREAD = {"int()": "a whole number", "to float": "a number", "Non-boolean": "True or False"}
"""What a value should have been, by what absl and Python say of it."""


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
        word = _apply_presets(flags.FLAGS)
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


def config_of(arguments: Sequence[str]) -> ConfigDict:
    """The config that `python -m experiments.run ARGUMENTS` trains with.

    Raises:
        ValueError: the sentence says what is wrong with them.
    """
    argv, values = ["run", *arguments], flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    try:
        _add_keys(argv, values)
        rest = values(argv)
        config = values.config
        config.exp_id  # noqa: B018  (a config file that cannot be read raises only when it is used)
    except PARSE_ERRORS as error:
        raise ValueError(_sentence(error, argv)) from error
    if len(rest) > 1:
        raise ValueError(f"what is {rest[1]!r}? Settings begin with --config.")
    _apply_presets(values)
    return config


def _apply_presets(values: flags.FlagValues) -> str:
    """Set what the config's presets stand for, and what there is to say of it."""
    config, given = values["config"].value, config_flags.get_override_values(values["config"])
    word = apply_task(config, given)
    apply_preset(config, given)
    if config is not None and config.get("lanes"):
        from experiments.build.lanes import check_given

        check_given(config, given)
    return word


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


def parse(argv: list[str]) -> list[str]:
    """Parse the command line; an unknown config key becomes one sentence in place of ml_collections' traceback.

    `--help` lists all keys of the config, and ends the program.
    """
    if {"--help", "-h"} & set(argv[1:]):
        print(help_text(sys.modules["__main__"].__doc__ or "", flags.FLAGS.main_module_help()))
        sys.exit()
    try:
        _add_keys(argv, flags.FLAGS)
        rest = flags.FLAGS(argv)
    except PARSE_ERRORS as error:
        print(f"error: {_sentence(error, argv)}", file=sys.stderr)
        sys.exit(2)
    if flags.FLAGS["verbosity"].using_default_value:
        flags.FLAGS.verbosity = logging.WARNING  # the libraries' INFO lines say nothing to a user
    return rest


def _add_keys(argv: list[str], values: flags.FlagValues) -> None:
    """Let the command line set lanes, and any key of the kind of environment, also one that the config file lacks.

    Raises:
        ValueError: there is no such kind.
    """
    parser = values["config"].parser
    lanes = _given(argv, "--config.lanes.")
    if lanes:
        from experiments.build.lanes import with_lane_keys

        parser.parse = partial(with_lane_keys, tuple(lanes), parser.parse)
    given = _given(argv, "--config.env.")
    if given:
        from envs.registry import find_kind
        from experiments.build.environment import with_keys_of_kind

        if "kind" in given:
            find_kind(given["kind"])  # says what is wrong with the name before the config file is read
        parser.parse = partial(with_keys_of_kind, given.get("kind"), tuple(given), parser.parse)


def _given(argv: list[str], prefix: str) -> dict[str, str]:
    """The values that a command line gives to keys that begin so, without that beginning."""
    found = {}
    for each, after in zip(argv, [*argv[1:], ""]):
        if each.startswith(prefix):
            key, equals, value = each.removeprefix(prefix).partition("=")
            found[key] = value if equals else after
    return found


def _sentence(error: Exception, argv: list[str]) -> str:
    """What is wrong with the command line, in one line."""
    unread = re.match(r"flag --config\.([\w.]+)=(.*): .*(int\(\)|to float|Non-boolean)", str(error), re.DOTALL)
    if unread:
        return f"{unread[1]} must be {UNREAD[unread[3]]}, got {unread[2]!r}"
    if isinstance(error, ValueError):
        return str(error)
    if isinstance(error, OSError | flags.Error):
        # an error inside the config file comes with its whole traceback, of which the last line says what is wrong
        return " ".join(str(error).rpartition("ValueError: ")[2].split())
    hint = re.search(r'Did you mean "(\w+)" instead of "(\w+)"', str(error))
    name = hint[2] if hint else re.sub(r"\W", "", str(error))
    setting = next((arg for arg in argv if re.search(rf"\b{name}\b", arg.partition("=")[0])), name)
    meant = f"; did you mean {hint[1]}?" if hint else "; the keys are in the config file, with a comment each"
    return f"the config has no key {setting.partition('=')[0].removeprefix('--config.')}{meant}"


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=parse)
