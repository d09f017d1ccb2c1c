"""The command line of `experiments.run`, and of the programs that take its config: what it says, and what is wrong."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from functools import partial

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from experiments.build.help_text import help_text
from experiments.build.presets import apply_preset, apply_task

PARSE_ERRORS = (AttributeError, KeyError, TypeError, ValueError, OSError, flags.Error)
"""What a command line raises that cannot be parsed."""
UNREAD = {"int()": "a whole number", "to float": "a number", "Non-boolean": "True or False"}
"""What a value should have been, by what absl and Python say of it."""


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
    apply_presets(values)
    return config


def apply_presets(values: flags.FlagValues) -> str:
    """Set what the config's presets stand for, and what there is to say of it."""
    config, given = values["config"].value, config_flags.get_override_values(values["config"])
    word = apply_task(config, given)
    apply_preset(config, given)
    if config is not None and config.get("lanes"):
        from experiments.build.lanes import check_given

        check_given(config, given)
    return word


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
