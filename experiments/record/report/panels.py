"""Small charts of what is logged beside the return: plasticity, by layer and network, and training."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from experiments.record.report.charts import line_chart
from experiments.record.report.markup import Markup, details, tag
from experiments.record.report.runs import RunData
from experiments.record.report.sections import figure, switches
from experiments.record.report.series import curve


class Panel(NamedTuple):
    """A quantity: its column, what it is called, what it means, the bounds that it has by nature, and its kin."""

    column: str
    title: str
    meaning: str
    within: tuple[float, float] | None = None
    also: tuple[str, ...] = ()
    """Columns of the same at other thresholds."""


SHARE = (0.0, 1.0)
OF_LAST = "Of the last hidden layer's activations"
PLASTICITY = (
    Panel(
        "fau",
        "Active units",
        "Fraction of active units (FAU): how often a unit gives something, over all units and inputs",
        SHARE,
    ),
    Panel(
        "dormant_ratio",
        "Dormant units",
        "Share of units that are silent on the whole batch (tau 0)",
        SHARE,
        ("dormant_ratio_0.025", "dormant_ratio_0.1"),
    ),
    Panel(
        "density",
        "Density",
        "Share of weights that exist, in the layers that may be sparse; 1 is a dense network",
        SHARE,
    ),
    Panel(
        "grama_ratio",
        "Units without gradient",
        "Share of units that no gradient reaches (GraMa, tau 0)",
        SHARE,
        ("grama_ratio_0.025", "grama_ratio_0.1"),
    ),
    Panel(
        "saturation",
        "Saturated actions",
        "Share of the greedy actions' entries beyond 0.97 in size, where tanh is flat",
        SHARE,
    ),
    Panel("churn", "Churn", "1 minus the Jaccard index of the masks before and after the newest round", SHARE),
    Panel("born", "Weights born", "In the newest round"),
    Panel("removed", "Weights removed", "In the newest round"),
    Panel(
        "regrown_share",
        "Regrown share",
        "Of the weights born in the newest round, the share that had existed before",
        SHARE,
    ),
    Panel("effective_rank", "Effective rank", f"{OF_LAST}: exp of the entropy of the normalised singular values"),
    Panel("srank", "srank", f"{OF_LAST}: the smallest number of singular values that hold 99 % of their sum"),
    Panel("stable_rank", "Stable rank", f"{OF_LAST}: squared Frobenius norm over squared spectral norm"),
    Panel("feature_norm", "Feature norm", f"{OF_LAST}: mean L2 norm"),
    Panel("weight_norm", "Weight norm", "L2 norm of all parameters of a network"),
    Panel(
        "weight_distance", "Distance from the start", "L2 norm of the parameters' difference from those at the start"
    ),
    Panel("gradient_norm", "Gradient norm", "L2 norm of the gradient of a network's loss"),
    Panel("q", "Critics' value", "Mean of the smaller critic's value at the policy's actions, on a batch"),
    Panel("q_start", "Value at the start of episodes", "What the critics expect where the newest episodes began"),
    Panel("return_start", "What came of it", "Discounted return of those episodes, in the same scale"),
    Panel("capacity", "Capacity", "1: fits random targets as a fresh dense network does; 0: not at all"),
)
PREFIX = "plasticity/"
SHOWN_ELSEWHERE = ("eval/return", "eval/random_return", "time/", PREFIX)


def plasticity(runs: Sequence[RunData]) -> Markup:
    """A chart of each quantity, and behind it those of each layer or network."""
    names = _names(runs, PREFIX)
    known = [each for each in PLASTICITY if any(_belongs(name, each) for name in names)]
    others = dict.fromkeys(name.partition("/")[0] for name in names if not any(_belongs(name, p) for p in PLASTICITY))
    known += [Panel(name, name, "As logged") for name in others]
    if not known:
        return tag("p", "No measure of plasticity was logged.", class_="nothing")
    return tag("div", *(_quantity(runs, each, names) for each in known), class_="quantities")


def _quantity(runs: Sequence[RunData], panel: Panel, names: Sequence[str]) -> Markup:
    """The chart over all layers, with the others behind it; where there is none over all, those of each network."""
    own = [name for name in names if _belongs(name, panel)]
    over_all, parts = panel.column in own, [name for name in own if name != panel.column]
    chart, heading = partial(_chart, runs, within=panel.within), tag("h3", panel.title)
    charts = [chart(name.removeprefix(f"{panel.column}/"), PREFIX + name, seeds=not over_all) for name in parts]
    grid = tag("div", *charts, class_="grid")
    if not over_all:
        return tag("section", heading, tag("p", panel.meaning, ".", class_="meaning"), grid, class_="quantity wide")
    main = chart(panel.title, PREFIX + panel.column, caption=f"{panel.meaning}.", size=(440, 220))
    what = f"By layer{', and at other thresholds' if panel.also else ''} ({len(parts)})"
    behind = [details(what, grid, class_="layers")] if parts else []
    return tag("section", heading, main, *behind, class_="quantity")


def training(runs: Sequence[RunData]) -> Markup:
    """Everything else that is logged, as it is called there."""
    names = [name for name in _names(runs, "") if not name.startswith(SHOWN_ELSEWHERE)]
    if not names:
        return tag("p", "Nothing else was logged.", class_="nothing")
    charts = [_chart(runs, name, name) for name in names]
    return details(f"{len(charts)} charts", tag("div", *charts, class_="grid"), id="training-charts")


def speed(runs: Sequence[RunData]) -> Markup:
    """Frames per second and memory over the run."""
    titles = {
        "time/frames_per_second": "Frames per second, all seeds together, without evaluations",
        "time/peak_memory_mib": "Peak memory of the process (MiB)",
        "time/peak_device_memory_mib": "Peak memory of the device (MiB)",
    }
    names = [name for name in _names(runs, "time/") if f"time/{name}" in titles]
    charts = [_chart(runs, titles[f"time/{name}"], f"time/{name}", seeds=False) for name in names]
    return tag("div", *charts, class_="grid")


def _chart(
    runs: Sequence[RunData],
    title: str,
    column: str,
    *,
    within: tuple[float, float] | None = None,
    caption: str = "",
    seeds: bool = True,
    size: tuple[float, float] = (330, 170),
) -> Markup:
    curves = [curve(run, column, seeds) for run in runs]
    if not any(curves):
        return tag("p", f"{title}: no number was measured.", class_="nothing")
    chart = line_chart(title, curves, size=size, within=within, marks=switches(runs))
    return figure(chart, caption or title, curves)


def _names(runs: Sequence[RunData], prefix: str) -> list[str]:
    """Columns that begin so, without that."""
    names = dict.fromkeys(name for run in runs for name in run.columns() if name.startswith(prefix))
    return [name.removeprefix(prefix) for name in names]


def _belongs(name: str, panel: Panel) -> bool:
    return any(name == column or name.startswith(f"{column}/") for column in (panel.column, *panel.also))
