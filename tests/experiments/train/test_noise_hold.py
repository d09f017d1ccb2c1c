"""Exploration noise that stays for some steps, a function of seed and step alone."""

from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from agents.types import Agent
from experiments.train.schedule import Schedule
from experiments.train.step import act


def noise(hold, num_envs, steps=12):
    """[step, environment] of the first steps."""
    unused: Any = None
    agent = Agent(unused, lambda state, obs, key, step: jax.random.normal(key, (1,)), *[unused] * 3, noise_hold=hold)
    schedule = Schedule(100, 5, num_envs=num_envs)
    parts: Any = SimpleNamespace(agent=agent, schedule=schedule, forget=None)
    rollout: Any = SimpleNamespace(obs=np.zeros((num_envs, 1, 2)))
    learner: Any = SimpleNamespace(agent=None)
    key = jax.random.key(3)
    return np.array([act(parts, learner, rollout, key, schedule.at(step)).action[:, 0] for step in range(steps)])


@pytest.mark.parametrize("num_envs", [1, 2])
@pytest.mark.parametrize("hold", [1, 3])
def test_noise_stays_for_so_many_steps_in_each_environment(hold, num_envs):
    found = noise(hold, num_envs)
    blocks = found.reshape(-1, hold, num_envs)
    assert (blocks == blocks[:, :1]).all()
    assert len(np.unique(blocks[:, 0])) == blocks[:, 0].size, "each block, and each environment, has its own"


def test_one_step_is_the_noise_of_each_step():
    assert (noise(3, 2)[::3] == noise(1, 2)[::3]).all()
