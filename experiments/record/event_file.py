"""A seed's file of events for TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import scalar

from experiments.record.video import animation


class EventFile:
    """A file for TensorBoard that is written at once.

    tensorboardX's own `SummaryWriter` writes in a thread: nobody hears that the disk is full, and who writes then waits
    for that thread for ever.

    Args:
        folder: where it lies; made if absent.
        begin: what earlier files of the folder hold of this frame and later ones is not shown.
    """

    def __init__(self, folder: Path, begin: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"))
        self._writer.write_event(Event(step=begin, session_log=SessionLog(status=SessionLog.START)))

    def write(self, frame: int, values: Mapping[str, float]) -> None:
        """Numbers of a frame, by their names."""
        self._write(frame, *(scalar(name, value) for name, value in values.items()))

    def film(self, frame: int, frames: UInt8[np.ndarray, "steps height width 3"], fps: int) -> None:
        """A small animation of a rollout, among the images."""
        encoded, height, width = animation(frames, fps)
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encoded)
        self._write(frame, Summary(value=[Summary.Value(tag="eval/video", image=image)]))

    def _write(self, frame: int, *summaries: Summary) -> None:
        for each in summaries:
            self._writer.write_event(Event(wall_time=time.time(), step=frame, summary=each))
        self._writer.flush()

    def close(self) -> None:
        """No more comes."""
        self._writer.close()
