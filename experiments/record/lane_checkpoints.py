"""Checkpoints of lanes: each has its own in its own folder, as a run has that trains alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from envs.pools.host import Snapshot
from envs.types import EnvState
from experiments.record.checkpoints import Checkpoints
from experiments.train.devices import host_memory, rows_of
from experiments.train.loop import Run


def check_together(folders: Sequence[Path]) -> None:
    """ValueError where lanes have checkpoints in these folders, but none of the same step.

    All begin anew, and nothing is said, where some have one of the same step and the others, which were begun, none:
    so a kill leaves them while their first checkpoints are written.
    """
    steps = [{int(path.name) for path in folder.glob("*") if path.name.isdigit()} for folder in folders]
    at_first = len(set.union(*steps)) == 1 and all((folder.parent / "config.json").exists() for folder in folders)
    if any(steps) and not set.intersection(*steps) and not at_first:
        told = ", ".join(
            f"{_lane(folder)} at step {max(each)}" if each else f"{_lane(folder)} at none"
            for folder, each in zip(folders, steps, strict=True)
        )
        raise ValueError(
            f"these lanes were not trained together: {told}; take the lanes that were, go on with each as a run of its "
            "own, or give --config.exp_id another name"
        )


def _lane(checkpoint: Path) -> str:
    """The name of a lane's folder, which may have one within for each slice of its seeds."""
    own = checkpoint.parent
    return own.parents[1].name if own.parent.name == "slices" else own.name


class LaneCheckpoints:
    """As `Checkpoints`, but for the rows of each lane, cut apart and put together again.

    Args:
        folders: where those of each lane lie, in the order of rows.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._each = [Checkpoints(folder) for folder in folders]
        self._folders = folders

    def save(self, run: Run, envs: Snapshot | EnvState) -> None:
        """As `Checkpoints.save`; a kill between two lanes leaves to all the one before."""
        for i, each in enumerate(self._each):
            part, part_envs = self._part(run, i), self._part(envs, i)
            each.save(Run(run.step, part.learner, part.rollout), part_envs)

    @property
    def _common(self) -> set[int]:
        return set.intersection(*(each.steps for each in self._each))

    @property
    def newest(self) -> int | None:
        """As `Checkpoints.newest`, of those that all lanes have."""
        return max(self._common, default=None)

    def restore(self, like: Run, envs: Snapshot | EnvState) -> tuple[Run, Any, list[str]] | None:
        """As `Checkpoints.restore`, of the newest step that all lanes have."""
        common, told = self._common, []
        while common:
            found = []
            for i, each in enumerate(self._each):
                part, part_envs = jax.tree.map(_placed, (self._part(like, i), self._part(envs, i)))
                found.append(each.restore(Run(0, part.learner, part.rollout), part_envs, common))
            for folder, (*_, sentences) in zip(self._folders, found, strict=True):
                told += [f"{_lane(folder)}: {sentence}" for sentence in sentences]
            steps = {run.step for run, _, _ in found}
            if len(steps) == 1:
                break
            common = {step for step in common if step <= min(steps)}
        else:  # after a kill while the first were written; `save` would take what is there for its own
            self._set_aside_after(-1)
            return None
        step = steps.pop()
        told += self._set_aside_after(step)
        runs, all_envs = zip(*[(run, own) for run, own, _ in found], strict=True)
        learner, rollout = (
            jax.tree.map(_together, *(getattr(run, name) for run in runs)) for name in ("learner", "rollout")
        )
        return Run(step, learner, rollout), jax.tree.map(_together, *all_envs), told

    def _set_aside_after(self, step: int) -> list[str]:
        """Take later checkpoints out of the way, which not all lanes have; a sentence for each."""
        return [
            f"{_lane(folder)}: {each.set_aside(later, 'not all lanes have it')}"
            for folder, each in zip(self._folders, self._each, strict=True)
            for later in sorted(each.steps)
            if later > step
        ]

    def _part(self, tree: PyTree, i: int) -> Any:
        """What belongs to a lane of all that leads with rows, or with the environments of rows."""
        return jax.tree.map(lambda leaf: _rows(leaf, i, len(self._each)), tree)

    def close(self) -> None:
        """Release what orbax holds."""
        for each in self._each:
            each.close()


def _rows(leaf: Any, i: int, lanes: int) -> Any:
    if not np.ndim(leaf):  # the phase of tasks that take turns, or the step of a run
        return leaf
    each = leaf.shape[0] // lanes
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct((each, *leaf.shape[1:]), leaf.dtype, sharding=leaf.sharding)
    if isinstance(leaf, jax.Array):
        return rows_of(leaf, i * each, (i + 1) * each)
    return leaf[i * each : (i + 1) * each]


def _placed(leaf: Any) -> Any:
    """A shape to be restored into one memory: a lane's rows may not be as many as there are devices."""
    if isinstance(leaf, jax.ShapeDtypeStruct) and leaf.sharding and len(leaf.sharding.device_set) > 1:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=jax.sharding.SingleDeviceSharding(host_memory()))
    return leaf


def _together(*leaves: Any) -> Any:
    if not np.ndim(leaves[0]):
        return leaves[0]
    return (np if isinstance(leaves[0], np.ndarray) else jnp).concatenate(leaves)
