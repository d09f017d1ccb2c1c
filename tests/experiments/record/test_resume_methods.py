"""Every method, for both agents: N steps, a checkpoint and M more equal N + M steps, bit for bit."""

import pytest
import tiny
import tiny_device

from experiments.build.methods import METHODS

SAVED = 23  # between two rounds; the first update is that of step 6, rounds come every 4, resets every 8


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["td3", "drq"])
@pytest.mark.parametrize("method", [*METHODS, "none", "ne+redo"])
def test_resumed_equals_uninterrupted_bit_for_bit(method, kind, tmp_path):
    built = tiny_device.build(kind, method=method)
    whole, pool = tiny_device.train(built)

    stopped, stopped_pool = tiny_device.train(built, until=SAVED)
    tiny.save(tmp_path / "checkpoint", stopped, stopped_pool)
    del stopped

    resumed_pool = tiny_device.pool_of(built)
    run = tiny.restored(tmp_path / "checkpoint", built, resumed_pool)
    assert run.step == SAVED
    end, resumed_pool = tiny_device.train(built, resumed_pool, run)
    tiny.equal(end.learner, whole.learner)
    tiny.equal(end.rollout, whole.rollout)
    tiny.equal(resumed_pool.snapshot(), pool.snapshot())
