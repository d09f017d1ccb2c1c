"""Tasks of the dm_control suite (Tassa et al. 2018, arXiv:1801.00690) as JAX functions over MJX physics.

Models come from the installed dm_control; starts, observations and rewards are written anew, and tested against it.
May import: envs.mjx.physics.
"""

from __future__ import annotations

import functools

from envs.mjx.physics import Domain, Physics, Task, load
from envs.mjx.tasks import acrobot, ball_in_cup, cartpole, cheetah, finger, hopper, pendulum, reacher, walker

DOMAINS: dict[str, Domain] = {
    "cartpole": cartpole.DOMAIN,
    "pendulum": pendulum.DOMAIN,
    "acrobot": acrobot.DOMAIN,
    "ball_in_cup": ball_in_cup.DOMAIN,
    "reacher": reacher.DOMAIN,
    "finger": finger.DOMAIN,
    "cheetah": cheetah.DOMAIN,
    "walker": walker.DOMAIN,
    "hopper": hopper.DOMAIN,
}
# name -> (domain, task)
TASKS: dict[str, tuple[str, str]] = {
    f"{domain}_{task}": (domain, task) for domain, entry in DOMAINS.items() for task in entry.tasks
}


@functools.cache
def load_task(name: str) -> tuple[Physics, Task]:
    """The model and the rules of one of `TASKS`; loads the model once per process."""
    domain, task = TASKS[name]
    entry = DOMAINS[domain]
    physics = load(domain, task, entry.untouched)
    return physics, entry.make(physics, task)
