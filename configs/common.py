"""What all configs share. Any key can be set on the command line: `--config.KEY=VALUE`; docs/settings.md lists them.

Each config file starts from `base`, adds an agent and an environment, and names its variants. What an agent's keys mean
is said in its file, agents/NAME.py; those of what sees pixels in agents/encoder.py.
"""

from collections.abc import Callable, Iterable
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from agents.drq import DrQSettings
from agents.encoder import VisionSettings
from agents.sac import SACSettings
from agents.td3 import TD3Settings
from envs.relabel import RelabelSettings
from experiments.build.default_settings import RunSettings
from experiments.build.methods import METHODS, signature_settings
from settings import Setting, settings_of


def base(exp_id: str) -> ConfigDict:
    """Everything but the agent and the environment; budgets are those of the full-size pixel job."""
    of_methods = [each for method in METHODS for each in signature_settings(method)]
    config = defaults([*settings_of(RunSettings), *of_methods])
    config.exp_id = exp_id
    return config


def defaults(settings: Iterable[Setting]) -> ConfigDict:
    """Settings at their defaults, in groups by their keys; one that may be unset is a placeholder of its type."""
    config = ConfigDict()
    for each in settings:
        *groups, name = each.key.split(".")
        place = config
        for group in groups:
            if group not in place:
                place[group] = ConfigDict()
            place = place[group]
        place[name] = placeholder(each.type) if each.default is None else each.default
    return config


def drq() -> ConfigDict:
    """DrQ-v2's published settings for tasks of medium difficulty."""
    return agent("drq", DrQSettings, pixels=True)


def td3(pixels: bool = False) -> ConfigDict:
    """TD3's published settings for MuJoCo; from pixels with DrQ-v2's encoder."""
    return agent("td3", TD3Settings, pixels)


def sac(pixels: bool = False) -> ConfigDict:
    """SAC's published settings for MuJoCo; from pixels with DrQ-v2's encoder."""
    return agent("sac", SACSettings, pixels)


def agent(name: str, settings: type, pixels: bool) -> ConfigDict:
    """An agent with its default settings, and those of DrQ-v2's encoder and augmentation if it sees pixels."""
    config = defaults(each for part in (settings, VisionSettings)[: 1 + pixels] for each in settings_of(part))
    config.name = name
    return config


def continual(physics: bool = False) -> ConfigDict:
    """Settings of an environment that changes during a run; as they are here, nothing changes."""
    env = ConfigDict()
    env.sequence = ()  # tasks that come after env.name, in turn, and then env.name again: ("Ant-v5", "Hopper-v5")
    env.switch_every = 0  # frames until the next of them
    env.relabel = defaults(settings_of(RelabelSettings))  # or the same task behind other labels, on the device
    if physics:
        # Parameters of the task, each with the values that it takes in turn, as many of each, such as m=(1.0, 2.0); a
        # single value stays, and () is the task's own. A config file may add others of gymnax's EnvParams. What a
        # picture shows does not change with them: from pixels, a longer pendulum looks like any other.
        env.physics = ConfigDict()
        for name in ("g", "m", "l", "max_torque", "max_speed", "dt"):  # Pendulum-v1; Reacher-misc and Swimmer-misc: dt
            env.physics[name] = ()
        for name in ("power", "gravity", "torque_scale", "max_force"):  # the car's two, Reacher-misc, PointRobot-misc
            env.physics[name] = ()
        env.physics_every = 0  # frames until the next value; after the last one comes the first again
        env.physics_change = "switch"  # at once, or drift: evenly from one value to the next
    return env


def with_variant(config: ConfigDict, file: str, variant: str, variants: dict[str, Callable[[], dict[str, Any]]]) -> Any:
    """`config` with the changes of one of its `variants`, which follows the file name and a colon; none if empty."""
    if variant and variant not in variants:
        known = ", ".join(f":{name}" for name in variants)
        raise ValueError(f"configs/{file}.py has no variant {variant!r}; take {known} or none")
    if variant:
        config.update(variants[variant]())
    return config
