"""Checkpoints of lanes after a kill between two lanes: what goes on, what begins anew, and what is said."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import struct

from experiments.record.lane_checkpoints import LaneCheckpoints, check_together
from experiments.train.loop import Run


@struct.dataclass
class Learner:
    """Of all rows, as the loop's."""

    weights: Any
    numbers: Any = None


@struct.dataclass
class Rollout:
    """Of all rows, as the loop's."""

    replay_state: Any
    scenes: Any


def a_run(step) -> Any:
    """Two lanes of two seeds each, that hold the step."""
    rows: Any = jnp.arange(4.0) + step
    learner: Any = Learner(rows)
    rollout: Any = Rollout({"frames": rows[:, None]}, rows + 0.5)
    return Run(step, learner, rollout)


def envs_at(step):
    """Their environments' snapshot."""
    return {"states": np.arange(4.0, dtype=np.float32) - step}


def begun(root):
    """The folders of two lanes that have their config and no checkpoint."""
    places = [root / name / "checkpoint" for name in ("tau=0.1", "tau=0.2")]
    for place in places:
        place.mkdir(parents=True)
        (place.parent / "config.json").write_text("{}")
    return places


def test_a_kill_while_the_first_checkpoints_are_written_begins_anew(tmp_path):
    places = begun(tmp_path)
    (places[0] / "25").mkdir()
    check_together(places)
    checkpoints = LaneCheckpoints(places)
    assert checkpoints.restore(a_run(0), envs_at(0)) is None
    assert [path.name for path in places[0].iterdir()] == ["25.unreadable"]
    checkpoints.save(a_run(25), envs_at(25))
    assert checkpoints.newest == 25
    checkpoints.close()


def test_lanes_with_other_steps_or_a_lane_that_is_new_are_refused(tmp_path):
    places = begun(tmp_path)
    (places[0] / "25").mkdir()
    (places[1].parent / "config.json").unlink()  # which a lane has from its beginning on
    with pytest.raises(ValueError, match=r"not trained together: tau=0.1 at step 25, tau=0.2 at none; take"):
        check_together(places)
    places = begun(tmp_path / "later")
    for step in ("25", "50"):
        (places[0] / step).mkdir()
    with pytest.raises(ValueError, match=r"tau=0.1 at step 50, tau=0.2 at none"):
        check_together(places)


def test_what_is_set_aside_is_told_with_its_lane(tmp_path):
    places = [tmp_path / name / "slices" / "0_of_2" / "checkpoint" for name in ("tau=0.1", "tau=0.2")]
    checkpoints = LaneCheckpoints(places)
    for step in (25, 50):
        checkpoints.save(a_run(step), envs_at(step))
    (places[1] / "50").rename(tmp_path / "lost")
    checkpoints.close()
    checkpoints = LaneCheckpoints(places)
    found = checkpoints.restore(a_run(0), envs_at(0))
    checkpoints.close()
    assert found is not None
    run, envs, told = found
    assert told == ["tau=0.1: checkpoint 50 cannot be used and was set aside as 50.unreadable (not all lanes have it)"]
    assert run.step == 25
    tiny.equal((run, envs), (a_run(25), envs_at(25)))
