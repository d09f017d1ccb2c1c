"""What varies over a sweep: lists of values to sets of overrides, one for each run, with a name for each."""

from __future__ import annotations

import ast
import csv
import itertools
import random
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.build.run_names import Overrides

OF_THE_SWEEP = ("exp_id", "results_dir")
"""Keys that a sweep gives to its runs, so that each has a folder of its own."""
OPENING, CLOSING = "([{", ")]}"


def make_overrides(
    over: Sequence[str],
    *,
    zipped: bool = False,
    table: Path | None = None,
    count: int | None = None,
    seed: int = 0,
    flag: str = "over",
) -> list[Overrides]:
    """The overrides of each run.

    Args:
        over: `KEY=VALUE,VALUE,...`, one for each key. A comma within brackets or quotes divides nothing.
        zipped: the first values go together, then the second ones; else every value goes with every other.
        table: a CSV file with a column for each key and a line for each run, in place of `over`.
        count: so many of them, drawn without replacement; None: all.
        seed: of that draw.
        flag: by which `over` was given.

    Raises:
        ValueError: the sentence says what cannot be, and the cure.
    """
    if table is not None:
        if over or zipped:
            raise ValueError("--file says all that varies; leave out --over and --zip, or the file")
        found = read_table(table)
    elif not over:
        raise ValueError('a sweep needs what varies: --over="KEY=VALUE,VALUE", once for each key, or --file=TABLE.csv')
    else:
        found = _combine(_lists(over, flag), zipped)
    for key in found[0]:
        if key in OF_THE_SWEEP:
            raise ValueError(f"{key} names the folders of a sweep's runs; set it for all: --config.{key}=")
    if count is None:
        return found
    if not 1 <= count <= len(found):
        raise ValueError(f"--random={count} must lie in [1, {len(found)}], for so many runs there are to draw from")
    drawn = sorted(random.Random(seed).sample(range(len(found)), count))
    return [found[i] for i in drawn]


def _lists(over: Sequence[str], flag: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for each in over:
        key, equals, text = each.partition("=")
        key, values = key.strip(), split_values(text, f"--{flag}={each!r}")
        if not equals or not re.fullmatch(r"\w[\w.]*", key):
            raise ValueError(
                f"--{flag}={each!r} must be KEY=VALUE,VALUE with a key of the config, such as seeds or env.name"
            )
        if key in found:
            raise ValueError(f"--{flag}={key} comes twice; put all its values into one")
        if not values:
            raise ValueError(f"--{flag}={each!r} has no value, so there would be no run; give it one or more")
        found[key] = values
    return found


def split_values(text: str, whole: str) -> list[str]:
    """The values of a list: divided at commas that stand neither in brackets nor in quotes.

    Raises:
        ValueError: a bracket or a quote is not closed, or a value is empty; the sentence begins with `whole`.
    """
    values, start, depth, quote = [], 0, 0, ""
    for i, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in OPENING + CLOSING:
            depth += 1 if letter in OPENING else -1
        elif letter == "," and depth == 0:
            values.append(text[start:i].strip())
            start = i + 1
        if depth < 0:
            break
    if depth or quote:
        raise ValueError(f"{whole} has a bracket or a quote that is not closed, or closed twice")
    values.append(text[start:].strip())
    if values == [""]:
        return []
    if "" in values:
        raise ValueError(f"{whole} has an empty value between two commas or at an end; drop that comma")
    return values


def _combine(lists: dict[str, list[str]], zipped: bool) -> list[Overrides]:
    if zipped:
        lengths = {key: len(values) for key, values in lists.items()}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{key} {length}" for key, length in lengths.items())
            raise ValueError(
                f"--zip needs as many values of each key, got {told}; leave --zip out for all combinations"
            )
    rows = zip(*lists.values(), strict=True) if zipped else itertools.product(*lists.values())
    return [dict(zip(lists, row, strict=True)) for row in rows]


def read_table(path: Path) -> list[Overrides]:
    """The runs of a CSV file: its first line has the keys, each further one the values of a run.

    Raises:
        ValueError: it cannot be read, or has no run, or a line has more or fewer values than keys.
    """
    try:
        with path.open(newline="") as file:
            lines = [[cell.strip() for cell in line] for line in csv.reader(file) if any(map(str.strip, line))]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"--file={path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(lines) < 2:
        raise ValueError(f"--file={path} holds no run: its first line has the keys, each further one a run's values")
    keys, *rows = lines
    if len(set(keys)) < len(keys) or not all(re.fullmatch(r"\w[\w.]*", key) for key in keys):
        raise ValueError(
            f"--file={path} must have different keys of the config in its first line, got {', '.join(keys)}"
        )
    for i, row in enumerate(rows, 2):
        if len(row) != len(keys) or "" in row:
            raise ValueError(
                f"--file={path}, line {i} of those that are not empty, must have {len(keys)} values, as the first"
            )
    return [dict(zip(keys, row, strict=True)) for row in rows]


def shared_arguments(argv: Iterable[str], varied: Collection[str], by: str = "--over or --file") -> list[str]:
    """The arguments of the command line that go to all runs: `--config` and `--config.KEY`, as they are.

    Args:
        varied: keys that differ between runs.
        by: what makes them differ.

    Raises:
        ValueError: one of them is set for all runs, and varies.
    """
    found = []
    for key, words in _of_config(argv):
        if key in varied:
            raise ValueError(f"{key} is set for all runs by --config.{key}, and varies by {by}; drop one of the two")
        found += words if key not in OF_THE_SWEEP else []
    return found


def with_own(shared: Iterable[str], own: Overrides) -> tuple[str, ...]:
    """The arguments of a run: those of all, but for what is the run's own, which comes last.

    A key must not come twice: the second tuple would be added to the first one.
    """
    kept = [word for key, words in _of_config(shared) if key not in own for word in words]
    return (*kept, *(f"--config.{key}={value}" for key, value in own.items()))


def _of_config(argv: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """The key and the words of each argument that is `--config` or `--config.KEY`; the key of the former is empty."""
    words = iter(argv)
    for word in words:
        if not re.match(r"--?(no)?config\b", word):
            continue
        key = re.sub(r"^--?(no)?config\.?", "", word.partition("=")[0])
        taken = [word]
        if "=" not in word and not word.lstrip("-").startswith("noconfig"):
            value = next(words, None)
            taken += [value] if value is not None else []
        yield key, taken


def settings_given(arguments: Iterable[str], prefix: str) -> dict[str, Any]:
    """The settings that `--{prefix}.KEY=VALUE` among these arguments give a launcher; what reads as a number is one.

    Raises:
        ValueError: such an argument says none.
    """
    found = {}
    for each in arguments:
        if not is_of(each, prefix):
            continue
        key, equals, text = each.lstrip("-").removeprefix(f"{prefix}.").partition("=")
        if not equals or not key.isidentifier():
            raise ValueError(f"{each} must be --{prefix}.KEY=VALUE; docs/sweeps.md lists the keys")
        try:
            found[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            found[key] = text
    return found


def is_of(argument: str, prefix: str) -> bool:
    """Whether an argument is one of `--{prefix}.KEY=VALUE`."""
    return argument.startswith((f"--{prefix}.", f"-{prefix}."))
