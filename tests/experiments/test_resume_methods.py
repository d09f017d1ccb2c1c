"""Every method, for both agents: N steps, a checkpoint and M more equal N + M steps, bit for bit."""

import jax
import pytest
import tiny
import tiny_device

from experiments.checkpoint import Checkpoints
from experiments.loop import Run
from experiments.methods import METHODS

SAVED = 23  # between two rounds; the first update is that of step 6, rounds come every 4, resets every 8


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["td3", "drq"])
@pytest.mark.parametrize("method", [*METHODS, "none", "ne+redo"])
def test_resumed_equals_uninterrupted_bit_for_bit(method, kind, tmp_path):
    built = tiny_device.build(kind, method=method)
    whole, pool = tiny_device.train(built)

    stopped, stopped_pool = tiny_device.train(built, until=SAVED)
    checkpoints = Checkpoints(tmp_path / "checkpoint")
    checkpoints.save(stopped, stopped_pool.snapshot())
    checkpoints.close()
    del stopped

    checkpoints, resumed_pool = Checkpoints(tmp_path / "checkpoint"), tiny_device.pool_of(built)
    like = jax.eval_shape(lambda keys, scene: Run(0, *built.steps.init(keys, scene)), built.keys, resumed_pool.reset())
    found = checkpoints.restore(like, resumed_pool.snapshot())
    checkpoints.close()
    assert found is not None
    run, envs, failures = found
    assert run.step == SAVED and not failures
    resumed_pool.restore(envs)
    end, resumed_pool = tiny_device.train(built, resumed_pool, run)
    tiny.equal(end.learner, whole.learner)
    tiny.equal(end.memory, whole.memory)
    tiny.equal(resumed_pool.snapshot(), pool.snapshot())
