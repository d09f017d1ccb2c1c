"""From `config.agent` to an agent. A new agent takes its file in agents/, a line of `AGENTS`, and a config."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from agents.drq import DrQSettings, make_drq
from agents.encoder import VisionSettings
from agents.networks import ActorCriticSettings
from agents.sac import SACSettings, make_sac
from agents.td3 import TD3Settings, make_td3
from agents.types import Agent
from agents.updates import MakeOptimiser
from envs.types import EnvSpec
from experiments.build.methods import METHODS, method_names, network_settings
from experiments.build.optimisers import injected
from settings import settings_of


class Kind(NamedTuple):
    """An agent by name: its settings, which are keys of `config.agent`, its maker, and whether it learns from states.

    `make(settings, vision, obs_shape, action_dim, make_optimiser, injectable)`; vision is None for states.
    """

    settings: type[ActorCriticSettings]
    make: Callable[..., Agent]
    from_states: bool = True


AGENTS = {
    "drq": Kind(DrQSettings, make_drq, from_states=False),
    "td3": Kind(TD3Settings, make_td3),
    "sac": Kind(SACSettings, make_sac),
}


def make_agent(config: ConfigDict, spec: EnvSpec, optimisers: MakeOptimiser) -> Agent:
    """The agent `config.agent.name` for an environment.

    Raises:
        ValueError: an unknown name, or a setting that is out of range or does not fit the environment.
    """
    name = config.agent.name
    if name not in AGENTS:
        raise ValueError(f"agent.name must be one of {', '.join(AGENTS)}, got {name!r}")
    kind = AGENTS[name]
    if not (spec.pixels or kind.from_states):
        raise ValueError(
            f"agent.name={name} learns from pixels; set --config.env.pixels=True, or take configs with td3 or sac"
        )
    _check_keys(config, kind, spec.pixels)
    settings = kind.settings(**_given(config, kind.settings))
    vision = VisionSettings(**_given(config, VisionSettings)) if spec.pixels else None
    injectable = tuple(each for each in ("actor", "critic") if injected(network_settings(config, each)))
    agent = kind.make(settings, vision, _obs_shape(config, spec), spec.action_dim, optimisers, injectable)
    _check_periods(config, getattr(settings, "policy_delay", 1))
    return agent


def _given(config: ConfigDict, part: type) -> dict[str, Any]:
    """The values that `config.agent` has for a part's settings."""
    return {setting.key: config.agent[setting.key] for setting in settings_of(part)}


def _check_keys(config: ConfigDict, kind: Kind, pixels: bool) -> None:
    """ValueError unless `config.agent` has the agent's settings, those of vision if it sees pixels, and no others."""
    parts = (kind.settings, VisionSettings) if pixels else (kind.settings,)
    wanted = {setting.key for part in parts for setting in settings_of(part)}
    given = set(config.agent) - {"name"}
    if given != wanted:
        wrong = [f"lacks agent.{key}" for key in sorted(wanted - given)]
        wrong += [f"has agent.{key}" for key in sorted(given - wanted)]
        seen = "pixels" if pixels else "states"
        raise ValueError(f"agent.name={config.agent.name} from {seen} needs another config; this {', '.join(wrong)}")


def _check_periods(config: ConfigDict, policy_delay: int) -> None:
    """ValueError for a round of the actor that would fall between two of its updates."""
    actor = network_settings(config, "actor")
    for name in method_names(actor):
        period = METHODS[name].period
        if isinstance(period, str) and actor[period] % policy_delay:
            raise ValueError(
                f"plasticity.{period}={actor[period]} must be a multiple of agent.policy_delay={policy_delay}, "
                "for a round comes with an update of the actor"
            )


def _obs_shape(config: ConfigDict, spec: EnvSpec) -> tuple[int, ...]:
    """Shape of what an agent sees: observations are stacked along the last axis."""
    *others, last = jax.eval_shape(spec.observe, spec.scene).shape
    return (*others, last * config.env.frame_stack)
