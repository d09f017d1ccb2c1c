"""All streams by name. A further one is a line here, and a file that makes it."""

from __future__ import annotations

from experiments.streams.control import Tasks, control_stream
from experiments.streams.types import Stream

RETURN = "training return per episode"
STREAMS: dict[str, Stream] = {
    each.name: each
    for each in (control_stream("relabelled", Tasks("relabelled"), count=5, late=3, performance=RETURN, seconds=60),)
}
