"""The sentence about a policy that is stuck at its limits."""

import numpy as np

from experiments.record.saturation import SaturationGuard


def test_it_is_said_once_for_each_stretch_that_lasts():
    guard = SaturationGuard(("seed 7", "seed 9"), total_frames=1_000)
    quiet = [(0, 0.5, 0.95), (50, 0.95, 0.95), (90, 0.95, 0.2), (100, 0.95, 0.95)]
    for frame, *shares in quiet:
        assert guard(frame, np.array(shares)) == []
    (sentence,) = guard(150, np.array([0.95, 0.95]))
    assert sentence.startswith("seed 7: more than 90% of the policy's actions have been at their limits since frame 50")
    (sentence,) = guard(200, np.array([0.99, 0.95]))
    assert sentence.startswith("seed 9") and "since frame 100" in sentence
    assert guard(400, np.array([0.99, 0.95])) == []  # told already
    assert guard(500, np.array([0.9, np.nan])) == []  # both stretches end
    assert guard(600, np.array([0.95, 0.95])) == []
    assert len(guard(700, np.array([0.95, 0.95]))) == 2
