"""Host environments of one task stepped by one call of their physics: `env.workers=batch`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from envs.pools.host import Failed, HostPool, attempt
from envs.pools.worker import Lane, SerialWorker
from envs.types import MakeHostEnv, MakeTogether, Scene


class BatchPool(HostPool):
    """A `HostPool` whose lanes step together: the same results, bit for bit, and the same snapshots.

    Episodes are started, replayed and drawn lane by lane. As with `serial`, nobody is there to notice what hangs.
    """

    def __init__(self, make: MakeHostEnv, together: MakeTogether, streams: Sequence[tuple[int, ...]]) -> None:
        super().__init__(make, streams, "serial")
        try:
            self._together = together([lane.env for lane in self._own_lanes()])
        except BaseException:
            self.close()
            raise

    def _own_lanes(self) -> list[Lane]:
        """Those of now: a lane that failed is another one."""
        return [cast(SerialWorker, worker).lane for worker in self._workers]

    def _answers(self, method: str, args: Sequence[tuple[Any, ...]]) -> list[Any]:
        if method != "step" or self.failure is not None or not self._workers:
            return super()._answers(method, args)
        lanes = self._own_lanes()
        try:
            steps = self._together.step([lane.env for lane in lanes], np.stack([action for (action,) in args]))
            return [
                Failed(step) if isinstance(step, Exception) else attempt(lane.after, step)
                for lane, step in zip(lanes, steps, strict=True)
            ]
        except BaseException:
            self.close()
            raise

    def pictures(self, size: int) -> Scene:
        """As `HostPool.pictures`."""
        self._together.save([lane.env for lane in self._own_lanes()])
        return super().pictures(size)
