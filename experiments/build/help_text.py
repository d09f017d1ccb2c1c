"""What `--help` prints of the config's keys. It reads docs/settings.md, for importing the settings takes seconds."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
WIDTH = 110


def help_text(about: str, own: str) -> str:
    """The whole answer to `--help`.

    Args:
        about: the program's docstring.
        own: what absl says of the flags that are no keys of the config.

    Raises:
        OSError: docs/settings.md is not there.
    """
    keys = PAGE.read_text().split("\n## ")[1:]
    return "\n".join([about.strip(), own.rstrip(), "", "Keys of the config:", *map(_section, keys)])


def _section(markdown: str) -> str:
    title, *lines = markdown.splitlines()
    rows = [line for line in lines if line.startswith("| `")]
    return "\n".join(["", title.replace("`", ""), *map(_entry, rows)])


def _entry(row: str) -> str:
    key, default, unit, meaning = (each.strip().replace("`", "") for each in re.split(r"\|", row)[1:5])
    of = f" {unit}" if unit else ""
    return textwrap.fill(
        f"{meaning} ({default}{of})", WIDTH, initial_indent=f"  --config.{key}=  ", subsequent_indent=" " * 6
    )
