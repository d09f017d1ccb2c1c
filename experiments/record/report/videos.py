"""Videos of a run inside the page, as data URIs, up to a limit."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from pathlib import Path

from experiments.record.report.markup import Markup, details, join, tag
from experiments.record.report.runs import RunData, inside

FILM = re.compile(r"eval_(\d{1,15})\.mp4")


def videos(runs: Sequence[RunData], limit: int) -> Markup:
    """The newest rollouts of all seeds side by side of each run, then those of each seed, as far as they fit.

    Args:
        limit: bytes of video files, of all runs together; each run gets its share.
    """
    parts = [_of_run(run, limit // len(runs)) for run in runs]
    return tag("div", *parts, class_="videos")


def _of_run(run: RunData, limit: int) -> Markup:
    together, single, left_out, room = [], [], [], limit
    for path, words in _found(run):
        size = path.stat().st_size
        if size > room:
            left_out.append(f"{path.relative_to(run.folder)} ({size / 2**20:.1f} MiB)")
            continue
        room -= size
        (together if path.name == "grid.mp4" else single).append(_video(path, f"{run.label}, {words}"))
    if not (together or single or left_out):
        return tag("section", tag("h3", run.label), tag("p", "This run has no videos.", class_="nothing"))
    parts = [tag("h3", run.label), *together]
    if single and together:
        parts.append(details(f"Single seeds ({len(single)})", tag("div", *single, class_="grid")))
    else:
        parts += single
    if left_out:
        parts.append(
            tag("p", f"Left out, as they would make this file too large: {', '.join(left_out)}.", class_="nothing")
        )
    return tag("section", *parts)


def _found(run: RunData) -> list[tuple[Path, str]]:
    """Videos and what they show: all seeds first, then the newest of each seed, then the one before it."""
    found = []
    if inside(run.folder, run.folder / "grid.mp4"):
        found.append((run.folder / "grid.mp4", "newest rollouts of all seeds side by side"))
    ranked = []
    for seed in run.seeds:
        films = (run.folder / seed.name / "videos").glob("eval_*.mp4")
        ours = [
            (int(match[1]), path) for path in films if (match := FILM.fullmatch(path.name)) and inside(run.folder, path)
        ]
        ranked += [(i, frame, seed.name, path) for i, (frame, path) in enumerate(sorted(ours, reverse=True))]
    ranked.sort(key=lambda each: each[0])
    return found + [(path, f"seed {seed} at frame {frame:,}") for _, frame, seed, path in ranked]


def _video(path: Path, words: str) -> Markup:
    source = f"data:video/mp4;base64,{base64.b64encode(path.read_bytes()).decode()}"
    video = tag(
        "video", join(["A video of ", words]), src=source, controls=True, loop=True, muted=True, playsinline=True,
        preload="metadata", aria_label=f"Video: {words}",
    )  # fmt: skip
    return tag("figure", video, tag("figcaption", words), class_="video")
