"""Names that are nearly right, and modules that a setting names. May import: nothing of ours."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Collection
from types import ModuleType


def did_you_mean(name: str, known: Collection[str]) -> str:
    """The known names that are like this one, at most five, or else all of them; the end of an error message.

    What both have before a colon, such as the module of `my_gym:Reach-v0`, makes no two names alike.
    """
    module, colon, _ = str(name).rpartition(":")
    own = {each.removeprefix(module + colon): each for each in known}
    close = difflib.get_close_matches(str(name).removeprefix(module + colon), own, n=5, cutoff=0.4)
    return f"did you mean {', '.join(own[each] for each in close)}?" if close else f"choose from {', '.join(known)}"


def check_task_name(name: str, known: Collection[str], kind: str) -> None:
    """ValueError for a name that is none of a kind's tasks."""
    if name not in known:
        raise ValueError(f"env.name: unknown task {name!r} of kind {kind}; {did_you_mean(name, known)}")


def import_named(key: str, name: str, module: str) -> ModuleType:
    """The module that a setting names before its colon.

    Args:
      key: the setting, such as `env.kind`.
      name: its whole value, such as `package.module:KIND`.
      module: the part of it that is the module.

    Raises:
      ValueError: there is no such module, or this is no module's full name.
      ModuleNotFoundError: the module is there, and something that it imports is not.
    """
    if not all(module.split(".")):
        raise ValueError(f"{key}={name!r} must have a module's full name before the colon, got {module!r}")
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise ValueError(
            f"{key}={name!r}: there is no module {error.name!r} on Python's path; start from the folder that holds "
            "it, or install it"
        ) from error
