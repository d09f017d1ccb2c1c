"""Train: `python -m experiments.run --config=configs/dmc_pixels.py`. The same command again resumes."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from experiments.build.allocator import keep_freed_memory
from experiments.build.errors import CURABLE, UserError, is_told
from experiments.build.presets import apply_preset, apply_published

if TYPE_CHECKING:
    from experiments.build.experiment import Experiment
    from experiments.record.checkpoints import Checkpoints
    from experiments.record.folder import Folder
    from experiments.record.summary import CompileClock
    from experiments.train.loop import Run

CONFIG = config_flags.DEFINE_config_file("config", None, "A file under configs/, with `:variant` behind it if wanted.")


def main(argv: list[str]) -> int:
    """Run the experiment of `--config`; the exit status is 0, 2 for a setting that cannot be, 130 after Ctrl-C."""
    return command(argv, run)


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
        given = config_flags.get_override_values(flags.FLAGS["config"])
        word = apply_published(CONFIG.value, given)
        if word:
            print(word)
        apply_preset(CONFIG.value, given)
        return program(CONFIG.value)
    except ValueError as error:
        if not is_told(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped at once; what came after the last checkpoint is lost", file=sys.stderr)
        return 130


def run(config: ConfigDict) -> int:
    """Check, build, resume if there is something to resume, train, and draw the curves."""
    keep_freed_memory()
    # Imported here, so that a mistyped command is answered at once.
    from experiments.build.compile_cache import keep_compiled
    from experiments.build.experiment import setup
    from experiments.build.layers import sparse_layers
    from experiments.record.checkpoints import Checkpoints
    from experiments.record.curves import draw_curves
    from experiments.record.folder import Folder, check_folder, open_folder
    from experiments.record.summary import CompileClock, print_summary

    folder, experiment, clock = Folder(config), None, CompileClock()
    try:
        check_folder(folder, config)
        if config.compile_cache:
            keep_compiled()
        experiment = setup(config)
        begun = config.resume and folder.config.exists()
        open_folder(folder, config)
        layers = sparse_layers(config, experiment.agent, experiment.schedule.lifetime)
        print_summary(experiment, folder, layers)
        checkpoints = Checkpoints(folder.checkpoint)
        start = _begin(experiment, checkpoints, layers)
        if begun and start.step == 0:
            print(f"{folder.root} holds no checkpoint beyond frame 0; starting from there")
        status = _train(experiment, folder, checkpoints, start, clock)
    except CURABLE as error:
        if not is_told(error):
            raise
        logging.debug("%s", traceback.format_exc())  # shown with --verbosity=1
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        if experiment:
            experiment.close()
    if any(folder.root.glob("*/metrics.jsonl")):
        draw_curves(folder.root)
    print(f"results in {folder.root}")
    return status


def _begin(experiment: Experiment, checkpoints: Checkpoints, layers: list) -> Run:
    """The run to go on from: the newest checkpoint, or fresh networks and the first scenes."""
    import jax

    from experiments.build.layers import check_masks
    from experiments.train.loop import Run

    def fresh(keys, scene):
        return Run(0, *experiment.steps.init(keys, scene))

    scene = experiment.pool.reset()
    found = checkpoints.restore(jax.eval_shape(fresh, experiment.keys, scene), experiment.pool.snapshot())
    if found is None:
        run = fresh(experiment.keys, scene)
        check_masks(layers, run.learner.agent, len(experiment.config.seeds))
        return run
    run, envs, failures = found
    experiment.pool.restore(envs)
    for failure in failures:
        print(failure)
    print(f"resuming at frame {experiment.frame(run.step)} of {experiment.frame(experiment.schedule.total)}")
    return run


def _train(experiment: Experiment, folder: Folder, checkpoints: Checkpoints, start: Run, clock: CompileClock) -> int:
    """Train to the end, or until Ctrl-C; the exit status."""
    from experiments.record.monitor import Monitor, Stopped

    monitor = Monitor(experiment, folder, checkpoints, start.step, clock)
    try:
        experiment.train(start, monitor, monitor.next_due)
        return 130 if monitor.stopped else 0  # asked for when nothing was left to do
    except Stopped:
        print("\nstopped; the same command goes on from here")
        return 130
    except UserError:  # says itself what is saved
        raise
    except Exception:
        print(f"\n{monitor.rescue()}", file=sys.stderr)
        raise
    finally:
        monitor.close()
        checkpoints.close()
        for each in monitor.divergence.found:
            if each is not None:
                print(f"{each}; it is frozen since then, and has no result")


def parse(argv: list[str]) -> list[str]:
    """Parse the command line; an unknown config key becomes one sentence in place of ml_collections' traceback."""
    try:
        _add_keys_of_kind(argv)
        rest = flags.FLAGS(argv)
    except (AttributeError, KeyError, TypeError, ValueError, OSError, flags.Error) as error:
        print(f"error: {_sentence(error, argv)}", file=sys.stderr)
        sys.exit(2)
    if flags.FLAGS["verbosity"].using_default_value:
        flags.FLAGS.verbosity = logging.WARNING  # the libraries' INFO lines say nothing to a user
    return rest


def _add_keys_of_kind(argv: list[str]) -> None:
    """Let the command line set any key of the kind of environment, also one that the config file lacks.

    Raises:
        ValueError: there is no such kind.
    """
    prefix, given = "--config.env.", {}
    for each, after in zip(argv, [*argv[1:], ""]):
        if each.startswith(prefix):
            key, equals, value = each.removeprefix(prefix).partition("=")
            given[key] = value if equals else after
    if given:
        from envs.registry import find_kind
        from experiments.build.environment import with_keys_of_kind

        if "kind" in given:
            find_kind(given["kind"])  # says what is wrong with the name before the config file is read
        parser = flags.FLAGS["config"].parser
        parser.parse = partial(with_keys_of_kind, given.get("kind"), tuple(given), parser.parse)


def _sentence(error: Exception, argv: list[str]) -> str:
    """What is wrong with the command line, in one line."""
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
