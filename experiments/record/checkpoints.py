"""Checkpoints that resume exactly, by orbax."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import Bool, Int

from envs.pools.host import Snapshot
from envs.types import EnvState
from experiments.build.processes import anywhere, is_first, meeting, wait_for_all
from experiments.record.global_arrays import of_all, of_this, shapes_of_all
from experiments.record.sums import check_sums, first_line, write_sums
from experiments.train.loop import Run
from experiments.train.state import RolloutState

LARGEST = 2**28
"""Entries of a leaf that `read_births` reads: a damaged file may claim any shape."""


class Births(NamedTuple):
    """Of a sparse layer, of the first seed: which weights exist, and the network's updates when each was last born."""

    exists: Bool[np.ndarray, "..."]
    born: Int[np.ndarray, "..."]
    updates: int
    """That the network has had."""


class Checkpoints:
    """The newest checkpoints of a run: learners, rollouts and environments, with the replay as an item of its own.

    Args:
        folder: where they lie; made if absent.
        keep: how many are kept. At least two, so that a corrupt newest one does not lose the run.

    Raises:
        ValueError: there are checkpoints, and orbax can list none of them.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False)
        self._folder = folder.absolute()
        lost = _unlistable(self._folder)
        wait_for_all()
        if lost and len(lost) == sum(each.name.isdigit() for each in self._folder.iterdir()):
            raise ValueError(_none_readable(self._folder, f"the metadata of {lost[-1]} is damaged"))
        self._lost = [(step, self._rename(step)) for step in lost]
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def save(self, run: Run, envs: Snapshot | EnvState) -> None:
        """Write a checkpoint of `run`; a kill in the middle leaves the one before it untouched."""
        if run.step in self._manager.all_steps():
            return
        (replay, rest), envs = of_all((_split(run), envs))
        items = {name: ocp.args.StandardSave(tree) for name, tree in (("replay", replay), ("state", rest))}
        with meeting():
            self._manager.save(run.step, args=ocp.args.Composite(**items, envs=ocp.args.StandardSave(envs)))
            self._manager.wait_until_finished()
        if is_first():
            write_sums(self._folder / str(run.step))

    @property
    def newest(self) -> int | None:
        """The step of the newest checkpoint; None where there is none."""
        return self._manager.latest_step()

    @property
    def steps(self) -> set[int]:
        """Those of all checkpoints."""
        return set(self._manager.all_steps())

    def restore(
        self, like: Run, envs: Snapshot | EnvState, steps: Collection[int] | None = None
    ) -> tuple[Run, Any, list[str]] | None:
        """The newest checkpoint that can be read, or None if there are none at all.

        Args:
            like: a run of the same shapes, which is not kept.
            envs: a snapshot of the same shapes.
            steps: one of these; None: any.

        Returns:
            The run, its environments' snapshot, and one sentence for each newer checkpoint that could not be read.

        Raises:
            ValueError: there are checkpoints, and none can be read.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _split(like))
        replay, rest = shapes_of_all(abstract)
        items = {name: ocp.args.StandardRestore(tree) for name, tree in (("replay", replay), ("state", rest))}
        items["envs"] = ocp.args.StandardRestore(shapes_of_all(envs))
        failures = []
        for step in sorted(self.steps if steps is None else steps, reverse=True):
            found, why = _attempt(partial(self._check, step))
            if not why:
                found, why = _attempt(partial(self._manager.restore, step, args=ocp.args.Composite(**items)))
            if why:
                failures.append((step, why))
                continue
            (learner, rollout), replay = (
                of_this(found[name], part) for name, part in (("state", abstract[1]), ("replay", abstract[0]))
            )
            rollout = replace(rollout, replay_state=replay)
            sentences = [_aside(step, name, "its metadata is damaged") for step, name in self._lost]
            sentences += [self.set_aside(*failure) for failure in failures]
            run = Run(step, replace(like.learner, **learner, numbers=None), rollout)
            return run, of_this(found["envs"], envs), sentences
        if failures:
            raise ValueError(_none_readable(self._folder, failures[0][1]))
        return None

    def _check(self, step: int) -> None:
        if is_first():  # for all, since it takes reading every byte
            check_sums(self._folder / str(step))

    def set_aside(self, step: int, reason: str) -> str:
        """Take a checkpoint that cannot be used out of the way of later ones; nothing is deleted."""
        name = self._rename(step)
        self._manager.reload()
        return _aside(step, name, reason)

    def _rename(self, step: int) -> str:
        aside = self._folder / f"{step}.unreadable"
        while aside.exists():
            aside = aside.with_name(aside.name + "+")
        wait_for_all()
        if is_first():
            (self._folder / str(step)).rename(aside)
        wait_for_all()
        return aside.name

    def close(self) -> None:
        """Release what orbax holds."""
        self._manager.close()


def _attempt(read: Callable[[], Any]) -> tuple[Any, str]:
    """What `read` gives, and why it cannot, for all processes if for one; else ""."""
    found, why = None, ""
    try:
        found = read()
    except (MemoryError, PermissionError):
        raise
    # Anything else can come out of a damaged file; it is reported, and the next older one is tried.
    except Exception as error:
        why = first_line(error)
    return found, (why or "another process cannot read it") if anywhere(bool(why)) else ""


def _aside(step: int, name: str, reason: str) -> str:
    return f"checkpoint {step} cannot be used and was set aside as {name} ({reason})"


def _none_readable(folder: Path, reason: str) -> str:
    return (
        f"no checkpoint in {folder} can be read ({reason}); go back to the code that wrote them "
        "(versions.json names its commit), or give --config.exp_id another name"
    )


def _unlistable(folder: Path) -> list[int]:
    """Checkpoints whose metadata is nested so deeply that orbax raises as it lists them; it bears all other damage."""
    found = []
    for each in sorted(folder.glob("*/_CHECKPOINT_METADATA")):
        if each.parent.name.isdigit():
            try:
                json.loads(each.read_bytes())
            except RecursionError:
                found.append(int(each.parent.name))
            except (OSError, ValueError):
                pass
    return found


def read_births(folder: Path) -> tuple[int, dict[str, Births]]:
    """The step of the newest checkpoint and its sparse layers by network and path, read without the rest of it.

    Args:
        folder: that of the checkpoints. Nothing is changed in it.

    Raises:
        FileNotFoundError: there is none, or it went away for a newer one.
        ValueError: it cannot be read.
    """
    steps = [int(path.name) for path in folder.glob("*") if path.name.isdigit() and (path / "state").is_dir()]
    if not steps:
        raise FileNotFoundError(f"{folder} holds no checkpoint yet")
    place = folder.absolute() / str(max(steps)) / "state"
    try:
        check_sums(place.parent, "state/")
        with ocp.PyTreeCheckpointer() as checkpointer:
            tree = checkpointer.metadata(place).item_metadata.tree
            wanted = jax.tree_util.tree_map_with_path(_if_of_births, tree, is_leaf=_has_shape)
            how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
            found = checkpointer.restore(place, args=ocp.args.PyTreeRestore(item=wanted, restore_args=how))
        parts = {name: part for name, part in found[0]["agent"].items() if isinstance(part, dict)}
        networks = {name: part["opt_state"] for name, part in parts.items() if isinstance(part.get("opt_state"), dict)}
        layers = {}
        for name, state in networks.items():
            for path, mask in state.get("masks", {}).items():
                for births in [each[path] for each in (state.get("births") or {}).values() if path in each][:1]:
                    layers[f"{name}/{path}"] = Births(mask[0], births[0], int(state["count"][0]))
    except (MemoryError, PermissionError):
        raise
    # Anything else can come out of a damaged file, or one that a newer checkpoint has just replaced.
    except Exception as error:
        raise ValueError(f"the checkpoint {place.parent} cannot be read ({first_line(error)})") from error
    return max(steps), layers


def _if_of_births(path: Sequence[Any], leaf: Any) -> Any:
    """The leaf's shape where it is part of masks, births or the count of updates; else a mark to leave it unread."""
    keys = [getattr(key, "key", getattr(key, "name", None)) for key in path]
    after = keys[keys.index("opt_state") + 1 :][:1] if "opt_state" in keys else []
    if after not in (["masks"], ["births"], ["count"]) or not _has_shape(leaf) or math.prod(leaf.shape) > LARGEST:
        return ocp.PLACEHOLDER
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _has_shape(node: Any) -> bool:
    return hasattr(node, "shape")


def _split(run: Run) -> tuple[Any, tuple[Any, RolloutState]]:
    learner = {name: part for name, part in vars(run.learner).items() if name != "numbers"}  # which the config says
    return run.rollout.replay_state, (learner, replace(run.rollout, replay_state=None))
