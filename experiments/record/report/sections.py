"""The parts of a report about returns: what is compared, learning curves, scores."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from experiments.record.report.charts import key_sample, line_chart
from experiments.record.report.forests import Row, forest
from experiments.record.report.markup import Markup, details, interval, join, number, table, tag
from experiments.record.report.runs import RunData, by_task
from experiments.record.report.scores import (
    SHARES,
    Score,
    final_score,
    goals,
    improvement,
    last_value,
    mean_score,
    median_value,
    reached,
    score,
    way,
)
from experiments.record.report.series import Curve, curve

ROWS = 12
"""Of the table behind a figure, evenly spread over the run."""
INTERVAL = "Interquartile mean over seeds [95 % bootstrap interval]."


def return_columns(runs: Sequence[RunData]) -> dict[str, str]:
    """The columns that hold returns, with what each is: one, or one for each task where tasks take turns."""
    names = dict.fromkeys(name for run in runs for name in run.columns())
    tasks = {name: name.removeprefix("eval/return/") for name in names if name.startswith("eval/return/")}
    found = {"eval/return": "on the task of that time" if tasks else "all seeds"}
    return found | {name: f"on {task}" for name, task in tasks.items()}


def switches(runs: Sequence[RunData]) -> list[float]:
    """Frames at which the task was another one than in the evaluation before."""
    found: set[float] = set()
    for run in runs:
        for frames, tasks in run.lines("continual/task")[:1]:
            found |= {float(frame) for frame, now, before in zip(frames[1:], tasks[1:], tasks) if now != before}
    return sorted(found)


def legend(runs: Sequence[RunData]) -> Markup:
    """Which line is which run; the page's script makes the entries hide and show."""
    entries = [tag("li", key_sample(run.style), tag("span", run.label)) for run in runs]
    return tag("ul", *entries, class_="legend", aria_label="Runs and their lines")


def findings(runs: Sequence[RunData]) -> Markup:
    """What the final scores say, in a sentence or two for each task."""
    groups = by_task(runs)
    return join(_finding(group, f"On {task}, " if len(groups) > 1 else "") for task, group in groups.items())


def _finding(runs: Sequence[RunData], where: str) -> Markup:
    finals = {run.label: final_score(run, "eval/return") for run in runs}
    ranked = sorted((name for name in finals if len(finals[name].finite)), key=lambda name: -finals[name].middle)
    if not ranked:
        return tag("p", where, "nothing has been evaluated yet.", class_="finding")
    best, name, others = finals[ranked[0]], tag("strong", ranked[0]), ranked[1:]
    words = interval(best.middle, best.low, best.high)
    if not others:
        return tag("p", where, name, " has a final score of ", words, ".", class_="finding")
    said = [where, name, f" has the highest final score, {words}."]
    if np.isfinite(best.low):
        near = [each for each in others if not finals[each].high < best.low]
        if not near:
            said.append(" Its interval lies above those of all others.")
        elif len(near) < len(others):
            said.append(f" Its interval lies above those of the others, but for {' and '.join(near)}.")
        else:
            said.append(f" Its interval overlaps with {' and '.join(near)}: these seeds do not tell them apart.")
    else:
        said.append(" With fewer than three seeds there is no interval to judge it by.")
    ends = sorted(run.reached for run in runs)
    if ends[0] < ends[-1]:
        said.append(f" They have not run equally far: {ends[0]:,.0f} to {ends[-1]:,.0f} frames.")
    return tag("p", *said, class_="finding")


def summary(runs: Sequence[RunData]) -> Markup:
    """What is compared, in a table, and what to know of the data."""
    several = len(by_task(runs)) > 1  # else the page's heading says it
    head = ["Run", "Method", *(["Task"] if several else []), "Seeds", "Frames per seed", "Final score", "Mean score"]
    head += ["Active units at the end", "Dormant units at the end", "Density at the end", "Frames per second"]
    rows = []
    for run in runs:
        units, dormant, density = (
            last_value(run, f"plasticity/{name}").middle for name in ("fau", "dormant_ratio", "density")
        )
        rows.append(
            [
                tag("span", key_sample(run.style), run.label, class_="who"), run.method,
                *([run.task] if several else []), len(run.seeds), f"{run.reached:,.0f}",
                _shown(final_score(run, "eval/return")), _shown(mean_score(run, "eval/return")),
                _share(units), _share(dormant), _share(density), number(median_value(run, "time/frames_per_second"), 3),
            ]
        )  # fmt: skip
    notes = [(run.label, note) for run in runs for note in run.notes] + _between(runs)
    told = [tag("li", tag("strong", who), f": {note}.") for who, note in notes]
    heading = tag("h3", "What to know of these data")
    caption = (
        f"The runs. {INTERVAL} Final score: mean over the evaluations in the last fifth. Active units: the share that "
        "one input activates, on average; dormant ones no input of a batch activates. Frames per second: median over "
        "log points, all seeds together, without evaluations."
    )
    seeds = sum(len(run.seeds) for run in runs)
    clean = tag("p", f"All {seeds} seeds have come to the end; no number is missing, and no line is damaged.")
    return join([table(caption, head, rows), *([heading, tag("ul", *told, class_="notes")] if told else [clean])])


def _between(runs: Sequence[RunData]) -> list[tuple[str, str]]:
    """What makes runs hard to compare."""
    said = []
    if len(by_task(runs)) > 1:
        said.append(("all", "the runs are on different tasks, so their returns are shown apart"))
    for group in by_task(runs).values():
        names = ", ".join(run.label for run in group)
        if len({run.reached for run in group}) > 1:
            said.append((names, "they have different lengths; each final score is that of its own end"))
        if len({tuple(seed.name for seed in run.seeds) for run in group}) > 1:
            said.append((names, "they have different seeds"))
        if len({f"{run.versions.get('commit')}" for run in group}) > 1:
            said.append((names, "they were made by different commits of the code; see Versions"))
        changed = [run.label for run in group if f"{run.versions.get('commit')}".endswith("+changes")]
        if changed:
            said.append((", ".join(changed), "made by code with changes that no commit holds"))
    return said


def learning_curves(runs: Sequence[RunData]) -> Markup:
    """Return over frames, one figure for each task and column of returns."""
    figures = []
    for group in by_task(runs).values():
        marks = switches(group)
        for column, what in return_columns(group).items():
            curves = [curve(run, column) for run in group]
            starts = [value for run in group for line in run.lines("eval/random_return") for value in line[1]]
            starts = [each for each in starts if np.isfinite(each)]
            level = ("random policy", float(np.mean(starts))) if starts and column == "eval/return" else None
            title = f"Return of greedy evaluation, {what}"
            chart = line_chart(title, curves, size=(860, 400), marks=marks, level=level, named=True)
            words = (
                f"{title}. Thick: interquartile mean over seeds. Shaded: its 95 % bootstrap interval. "
                "Thin: single seeds." + (" Upright: the task changes." if marks else "")
            )
            figures.append(figure(chart, words, curves))
    return join(figures)


def figure(chart: Markup, caption: object, curves: Sequence[Curve]) -> Markup:
    """A chart with its caption, and its numbers in a table behind it."""
    behind = details("Numbers of this figure", numbers(plain_caption(caption), curves)) if any(curves) else ""
    return tag("figure", chart, tag("figcaption", caption), behind)


def plain_caption(caption: object) -> str:
    """The first sentence of a caption."""
    return f"{caption}".partition(". ")[0].rstrip(".") + "."


def numbers(caption: str, curves: Sequence[Curve]) -> Markup:
    """Some points of curves as a table."""
    drawn = [each for each in curves if each]
    frames = np.unique(np.concatenate([each.frames for each in drawn]))
    chosen = frames[np.unique(np.linspace(0, len(frames) - 1, min(ROWS, len(frames))).round().astype(int))]
    rows = [[f"{frame:,.0f}", *(_at(each, frame) for each in drawn)] for frame in chosen]
    more = f" {len(chosen)} of {len(frames)} frames." if len(chosen) < len(frames) else ""
    return table(f"{caption} {INTERVAL}{more}", ["Frames", *(each.label for each in drawn)], rows, class_="numbers")


def _at(one: Curve, frame: float) -> str:
    where = np.flatnonzero(one.frames == frame)
    if not len(where):
        return ""
    i = where[0]
    return interval(*(float(each[i]) for each in (one.middle, one.low, one.high)))


MEANINGS = {
    "Final score": ("mean over the evaluations in the last fifth of the run", final_score),
    "Mean score": (
        "mean over all evaluations but the first: the area under the curve, rewarding early learning",
        mean_score,
    ),
}


def scores(runs: Sequence[RunData]) -> Markup:
    """Final and mean score of each run, frames to a goal, and how often one run beats another; each task by itself."""
    groups = by_task(runs)
    parts = []
    for task, group in groups.items():
        if len(groups) > 1:
            parts.append(tag("h3", task))
        columns = return_columns(group)
        for column, what in columns.items():
            for name, (meaning, read) in MEANINGS.items():
                values = [read(run, column) for run in group]
                title = f"{name} ({what})" if len(columns) > 1 else name
                rows = [
                    Row(run.label, run.style, s.middle, s.low, s.high, s.finite.tolist())
                    for run, s in zip(group, values)
                ]
                words = (
                    f"{title}: each seed's {meaning}. Marker: interquartile mean. Bar: 95 % bootstrap interval. "
                    "Upright lines: seeds."
                )
                parts.append(
                    tag("figure", forest(title, rows), tag("figcaption", words), _behind(group, values, title))
                )
        parts += [_efficiency(group), _improvements(group)]
    return join(parts)


def _behind(runs: Sequence[RunData], values: Sequence[Score], title: str) -> Markup:
    rows = [
        [run.label, _shown(s), ", ".join(f"{seed.name}: {number(v)}" for seed, v in zip(run.seeds, s.values))]
        for run, s in zip(runs, values, strict=True)
    ]
    return details("Numbers of this figure", table(f"{title}. {INTERVAL}", ["Run", "Over seeds", "Each seed"], rows))


def _efficiency(runs: Sequence[RunData]) -> Markup:
    ends = way(runs, "eval/return")
    if not ends:
        return Markup("")
    aims = goals(ends)
    head = ["Run", *(f"to {share:.0%}: a return of {number(goal)}" for share, goal in aims.items())]
    rows = [[run.label, *(_reached(run, goal) for goal in aims.values())] for run in runs]
    caption = (
        f"Sample efficiency: frames to {SHARES[0]:.0%} and {SHARES[1]:.0%} of the way from the random policy to the "
        f"best final score here, from {number(ends[0])} to {number(ends[1])}. Of each seed the first evaluation that "
        "is at least as high counts; the mean of these frames need not be one of an evaluation. " + INTERVAL
    )
    return table(caption, head, rows)


def _improvements(runs: Sequence[RunData]) -> Markup:
    finals = [final_score(run, "eval/return") for run in runs]
    rows = []
    for (i, one), (j, other) in combinations(enumerate(runs), 2):
        found = improvement(finals[i], finals[j])
        if found is None:
            continue
        if found[0] < 0.5:
            (one, other), found = (other, one), improvement(finals[j], finals[i])
        assert found is not None
        rows.append(Row(f"{one.label} > {other.label}", None, *found))
    if not rows:
        return Markup("")
    chart = forest("Probability of improvement", rows, within=(0.0, 1.0), level=0.5)
    words = (
        "Probability of improvement: how often a seed of the first run ends above a seed of the second, over all pairs "
        "of seeds (Agarwal et al. 2021). Dashed: even. An interval that crosses it does not say which is better."
    )
    behind = [[row.label, interval(*row[2:5])] for row in rows]
    shown = details("Numbers of this figure", table("Probability of improvement.", ["Pair", "Share of pairs"], behind))
    return tag("figure", chart, tag("figcaption", words), shown)


def _reached(run: RunData, goal: float) -> str:
    found = reached(run, "eval/return", goal)
    if not found.count:
        return "no number"
    if len(found.frames) < found.count:
        return f"{len(found.frames)} of {found.count} seeds came there"
    return _shown(score(found.frames.tolist()))


def _shown(one: Score) -> str:
    missing = len(one.values) - len(one.finite)
    of = f" ({len(one.finite)} of {len(one.values)} seeds)" if missing and len(one.finite) else ""
    return interval(one.middle, one.low, one.high) + of


def _share(value: float) -> str:
    return f"{value:.0%}" if np.isfinite(value) else "no number"
