"""A word to the user when a policy has been at its limits for long: it hardly learns there, for tanh is flat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

LIMIT = 0.9
"""Share of saturated actions above which a policy counts as stuck."""
SHARE = 0.1
"""Of the run that it must last before it is told."""


class SaturationGuard:
    """Watches the share of saturated actions of each seed, and says once for each stretch that it lasts too long.

    Args:
        seeds: what each is called.
    """

    def __init__(self, seeds: Sequence[str], total_frames: int) -> None:
        self._seeds, self._long = seeds, SHARE * total_frames
        self._since: dict[str, int] = {}  # the frame from which on a seed has been stuck
        self._told: set[str] = set()

    def __call__(self, frame: int, saturation: Float[np.ndarray, " seeds"]) -> list[str]:
        """Sentences about the seeds that have just been stuck for too long, as measured at `frame`."""
        said = []
        for seed, share in zip(self._seeds, saturation, strict=True):
            if not share > LIMIT:
                self._since.pop(seed, None)
                self._told.discard(seed)
                continue
            begun = self._since.setdefault(seed, frame)
            if frame - begun >= self._long and seed not in self._told:
                self._told.add(seed)
                said.append(
                    f"{seed}: more than {LIMIT:.0%} of the policy's actions have been at their limits since frame "
                    f"{begun:,}, where it hardly learns; a lower agent.learning_rate or replay.reward_scale, or longer "
                    "exploration, may spare it that"
                )
        return said
