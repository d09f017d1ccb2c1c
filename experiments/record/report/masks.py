"""How the masks grew: each weight that exists, by the frame at which it was last born, units ordered by their age."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from experiments.record.checkpoints import Births, read_births
from experiments.record.report.markup import Markup, details, join, tag
from experiments.record.report.runs import RunData

CELLS = 256
"""Rows and columns of a picture at most; of larger layers every k-th input and unit is shown."""
OLDEST = 70
"""Grey of a weight that was there from the start, of 255; the newest are 255, and what does not exist is 0."""
SHOWN = 9
"""Layers of a run that are shown at once; the others open on demand."""


def masks(runs: Sequence[RunData]) -> Markup:
    """A picture of each sparse layer of each run's first seed; the page's script lets time run in them."""
    words = (
        "A column is a unit, the oldest on the left; a row is one of its inputs. Light is a weight that exists, the "
        "lighter the later it was last born; dark is none. What came and went again before the newest checkpoint does "
        "not show: the density above counts that too."
    )
    parts = [tag("p", words, class_="meaning"), *(_of_run(run) for run in runs)]
    return tag("div", *parts, class_="masks")


def _of_run(run: RunData) -> Markup:
    title = tag("h3", run.label)
    place = run.folder / "checkpoint"
    try:
        if not place.resolve().is_relative_to(run.folder.resolve()):
            raise ValueError("its checkpoints lie outside of its folder")
        step, layers = read_births(place)
    except (FileNotFoundError, ValueError) as error:
        return tag("section", title, tag("p", f"No masks to show: {error}.", class_="nothing"))
    if not layers:
        return tag("section", title, tag("p", "A dense network: it has no masks, and nothing grows.", class_="nothing"))
    figures = [_picture(run, path, layer) for path, layer in sorted(layers.items())]
    seed = run.seeds[0].name if run.seeds else "?"
    said = tag("p", f"Seed {seed}, from the checkpoint at step {step:,}.", class_="meaning")
    shown = tag("div", *figures[:SHOWN], class_="grid")
    more = details(f"{len(figures) - SHOWN} more layers", tag("div", *figures[SHOWN:], class_="grid"))
    return tag("section", title, said, join([shown, *([more] if figures[SHOWN:] else [])]))


def _picture(run: RunData, path: str, layer: Births) -> Markup:
    exists, frames, last = in_time(run, layer)
    grey = grey_levels(exists, frames, last)
    name = path.removesuffix("/kernel").removesuffix("/dense")
    there, size = int(layer.exists.sum()), layer.exists.size
    first = int((layer.exists & (layer.born == 0)).sum())
    words = f"{name}: {there:,} of {size:,} weights exist ({there / size:.0%})"
    words += f"; {first / there:.0%} of them are there from the start, the others were born later." if there else "."
    if grey.size < size:
        words += (
            f" {grey.shape[1]} of {exists.shape[1]} units and {grey.shape[0]} of {exists.shape[0]} inputs are shown."
        )
    image = tag("img", src=f"data:image/png;base64,{_png(grey)}", alt=f"Mask of {words}")
    return tag("figure", image, tag("figcaption", words), class_="mask", data_last=f"{last:.0f}", data_oldest=OLDEST)


def in_time(
    run: RunData, layer: Births
) -> tuple[Bool[np.ndarray, "inputs units"], Float[np.ndarray, "inputs units"], float]:
    """What exists, the frame at which each weight was born, and the frame of now; the oldest unit first.

    A network's updates are spread evenly over the updates that the run has logged, of which a delayed actor has a part.
    The age of a unit is the mean over the weights that lead into it; units without any come last.
    """
    exists = layer.exists.reshape(-1, layer.exists.shape[-1])
    born = layer.born.reshape(exists.shape)
    at, updates = (line for line in run.lines("train/updates")[0]) if run.seeds else (np.zeros(0), np.zeros(0))
    measured = np.isfinite(updates)
    at, updates = at[measured], updates[measured]
    last = float(at[-1]) if len(at) else float(max(layer.updates, 1))
    scaled = born / max(layer.updates, 1)
    if len(at) and updates[-1] > 0:
        begun = updates > 0
        begun[:-1] |= begun[1:]  # the last log point without an update, too
        frames = np.interp(scaled * updates[-1], updates[begun], at[begun])
        frames = np.where(born > 0, frames, 0.0)
    else:
        frames = scaled * last
    count = exists.sum(axis=0)
    age = np.where(count > 0, (frames * exists).sum(axis=0) / np.maximum(count, 1), np.inf)
    order = np.argsort(age, kind="stable")
    return exists[:, order], frames[:, order], last


def grey_levels(
    exists: Bool[np.ndarray, "inputs units"], frames: Float[np.ndarray, "inputs units"], last: float
) -> UInt8[np.ndarray, "rows columns"]:
    """The grey of each weight, of at most 256 evenly spread inputs and units."""
    grey = OLDEST + np.round((255 - OLDEST) * np.clip(frames / max(last, 1.0), 0, 1))
    rows, columns = (_spread(each) for each in exists.shape)
    return np.where(exists, grey, 0).astype(np.uint8)[rows][:, columns]


def _spread(count: int) -> Int[np.ndarray, " kept"]:
    return np.linspace(0, count - 1, min(count, CELLS)).round().astype(int)


def _png(grey: UInt8[np.ndarray, "rows columns"]) -> str:
    from matplotlib.image import imsave  # takes a second

    file = io.BytesIO()
    imsave(file, np.repeat(grey[..., None], 3, axis=2), format="png")
    return base64.b64encode(file.getvalue()).decode()
