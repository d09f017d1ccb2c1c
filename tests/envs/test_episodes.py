"""What all host environments share: actions that are finite, and what -1 and 1 mean."""

import numpy as np
import pytest

from envs.episodes import EpisodeEnv, action_limits
from envs.images import resized
from envs.types import ArraySpec, EnvSpec, observe


class Point(EpisodeEnv[np.ndarray]):
    """The least that a kind from outside writes."""

    def __init__(self):
        self.spec = EnvSpec("point", ArraySpec((1,), np.dtype(np.float32)), observe, 1, 1, 5, False)
        self._act_within(np.zeros(1), np.full(1, 4.0))

    def _start(self, seed):
        self._observation = np.zeros(1)

    def _frame(self, control):
        assert self._observation is not None
        self._observation = self._observation + control
        return 0.0, False, False

    def _scene(self):
        assert self._observation is not None
        return self._observation.astype(np.float32)

    def picture(self, size):
        return np.zeros((size, size, 3), np.uint8)

    def close(self):
        pass


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_every_kind_refuses_actions_that_are_not_finite(bad):
    env = Point()
    env.reset(0)
    with pytest.raises(ValueError, match="An action of point must be finite"):
        env.step(np.full(1, bad, np.float32))
    np.testing.assert_array_equal(env.step(np.full(1, 0.5, np.float32)).scene, [3])


@pytest.mark.parametrize("none", [np.inf, 1e10, np.finfo(np.float32).max])
def test_an_action_has_both_limits_or_none(none):
    low, high = np.array([[-2.0], [-none]], np.float32), np.array([[6.0], [none]], np.float32)
    for limits, expected in zip(action_limits("x", low, high), ([-2, -1], [6, 1]), strict=True):
        np.testing.assert_array_equal(limits, np.array(expected, np.float32))
        assert limits.dtype == np.float32
    low[1] = 0
    with pytest.raises(ValueError, match=r"env.name='x' must have actions limited on both .* got 0.0 to .* action 1"):
        action_limits("x", low, high)


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (np.zeros((4, 4, 3), np.float32), r"float32 \[4, 4, 3\]"),
        (np.zeros((4, 4, 1), np.uint8), r"uint8 \[4, 4, 1\]"),
        (np.zeros((4, 4), np.uint8), r"uint8 \[4, 4\]"),
        (None, "NoneType"),
    ],
)
def test_images_are_bytes_of_three_channels(image, found):
    with pytest.raises(ValueError, match=rf"The camera must give uint8 \[height, width, 3\], got {found}"):
        resized(image, 4, "The camera")
