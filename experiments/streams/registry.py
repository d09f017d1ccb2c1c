"""All streams by name. A further one is a line here, and a file that makes it."""

from __future__ import annotations

from experiments.streams.types import Stream

STREAMS: dict[str, Stream] = {}
