"""From a config to the tasks that take turns during a run."""

from __future__ import annotations

from collections.abc import Sequence

from ml_collections import ConfigDict

from envs.physics_schedule import PhysicsSchedule, make_physics
from envs.relabel import RelabelSettings
from experiments.train.tasks import TaskSequence


def physics_of(config: ConfigDict) -> PhysicsSchedule:
    """The schedule of the physical parameters; of none where the environment has no such settings.

    Raises:
        ValueError: a setting that cannot be; the sentence names the key and the cure.
    """
    env = config.env
    return make_physics(env.get("physics"), env.get("physics_every", 0), env.get("physics_change", "switch"))


def make_tasks(config: ConfigDict) -> TaskSequence | None:
    """The tasks of a run; None where there is only one.

    Raises:
        ValueError: a setting that cannot be; the sentence names the key and the cure.
    """
    env = config.env
    names, physics = task_names(config), physics_of(config)
    key = "env.switch_every" if len(names) > 1 else "env.physics_every" if physics.length > 1 else "env.relabel.every"
    labels, every = _course(config, names, physics)
    if not labels:
        _anew(config, 0, 1, False)
        return None
    step_frames = env.action_repeat * env.num_envs
    last = (config.total_frames // step_frames - 1) * step_frames
    if not step_frames <= every <= last:
        raise ValueError(
            f"{key}={every} must be at least one step of all environments ({step_frames} frames) and end before the "
            f"run's last step, at total_frames={config.total_frames} frame {last}"
        )
    last_asked = max(config.total_frames, len(labels) * every)  # every task is evaluated, even one that never comes
    if physics.values and last_asked >= 2**31:
        raise ValueError(f"frame {last_asked} does not fit into the 32-bit clock of env.physics; lower {key}")
    different = tuple(dict.fromkeys(labels))
    order = tuple(map(different.index, labels))
    drift = len(names) == 1 and physics.change == "drift"
    anew = _anew(config, every, step_frames, drift)
    relabelled = relabelling(config).every > 0
    return TaskSequence(different, order, every, step_frames, last, drift, anew or relabelled, not relabelled)


def relabelling(config: ConfigDict) -> RelabelSettings:
    """The labels behind which the task is; those that change nothing where the config says nothing of them."""
    return RelabelSettings(**config.env.get("relabel", {}))


def task_names(config: ConfigDict) -> tuple[str, ...]:
    """The names of a run's tasks in turn; more than one where `env.sequence` says so."""
    return (config.env.name, *config.env.get("sequence", ()))


def _course(config: ConfigDict, names: Sequence[str], physics: PhysicsSchedule) -> tuple[list[str], int]:
    """The label of each phase until they repeat, and the frames of a phase; no labels where there is one task."""
    switch_every, relabel_every = config.env.get("switch_every", 0), relabelling(config).every
    others = {"env.sequence": len(names) > 1, "env.physics": physics.length > 1}
    if relabel_every and any(others.values()):
        other = next(name for name, used in others.items() if used)
        raise ValueError(f"env.relabel.every and {other} cannot both change the task; leave one of them as it was")
    if physics.length < 2 and (physics.every or physics.change == "drift"):
        key, value = ("every", physics.every) if physics.every else ("change", physics.change)
        raise ValueError(
            f"env.physics_{key}={value} changes nothing; give a parameter of env.physics two values or more, or leave "
            "it as it was"
        )
    if len(names) == 1:
        if switch_every:
            raise ValueError(
                f"env.switch_every={switch_every} has no tasks to switch to; name them in env.sequence, or set it to 0"
            )
        if relabel_every:
            return [f"labels {task}" for task in range(-(-config.total_frames // relabel_every))], relabel_every
        return [physics.label(place) for place in range(physics.length)] if physics.length > 1 else [], physics.every
    if physics.values:
        raise ValueError("env.sequence and env.physics cannot both change the task; leave one of them empty")
    for before, after in zip(names, (*names[1:], names[0]), strict=True):
        if before == after:
            raise ValueError(
                f"env.sequence has {after!r} twice in a row, counting env.name, which comes before its first task and "
                "after its last; leave one of them out"
            )
    return list(names), switch_every


def _anew(config: ConfigDict, every: int, step_frames: int, drift: bool) -> bool:
    """Whether anything begins anew at a switch.

    Raises:
        ValueError: nothing switches, or not between two steps, or no update would ever come.
    """
    chosen = {
        "replay.clear_on_switch": config.replay.clear_on_switch,
        "explore_on_switch": config.explore_on_switch,
        "fresh_on_switch": config.fresh_on_switch,
    }
    key = next((key for key, value in chosen.items() if value), "")
    if not key:
        return False
    if not every or drift:
        what = "tasks that pass into each other do not" if drift else "there is one task"
        raise ValueError(
            f"{key}=True is for tasks that take turns at once, and {what}; set it to False, or env.sequence, "
            "env.physics with env.physics_change=switch, or env.relabel.every"
        )
    if every % step_frames:
        raise ValueError(
            f"{key}=True needs tasks of whole steps of {step_frames} frames each, got {every} frames; take a multiple"
        )
    if config.replay.clear_on_switch and config.seed_frames >= every:
        raise ValueError(
            f"seed_frames={config.seed_frames} leaves no update of a task of {every} frames whose replay begins empty "
            "(replay.clear_on_switch); lower it"
        )
    return True
