"""Names that are nearly right. May import: nothing of ours."""

from __future__ import annotations

import difflib
from collections.abc import Collection


def did_you_mean(name: str, known: Collection[str]) -> str:
    """The known names that are like this one, at most five, or else all of them; the end of an error message."""
    close = difflib.get_close_matches(str(name), known, n=5, cutoff=0.4)
    return f"did you mean {', '.join(close)}?" if close else f"choose from {', '.join(known)}"


def check_task_name(name: str, known: Collection[str], kind: str) -> None:
    """ValueError for a name that is none of a kind's tasks."""
    if name not in known:
        raise ValueError(f"env.name: unknown task {name!r} of kind {kind}; {did_you_mean(name, known)}")
