"""From a config to what learns: agent, replay, review. In a program with lanes it is made anew for each row."""

from __future__ import annotations

import jax
from ml_collections import ConfigDict

from agents.replay import make_replay
from envs.types import EnvSpec
from experiments.build.agent import make_agent
from experiments.build.optimisers import make_optimisers, plain_optimiser
from experiments.build.replay import make_vary
from experiments.train.experience import Dynamic
from experiments.train.parts import Learning
from experiments.train.schedule import Schedule
from ne_jax import make_review


def make_learning(config: ConfigDict, spec: EnvSpec, schedule: Schedule) -> Learning:
    """What learns from what, in which are the numbers that lanes may differ in.

    Raises:
        ValueError: a setting cannot be.
    """
    dynamic, keep_frames = config.replay.dynamic, config.replay.store == "frame"
    return Learning(
        agent=make_agent(config, spec, make_optimisers(config, schedule.lifetime)),
        review=make_review(**config.review),
        replay=make_replay(
            jax.eval_shape(spec.observe, spec.scene) if keep_frames else spec.scene,
            (lambda frame: frame) if keep_frames else spec.observe,
            spec.action_dim,
            capacity=config.replay.capacity,
            stack=config.env.frame_stack,
            nstep=config.replay.nstep,
            discount=config.replay.discount,
            num_envs=config.env.num_envs,
            reward_scale=config.replay.reward_scale,
            vary=make_vary(config, spec, config.replay.store),
            dynamic=dynamic.on,
        ),
        dynamic=Dynamic(dynamic.min_size, dynamic.threshold) if dynamic.on else None,
        fresh=make_agent(config, spec, plain_optimiser) if config.capacity_probe else None,
    )
