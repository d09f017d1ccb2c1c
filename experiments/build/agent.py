"""From `config.agent` to an agent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict

from agents.actor_critic import Vision
from agents.drq import DrQConfig, make_drq
from agents.td3 import TD3Config, make_td3
from agents.types import Agent
from agents.updates import MakeOptimiser
from envs.types import EnvSpec
from experiments.build.optimisers import injected
from experiments.build.rules import METHODS, method_names, network_settings


def make_agent(config: ConfigDict, spec: EnvSpec, optimisers: MakeOptimiser) -> Agent:
    """The agent `config.agent.name` for an environment.

    Raises:
        ValueError: an unknown name, or a setting that is out of range or does not fit the environment.
    """
    if config.agent.name not in AGENTS:
        raise ValueError(f"agent.name must be one of {', '.join(AGENTS)}, got {config.agent.name!r}")
    return AGENTS[config.agent.name](config, spec, optimisers)


def _drq(config: ConfigDict, spec: EnvSpec, optimisers: MakeOptimiser) -> Agent:
    if not spec.pixels:
        raise ValueError("agent.name=drq learns from pixels; set --config.env.pixels=True, or take configs with td3")
    settings, vision = _settings(config, DrQConfig, pixels=True)
    height, width, channels = _obs_shape(config, spec)
    return make_drq(settings, vision, (height, width, channels), spec.action_dim, optimisers)


def _td3(config: ConfigDict, spec: EnvSpec, optimisers: MakeOptimiser) -> Agent:
    settings, vision = _settings(config, TD3Config, spec.pixels)
    agent = make_td3(settings, vision, _obs_shape(config, spec), spec.action_dim, optimisers)
    actor = network_settings(config, "actor")
    for name in method_names(actor):
        period = METHODS[name].period
        if period and actor[period] % settings.policy_delay:
            raise ValueError(
                f"plasticity.{period}={actor[period]} must be a multiple of agent.policy_delay="
                f"{settings.policy_delay}, for a round comes with an update of the actor"
            )
    return agent


AGENTS: dict[str, Callable[[ConfigDict, EnvSpec, MakeOptimiser], Agent]] = {"drq": _drq, "td3": _td3}


def _settings(config: ConfigDict, agent: Any, pixels: bool) -> tuple[Any, Any]:
    """The agent's own settings, and those of its encoder if it sees pixels: all keys of `config.agent`, no others."""
    given = {key: value for key, value in config.agent.items() if key not in ("name", "learning_rate")}
    parts = [agent, Vision] if pixels else [agent]
    wanted = {field for part in parts for field in part._fields if field not in ("im2col", "injectable")} | (
        {"conv"} if pixels else set()
    )
    if given.keys() != wanted:
        wrong = [f"lacks agent.{key}" for key in sorted(wanted - given.keys())]
        wrong += [f"has agent.{key}" for key in sorted(given.keys() - wanted)]
        seen = "pixels" if pixels else "states"
        raise ValueError(f"agent.name={config.agent.name} from {seen} needs another config; this {', '.join(wrong)}")
    conv = given.pop("conv", "auto")
    if conv not in ("auto", "xla", "im2col"):
        raise ValueError(f"agent.conv must be auto, xla or im2col, got {conv!r}")
    im2col = jax.default_backend() == "cpu" if conv == "auto" else conv == "im2col"
    own, seeing = ({key: given[key] for key in part._fields if key in given} for part in (agent, Vision))
    injectable = tuple(name for name in ("actor", "critic") if injected(network_settings(config, name)))
    return agent(**own, injectable=injectable), Vision(**seeing, im2col=im2col) if pixels else None


def _obs_shape(config: ConfigDict, spec: EnvSpec) -> tuple[int, ...]:
    """Shape of what an agent sees: observations are stacked along the last axis."""
    *others, last = jax.eval_shape(spec.observe, spec.scene).shape
    return (*others, last * config.env.frame_stack)
