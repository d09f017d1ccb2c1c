"""The whole page: one HTML file that loads nothing from anywhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from string import Template

from experiments.record.report.markup import Markup, join, tag, text
from experiments.record.report.masks import masks
from experiments.record.report.panels import plasticity, speed, training
from experiments.record.report.runs import RunData
from experiments.record.report.sections import findings, learning_curves, legend, scores, summary
from experiments.record.report.tables import config_differences, versions
from experiments.record.report.videos import videos

HERE = Path(__file__).parent
VIDEO_LIMIT = 10 * 2**20
"""Bytes of videos in a page; a data URI takes a third more."""


def page(runs: Sequence[RunData], *, video_limit: int = VIDEO_LIMIT, watched: str = "") -> str:
    """The report of these runs as HTML.

    Args:
        watched: the state of the runs that a page which refreshes itself shows; empty for a file.
    """
    sections = {
        "curves": ("Learning curves", learning_curves(runs)),
        "scores": ("Scores", scores(runs)),
        "plasticity": ("Plasticity", plasticity(runs)),
        "masks": ("How the masks grew", masks(runs)),
        "videos": ("Videos", videos(runs, video_limit)),
        "training": ("Training", training(runs)),
        "speed": ("Speed and memory", speed(runs)),
        "config": ("Settings", config_differences(runs)),
        "versions": ("Versions", versions(runs)),
    }
    style, script = ((HERE / name).read_text() for name in ("page.css", "page.js"))
    tasks = list(dict.fromkeys(run.task for run in runs))
    entries = [tag("li", tag("a", title, href=f"#{key}")) for key, (title, _) in sections.items()]
    parts = [
        tag("section", tag("h2", title, id=f"{key}-title"), content, id=key, aria_labelledby=f"{key}-title")
        for key, (title, content) in sections.items()
    ]
    values = {
        "policy": _policy(script, bool(watched)),
        "title": text(", ".join(run.label for run in runs)),
        "heading": text(", ".join(tasks)),
        "subtitle": _subtitle(runs),
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "style": Markup(style),
        "script": Markup(script),
        "legend": legend(runs),
        "contents": tag("ul", *entries),
        "findings": findings(runs),
        "summary": summary(runs),
        "sections": join(parts),
        "watched": text(watched),
    }
    return Template((HERE / "page.html").read_text()).substitute(values)


def _subtitle(runs: Sequence[RunData]) -> Markup:
    methods = dict.fromkeys(run.method for run in runs)
    seeds = sum(len(run.seeds) for run in runs)
    what = f"{len(runs)} run{'s' * (len(runs) != 1)}, {seeds} seed{'s' * (seeds != 1)} in all. Plasticity: "
    return join([what, join((tag("code", method) for method in methods), ", "), "."])


def _policy(script: str, watched: bool) -> str:
    """What the page may do: run its own script, show what it holds, and nothing else, whatever a run's files hold."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = ["default-src 'none'", "img-src data:", "media-src data:", "style-src 'unsafe-inline'"]
    parts += [f"script-src 'sha256-{digest}'", "base-uri 'none'", "form-action 'none'"]
    return "; ".join([*parts, *(["connect-src 'self'"] if watched else [])])
