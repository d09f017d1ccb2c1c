"""All streams by name. A further one is a line here, and a file that makes it."""

from __future__ import annotations

from functools import partial

from experiments.streams.control import Tasks, control_stream
from experiments.streams.labels import labels_stream
from experiments.streams.types import Stream

_control = partial(control_stream, performance="training return per episode", seconds=110, settings="relabelled")
_states = partial(_control, count=5, late=3)
_pixels = partial(_control, count=8, late=5)
LAYER_NORM = (("agent.layer_norm", True),)
"""Before each ReLU of actor and critic; such a stream has references of its own, with it."""

STREAMS: dict[str, Stream] = {
    each.name: each
    for each in (
        labels_stream(),
        labels_stream("labels_long", tasks=20, late=11, seconds=120),
        labels_stream("labels_wide", hidden=(256, 256), seconds=200),
        _states("relabelled", Tasks("relabelled")),
        _states("relabelled_norm", Tasks("relabelled", LAYER_NORM)),
        _states("relabelled_wide", Tasks("relabelled", (("agent.hidden", (128, 128)),))),
        _states("relabelled_reacher", Tasks("relabelled", (("env.name", "Reacher-misc"),))),
        _pixels("pixels", Tasks("relabelled:pixels")),
        _pixels("pixels_norm", Tasks("relabelled:pixels", LAYER_NORM)),
    )
}


def default_streams() -> list[str]:
    """What is compared where no stream is named: all but those whose name has an underscore, which are another form of
    the stream that stands before it."""
    return [name for name in STREAMS if "_" not in name]
