"""All streams by name. A further one is a line here, and a file that makes it."""

from __future__ import annotations

from functools import partial

from experiments.streams.control import Tasks, control_stream
from experiments.streams.labels import labels_stream
from experiments.streams.types import Stream

RETURN = "training return per episode"
NORM = "_norm"
"""Streams of such names are others with LayerNorm before each ReLU of actor and critic, and references of their own.
No method was tuned on them, nor on pictures: all control takes the settings of `relabelled`."""


def _control(name: str, config: str, count: int, late: int, seconds: float) -> list[Stream]:
    """A stream of `count` tasks, those from `late` on being late, without LayerNorm and with it."""
    make = partial(control_stream, count=count, late=late, performance=RETURN, seconds=seconds, settings="relabelled")
    return [make(name, Tasks(config)), make(f"{name}{NORM}", Tasks(config, (("agent.layer_norm", True),)))]


STREAMS: dict[str, Stream] = {
    each.name: each
    for each in (
        labels_stream(),
        *_control("relabelled", "relabelled", 5, 3, 110),
        *_control("pixels", "relabelled:pixels", 12, 5, 110),
    )
}


def default_streams() -> list[str]:
    """Those without LayerNorm."""
    return [name for name in STREAMS if not name.endswith(NORM)]
