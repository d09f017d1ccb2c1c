"""Settings that belong together: `plasticity.preset`, and `preset`, those that a task has of its own.

docs/method.md says what they stand for.
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "plasticity.method": "ne",
        "plasticity.initial_sparsity": 0.8,
        "plasticity.schedule": "cosine",
        "plasticity.growth_rate": 0.0,
        "plasticity.grow": "gradient",
        "plasticity.prune": "dormant",
        "plasticity.tau": 0.0,
        "plasticity.after": "fixed",
        "review.mode": "slope",
    },
    "released": {
        "plasticity.method": "ne",
        "plasticity.initial_sparsity": 0.8,
        "plasticity.final_sparsity": 0.25,
        "plasticity.distribution": "erdos_renyi",
        "plasticity.first_masks": "largest",
        "plasticity.schedule": "linear",
        "plasticity.growth_rate": 0.008,
        "plasticity.every": 100,
        "plasticity.grad_accumulation": 1,
        "plasticity.grow": "gradient",
        "plasticity.prune": "magnitude",
        "plasticity.omega": 0.4,
        "plasticity.birth": "zero",
        "plasticity.revive": "none",
        "plasticity.after": "rewire",
        "plasticity.rewire_fraction": 0.2,
        "plasticity.rewire_until": 1.0,
        "review.auto_batch": True,
        "review.every": 1,
    },
}


def apply_preset(config: ConfigDict, given: dict[str, Any]) -> None:
    """Set in `config` what `plasticity.preset` stands for. It wins over the config file, not over the command line.

    Args:
        given: the keys that the command line sets, dotted, with their values.

    Raises:
        ValueError: there is no such preset, or the command line says something else for one of its keys.
    """
    name = config.plasticity.preset
    if not name:
        return
    if name not in PRESETS:
        raise ValueError(f"plasticity.preset must be {' or '.join(PRESETS)}, or empty for none; got {name!r}")
    for key, value in PRESETS[name].items():
        if given.get(key, value) != value:
            raise ValueError(
                f"plasticity.preset={name} stands for {key}={value}, and the command line says {given[key]}; "
                "drop one of the two"
            )
    config.update_from_flattened_dict(PRESETS[name])


def _drqv2() -> dict[str, dict[str, Any]]:
    """DrQ-v2's settings for each task: its `cfgs/config.yaml` and `cfgs/task/*.yaml`, by dm_control's names."""
    levels = {
        "easy": (1_100_000, 100_000),
        "medium": (3_100_000, 500_000),
        "hard": (30_100_000, 2_000_000),
    }
    tasks = {
        "easy": "ball_in_cup_catch cartpole_balance cartpole_balance_sparse cartpole_swingup finger_spin hopper_stand "
        "pendulum_swingup walker_stand walker_walk",
        "medium": "acrobot_swingup cartpole_swingup_sparse cheetah_run finger_turn_easy finger_turn_hard hopper_hop "
        "quadruped_run quadruped_walk reacher_easy reacher_hard walker_run",
        "hard": "humanoid_run humanoid_stand humanoid_walk",
    }
    found = {}
    for level, (frames, std_steps) in levels.items():
        common = {"total_frames": frames, "agent.std_steps": std_steps, "replay.capacity": 1_000_000}
        found |= {task: dict(common) for task in tasks[level].split()}
    found["quadruped_run"]["replay.capacity"] = 100_000
    for task, settings in found.items():
        if task.startswith("walker"):
            settings |= {"replay.nstep": 1, "batch_size": 512}
        if task.startswith("humanoid"):
            settings |= {"agent.learning_rate": 8e-5, "agent.projection": 100}
    return found


def _small() -> dict[str, dict[str, Any]]:
    """For pictures of some 40 pixels. In the cart-pole's usual one the pole is two pixels wide and ten long, and the
    cart wanders; in that of the model's second camera, `lookatcart`, it is three by eighteen, in the middle."""
    tasks = ["balance", "balance_sparse", "swingup", "swingup_sparse", "two_poles", "three_poles"]
    return {f"cartpole_{task}": {"env.camera_id": 1} for task in tasks}


OF_TASKS: dict[str, dict[str, dict[str, Any]]] = {"drqv2": _drqv2(), "small": _small()}
"""{preset: {task: {key: value}}}; what is the same for all tasks stands in the config files."""


def apply_task(config: ConfigDict, given: dict[str, Any]) -> str:
    """Set in `config` what `preset` stands for with the task that it has; the command line wins over it.

    Args:
        given: the keys that the command line sets, dotted, with their values.

    Returns:
        A sentence for the user where nothing was published for the task, else nothing.

    Raises:
        ValueError: there is no such preset.
    """
    if not config.preset:
        return ""
    if config.preset not in OF_TASKS:
        raise ValueError(f"preset must be {' or '.join(OF_TASKS)}, or empty for none; got {config.preset!r}")
    own = OF_TASKS[config.preset].get(config.env.name)
    if own is None and config.preset == "drqv2":
        return f"drqv2 published nothing for {config.env.name}: its settings are those of the config file"
    config.update_from_flattened_dict({key: value for key, value in (own or {}).items() if key not in given})
    return ""
