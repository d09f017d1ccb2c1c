"""How the masks grew."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.record.report.markup import Markup
from experiments.record.report.runs import RunData


def masks(runs: Sequence[RunData]) -> Markup:
    """Nothing yet."""
    return Markup("")
