"""The parts of a report about returns: what is compared, learning curves, scores."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from experiments.record.report.charts import key_sample, line_chart
from experiments.record.report.forests import Row, forest
from experiments.record.report.markup import Markup, details, interval, join, number, table, tag
from experiments.record.report.runs import RunData
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
)
from experiments.record.report.series import Curve, curve

ROWS = 12
"""Of the table behind a figure, evenly spread over the run."""
INTERVAL = "Interquartile mean over seeds [95 % bootstrap interval]."


def return_columns(runs: Sequence[RunData]) -> dict[str, str]:
    """The columns that hold returns, with what each is: one, or one for each task where tasks take turns."""
    names = dict.fromkeys(name for run in runs for name in run.columns())
    tasks = {name: name.removeprefix("eval/return/") for name in names if name.startswith("eval/return/")}
    found = {"eval/return": "return, on the task of that time" if tasks else "return"}
    return found | {name: f"return on {task}" for name, task in tasks.items()}


def switches(runs: Sequence[RunData]) -> list[float]:
    """Frames at which the task was another one than in the evaluation before."""
    found: set[float] = set()
    for run in runs:
        for frames, tasks in run.lines("continual/task")[:1]:
            found |= {float(frame) for frame, now, before in zip(frames[1:], tasks[1:], tasks) if now != before}
    return sorted(found)


def legend(runs: Sequence[RunData]) -> Markup:
    """Which line is which run; the page's script makes the entries hide and show."""
    entries = [tag("li", key_sample(i), tag("span", run.label)) for i, run in enumerate(runs)]
    return tag("ul", *entries, class_="legend", aria_label="Runs and their lines")


def findings(runs: Sequence[RunData]) -> Markup:
    """What the final scores say, in a sentence or two."""
    finals = {run.label: final_score(run, "eval/return") for run in runs}
    ranked = sorted((name for name in finals if len(finals[name].finite)), key=lambda name: -finals[name].middle)
    if not ranked:
        return tag("p", "No run has been evaluated yet.", class_="finding")
    best = finals[ranked[0]]
    words = interval(best.middle, best.low, best.high)
    if len(runs) == 1:
        return tag("p", "Final score ", tag("strong", words), ".", class_="finding")
    others = ranked[1:]
    said = [tag("strong", ranked[0]), f" has the highest final score, {words}."]
    if np.isfinite(best.low) and others:
        apart = [name for name in others if finals[name].high < best.low]
        near = [name for name in others if name not in apart]
        if not near:
            said.append(" Its interval lies above those of all others.")
        elif apart:
            said.append(f" Its interval lies above that of {', '.join(apart)}, and overlaps that of {', '.join(near)}.")
        else:
            said.append(f" Its interval overlaps that of {', '.join(near)}: these seeds do not tell them apart.")
    elif others:
        said.append(" With fewer than three seeds there is no interval to judge it by.")
    return tag("p", *said, class_="finding")


def summary(runs: Sequence[RunData]) -> Markup:
    """What is compared, in a table, and what to know of the data."""
    aims = goals(runs, "eval/return")
    head = ["Run", "Method", "Task", "Seeds", "Frames per seed", "Final score", "Mean score"]
    head += [f"Frames to {share:.0%} of the way" for share in aims]
    head += ["Active units at the end", "Density at the end", "Frames per second"]
    rows = []
    for i, run in enumerate(runs):
        scores = [final_score(run, "eval/return"), mean_score(run, "eval/return")]
        units, density = (last_value(run, f"plasticity/{name}").middle for name in ("fau", "density"))
        rows.append(
            [
                tag("span", key_sample(i), run.label, class_="who"), run.method, run.task, len(run.seeds),
                f"{run.reached:,.0f}", *map(_shown, scores), *(_reached(run, goal) for goal in aims.values()),
                _share(units), _share(density), number(median_value(run, "time/frames_per_second"), 3),
            ]
        )  # fmt: skip
    notes = [(run.label, note) for run in runs for note in run.notes] + _between(runs)
    told = [tag("li", tag("strong", who), f": {note}.") for who, note in notes]
    heading = tag("h3", "What to know of these data")
    return join([table("The runs. " + INTERVAL, head, rows), *([heading, tag("ul", *told, class_="notes")] if told else [])])


def _between(runs: Sequence[RunData]) -> list[tuple[str, str]]:
    """What makes runs hard to compare."""
    said = []
    if len({run.task for run in runs}) > 1:
        said.append(("all", "the runs are on different tasks, whose returns differ in scale; compare them with care"))
    if len({run.reached for run in runs}) > 1:
        said.append(("all", "the runs have different lengths; each final score is that of its own end"))
    if len({tuple(seed.name for seed in run.seeds) for run in runs}) > 1:
        said.append(("all", "the runs have different seeds"))
    return said


def learning_curves(runs: Sequence[RunData]) -> Markup:
    """Return over frames, one figure for each column of returns."""
    figures, marks = [], switches(runs)
    for column, what in return_columns(runs).items():
        curves = [curve(run, i, column) for i, run in enumerate(runs)]
        starts = [line[1][0] for run in runs for line in run.lines("eval/random_return") if len(line[1])]
        starts = [each for each in starts if np.isfinite(each)]
        level = ("random policy", float(np.mean(starts))) if starts and column == "eval/return" else None
        chart = line_chart(f"Evaluation {what}", curves, size=(860, 400), marks=marks, level=level, named=True)
        words = (
            f"Greedy evaluation, {what}. Thick: interquartile mean over seeds. Shaded: its 95 % bootstrap interval. "
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
    return interval(one.middle[i], one.low[i], one.high[i])


def scores(runs: Sequence[RunData]) -> Markup:
    """Final and mean score of each run, frames to a goal, and how often one run beats another."""
    parts = []
    for column, what in return_columns(runs).items():
        finals = [final_score(run, column) for run in runs]
        means = [mean_score(run, column) for run in runs]
        if not any(len(each.finite) for each in finals):
            continue
        several = len(return_columns(runs)) > 1
        for name, values, meaning in (
            ("Final score", finals, "mean over the evaluations in the last fifth of the run"),
            ("Mean score", means, "mean over all evaluations but the first: the area under the curve, which rewards early learning"),
        ):
            rows = [Row(run.label, i, s.middle, s.low, s.high, s.finite) for i, (run, s) in enumerate(zip(runs, values))]
            title = f"{name} ({what})" if several else name
            words = f"{title}: each seed's {meaning}. Marker: interquartile mean. Bar: 95 % bootstrap interval. Upright lines: seeds."
            parts.append(tag("figure", forest(title, rows), tag("figcaption", words), _behind(runs, values, title)))
    return join([*parts, _efficiency(runs), _improvements(runs)])


def _behind(runs: Sequence[RunData], values: Sequence[Score], title: str) -> Markup:
    rows = [
        [run.label, _shown(s), ", ".join(f"{seed.name}: {number(v)}" for seed, v in zip(run.seeds, s.values))]
        for run, s in zip(runs, values, strict=True)
    ]
    return details("Numbers of this figure", table(f"{title}. {INTERVAL}", ["Run", "Over seeds", "Each seed"], rows))


def _efficiency(runs: Sequence[RunData]) -> Markup:
    aims = goals(runs, "eval/return")
    if not aims:
        return Markup("")
    head = ["Run", *(f"to {share:.0%}: a return of {number(goal)}" for share, goal in aims.items())]
    rows = [[run.label, *(_reached(run, goal) for goal in aims.values())] for run in runs]
    caption = (
        f"Sample efficiency: frames to {SHARES[0]:.0%} and {SHARES[1]:.0%} of the way from the random policy to the best "
        "final score here. The first evaluation that is at least as high counts. " + INTERVAL
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
        "Probability of improvement: how often a seed of the first run ends above a seed of the second, over all pairs of "
        "seeds (Agarwal et al. 2021). Dashed: even. An interval that crosses it does not say which is better."
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
