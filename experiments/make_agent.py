"""From `config.agent` to an agent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict

from agents.actor_critic import Vision
from agents.drq import DrQConfig, make_drq
from agents.learn import MakeOptimiser
from agents.td3 import TD3Config, make_td3
from agents.types import Agent
from envs.types import EnvSpec


def make_agent(config: ConfigDict, spec: EnvSpec, optimisers: MakeOptimiser) -> Agent:
    """The agent `config.agent.name` for an environment.

    Raises:
        ValueError: an unknown name, or a setting that is out of range or does not fit the environment.
    """
    if config.agent.name not in AGENTS:
        raise ValueError(f"agent.name must be one of {', '.join(AGENTS)}, got {config.agent.name!r}")
    return AGENTS[config.agent.name](config, spec, optimisers)


def _drq(config: ConfigDict, spec: EnvSpec, optimisers: MakeOptimiser) -> Agent:
    vision = _vision(config, spec)
    if vision is None:
        raise ValueError("agent.name=drq learns from pixels; set --config.env.pixels=True, or take configs with td3")
    height, width, channels = _obs_shape(config, spec)
    return make_drq(
        DrQConfig(**_known(config, DrQConfig)), vision, (height, width, channels), spec.action_dim, optimisers
    )


def _td3(config: ConfigDict, spec: EnvSpec, optimisers: MakeOptimiser) -> Agent:
    settings = TD3Config(**_known(config, TD3Config))
    agent = make_td3(settings, _vision(config, spec), _obs_shape(config, spec), spec.action_dim, optimisers)
    if config.plasticity.method != "none" and config.plasticity.every % settings.policy_delay:
        raise ValueError(
            f"plasticity.every={config.plasticity.every} must be a multiple of agent.policy_delay="
            f"{settings.policy_delay}, for a round comes with an update of the actor"
        )
    return agent


AGENTS: dict[str, Callable[[ConfigDict, EnvSpec, MakeOptimiser], Agent]] = {"drq": _drq, "td3": _td3}


def _vision(config: ConfigDict, spec: EnvSpec) -> Vision | None:
    if not spec.pixels:
        return None
    if "conv" not in config.agent:
        raise ValueError("env.pixels=True needs the settings of an encoder; take a config that ends in _pixels.py")
    if config.agent.conv not in ("auto", "xla", "im2col"):
        raise ValueError(f"agent.conv must be auto, xla or im2col, got {config.agent.conv!r}")
    im2col = jax.default_backend() == "cpu" if config.agent.conv == "auto" else config.agent.conv == "im2col"
    return Vision(**_known(config, Vision), im2col=im2col)


def _known(config: ConfigDict, settings: Any) -> dict[str, Any]:
    return {key: value for key, value in config.agent.items() if key in settings._fields}


def _obs_shape(config: ConfigDict, spec: EnvSpec) -> tuple[int, ...]:
    """Shape of what an agent sees: observations are stacked along the last axis."""
    *others, last = jax.eval_shape(spec.observe, spec.scene).shape
    return (*others, last * config.env.frame_stack)
