"""Tiny environments whose values are known exactly; each leaves one thing that can be wrong with an agent.

After Andy Jones, "Debugging reinforcement learning systems" (2021). They run through the real loop, replay and all.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from agents.drq import DrQSettings, make_drq
from agents.encoder import Encoder, VisionSettings
from agents.networks import Critic
from agents.replay import make_replay
from agents.sac import SACSettings, make_sac
from agents.td3 import TD3Settings, make_td3
from agents.types import Agent
from agents.updates import Optimiser
from envs.pools.device import DevicePool
from envs.types import ArraySpec, DeviceEnv, EnvSpec, TimeStep
from experiments.train.loop import Run, make_advance, train_on_device
from experiments.train.schedule import Schedule
from experiments.train.step import make_steps

GAMMA, SIDE, ENVS = 0.5, 9, 2
SCHEDULE = Schedule(total=850, first_update=150, num_envs=ENVS)
RANDOM, HIDDEN = 600, (32, 32)  # agent steps of random actions; the last quarter is played by what was learned
VISION = VisionSettings(channels=4, strides=(2,), projection=8, shift_pad=1, conv="im2col")


class Probe(NamedTuple):
    """reward = constant + seen * sign - (action - best - best_seen * sign)^2 * effort, in the episode's last step only.

    `sign` is +-1 at random if `two_signs`, and what is seen beside the time. With `ends` off, episodes are truncated
    and start again as if nothing had been.
    """

    constant: Any = 0.0
    seen: Any = 0.0
    effort: Any = 0.0
    best: Any = 0.0
    best_seen: Any = 0.0
    two_signs: Any = False
    length: Any = 1
    ends: Any = True

    def reward(self, sign, action):
        return self.constant + self.seen * sign - self.effort * (action - self.best - self.best_seen * sign) ** 2


def picture(scene):
    """The sign is told by which half is bright, the time by how bright it is."""
    sign, episode_step = scene
    left = jnp.arange(SIDE) < SIDE // 2
    return jnp.where((sign < 0) == left, 250 - 120 * episode_step, 0)[None, :, None].repeat(SIDE, 0).astype(jnp.uint8)


def env_of(probe: Probe, pixels: bool) -> DeviceEnv:
    """A probe as an environment; a scene is the sign and the time."""

    def scene(sign, episode_step):
        return jnp.stack([sign, episode_step]).astype(jnp.float32)

    def reset(key):
        sign = jnp.where(probe.two_signs, jax.random.rademacher(key, (), jnp.int32), 1)
        return (sign, jnp.int32(0)), scene(sign, 0)

    def step(state, action, key):
        sign, episode_step = state
        over = episode_step + 1 == probe.length
        reward = jnp.where(over, probe.reward(sign, action[0]), 0.0)
        shown = jnp.where(
            over & probe.ends, 0, episode_step + 1 - over
        )  # where nothing ends, the same state comes again
        return (sign, episode_step + 1), TimeStep(scene(sign, shown), reward, over & probe.ends, over & ~probe.ends)

    observe = picture if pixels else lambda scene: scene
    spec = EnvSpec("probe", ArraySpec((2,), np.dtype(np.float32)), observe, 1, 1, 2, pixels)
    return DeviceEnv(spec, reset, step, lambda state: scene(*state), lambda scene, size: picture(scene))


@functools.cache
def agent_of(name: str, pixels: bool) -> Agent:
    shared: dict[str, Any] = dict(hidden=HIDDEN, tau=0.05, random_steps=RANDOM)
    image = (SIDE, SIDE, 1)

    def optimiser(inner, name, network, initialise, plastic):
        return Optimiser(optax.adam(3e-3))

    if name == "td3":
        return make_td3(TD3Settings(**shared), VISION if pixels else None, image if pixels else (2,), 1, optimiser)
    if name == "sac":  # of entropy hardly anything is worth a reward
        settings = SACSettings(**shared, learning_rate=3e-3, initial_temperature=0.01)
        return make_sac(settings, VISION if pixels else None, image if pixels else (2,), 1, optimiser)
    return make_drq(DrQSettings(**shared, std_initial=0.1), VISION, image, 1, optimiser)


def parts(name, pixels, probe):
    """The steps and the chunks of a run, with a replay that stores scenes."""
    env = env_of(probe, pixels)
    replay = make_replay(
        env.spec.scene, env.spec.observe, 1, capacity=2_000, stack=1, nstep=1, discount=GAMMA, num_envs=ENVS
    )
    steps = make_steps(
        agent_of(name, pixels),
        replay,
        env.spec,
        SCHEDULE,
        batch_size=32,
        frame_stack=1,
        how="map" if pixels else "vmap",
        measure=lambda *_: {},
    )
    return steps, make_advance(steps, SCHEDULE, env)


@functools.cache
def programs(name, pixels):
    """Of all probes: which one it is comes as an argument."""
    start = jax.jit(lambda probe, keys, scene: parts(name, pixels, probe)[0].init(keys, scene))
    chunk = jax.jit(lambda probe, *rest: parts(name, pixels, probe)[1](*rest), donate_argnums=(1, 2, 3))
    return start, chunk


def learned(name, pixels, **settings):
    """`values(sign, episode_step, actions)` and `policy(sign, episode_step)` after training on a probe."""
    probe = jax.tree.map(
        lambda given, default: np.asarray(given, np.asarray(default).dtype), Probe(**settings), Probe()
    )
    start, chunk = programs(name, pixels)
    pool, keys = DevicePool(env_of(probe, pixels), jax.random.split(jax.random.key(1), ENVS)), jax.random.key(0)[None]
    run = Run(0, *start(probe, keys, pool.reset()))
    run = train_on_device(
        functools.partial(chunk, probe), SCHEDULE, pool, keys, run, lambda run: run, lambda step: SCHEDULE.total
    )
    state = jax.tree.map(lambda leaf: leaf[0], run.learner.agent)

    def see(sign, episode_step):
        scene = jnp.array([sign, episode_step], jnp.float32)
        return picture(scene) if pixels else scene

    def policy(sign, episode_step=0):
        return float(greedy(name, pixels)(state, see(sign, episode_step))[0])

    def values(sign, episode_step, actions):
        obs = jnp.repeat(see(sign, episode_step)[None], len(actions), axis=0)
        return twins(pixels)(state, obs, jnp.asarray(actions, jnp.float32)[:, None])

    return values, policy


@functools.cache
def greedy(name, pixels):
    agent = agent_of(name, pixels)
    return jax.jit(lambda state, obs: agent.act(state, obs, jax.random.key(0), None))


@functools.cache
def twins(pixels):
    def apply(state, obs, actions):
        if pixels:
            obs = Encoder(VISION.channels, VISION.strides).apply({"params": state.encoder.params}, obs)
        critic = Critic(HIDDEN, VISION.projection if pixels else None)
        return critic.apply({"params": state.critic.params}, obs, actions)

    return jax.jit(apply)


close = functools.partial(np.testing.assert_allclose, rtol=0)
ANY = (-0.5, 0.0, 0.5)  # actions to look at
agents = pytest.mark.parametrize(
    ("name", "pixels"),
    [("drq", True), ("td3", False), pytest.param("sac", False, marks=pytest.mark.slow)],
    ids=["drq", "td3", "sac"],
)
all_agents = pytest.mark.parametrize(
    ("name", "pixels"),
    [
        pytest.param("drq", True, marks=pytest.mark.slow),
        ("td3", False),
        pytest.param("sac", False, marks=pytest.mark.slow),
        pytest.param("td3", True, marks=pytest.mark.slow),
        pytest.param("sac", True, marks=pytest.mark.slow),
    ],
    ids=["drq", "td3", "sac", "td3-pixels", "sac-pixels"],
)


@agents
def test_constant_reward_is_the_value(name, pixels):
    values, _ = learned(name, pixels, constant=1.0)
    close(values(1, 0, ANY), 1, atol=0.05)


@agents
def test_value_tells_what_is_seen(name, pixels):
    values, _ = learned(name, pixels, seen=1.0, two_signs=True)
    for sign in (-1, 1):
        close(values(sign, 0, ANY), sign, atol=0.05)


@agents
def test_reward_to_come_is_discounted(name, pixels):
    values, _ = learned(name, pixels, constant=1.0, length=2)
    close(values(1, 0, ANY), GAMMA, atol=0.05)
    close(values(1, 1, ANY), 1, atol=0.05)


@agents
def test_action_that_pays_is_found(name, pixels):
    values, policy = learned(name, pixels, effort=1.0, best=0.5)
    close(values(1, 0, ANY), [[-1, -0.25, 0]] * 2, atol=0.1)
    assert policy(1) == pytest.approx(0.5, abs=0.15)


@all_agents
def test_action_that_pays_depends_on_what_is_seen(name, pixels):
    values, policy = learned(name, pixels, effort=1.0, best_seen=0.5, two_signs=True)
    for sign in (-1, 1):
        close(values(sign, 0, ANY), [[-1, -0.25, 0][::sign]] * 2, atol=0.1)
        assert policy(sign) == pytest.approx(0.5 * sign, abs=0.15)


@all_agents
def test_episode_cut_short_is_worth_what_would_follow(name, pixels):
    values, _ = learned(name, pixels, constant=1.0, ends=False)
    close(values(1, 0, ANY), 1 / (1 - GAMMA), atol=0.1)
