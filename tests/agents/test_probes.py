"""Tiny environments whose values are known exactly; each leaves one thing that can be wrong with an agent.

After Andy Jones, "Debugging reinforcement learning systems" (2021). Pixels go through the real replay.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from agents.drq import DrQConfig, make_drq
from agents.learn import Optimiser
from agents.networks import Critic, Encoder
from agents.replay import Entry, make_replay
from agents.types import Step

GAMMA, SIDE, SCENES, UPDATES = 0.5, 9, 300, 700
CONFIG = DrQConfig(
    channels=4, strides=(2, 1), projection=8, hidden=(32, 32), tau=0.05, std_initial=0.1, shift_pad=1, im2col=True
)


class Probe(NamedTuple):
    """reward = constant + seen * sign - (action - best - best_seen * sign)^2 * effort, in the episode's last step only.

    `sign` is +-1 at random if `two_signs`, and what the picture shows beside the time. With `ends` off, episodes are
    truncated and start again as if nothing had been.
    """

    constant: float = 0.0
    seen: float = 0.0
    effort: float = 0.0
    best: float = 0.0
    best_seen: float = 0.0
    two_signs: bool = False
    length: int = 1
    ends: bool = True

    def reward(self, sign, action):
        return self.constant + self.seen * sign - self.effort * (action - self.best - self.best_seen * sign) ** 2


def picture(sign, age):
    """The sign is told by which half is bright, the time by how bright it is."""
    left = jnp.arange(SIDE) < SIDE // 2
    bright = 250 - 120 * age
    return jnp.where((sign < 0) == left, bright, 0)[None, :, None].repeat(SIDE, 0).astype(jnp.uint8)


REPLAY = make_replay(
    jax.ShapeDtypeStruct((SIDE, SIDE, 1), jnp.uint8),
    lambda scene: scene,
    1,
    capacity=SCENES,
    stack=1,
    nstep=1,
    discount=GAMMA,
)
AGENT = make_drq(CONFIG, (SIDE, SIDE, 1), 1, lambda name, network: Optimiser(optax.adam(3e-3)))


@jax.jit
def train(probe, state, key):
    """Fill the ring with random actions, then learn from it."""
    play_key, learn_key = jax.random.split(key)

    def play(carry, key):
        ring, sign, age = carry
        action_key, sign_key = jax.random.split(key)
        action = jax.random.uniform(action_key, (1,), minval=-1, maxval=1)
        over = age + 1 == probe.length
        reward = jnp.where(over, probe.reward(sign, action[0]), 0.0)
        shown = jnp.where(over & probe.ends, 0, age + 1 - over)  # where nothing ends, the same state comes again
        ring = REPLAY.add(ring, Entry(picture(sign, shown), action, reward, over & probe.ends, age + 1), True)
        sign = jnp.where(over, new_sign(sign_key), sign)
        return (REPLAY.add(ring, first(sign), over), sign, jnp.where(over, 0, age + 1)), None

    def new_sign(key):
        return jnp.where(probe.two_signs, jax.random.rademacher(key, (), jnp.int32), 1)

    def learn(state, numbered):
        number, key = numbered
        sample_key, update_key = jax.random.split(key)
        batch = REPLAY.sample(ring, sample_key, 32)
        return AGENT.update(state, batch, update_key, Step(number, number))[0], None

    def first(sign):
        return Entry(picture(sign, 0), jnp.zeros(1), jnp.zeros(()), jnp.array(False), jnp.int32(0))

    start = (REPLAY.add(REPLAY.init(), first(1), True), jnp.int32(1), jnp.int32(0))
    (ring, *_), _ = jax.lax.scan(play, start, jax.random.split(play_key, SCENES))
    keys = jax.random.split(learn_key, UPDATES)
    state, _ = jax.lax.scan(learn, state, (jnp.arange(UPDATES), keys))
    return state


@functools.cache
def fresh():
    return jax.jit(AGENT.init, compiler_options={"xla_backend_optimization_level": 0})(jax.random.key(0))


def learned(**probe):
    """`values(signs, ages, actions)` and `policy(sign, age)` after training on a probe."""
    typed = jax.tree.map(lambda given, default: np.asarray(given, np.asarray(default).dtype), Probe(**probe), Probe())
    state = train(typed, fresh(), jax.random.key(0))

    @functools.cache
    def policy(sign, age=0):
        return float(greedy(state, picture(sign, age))[0])

    def values(sign, age, actions):
        frames = jnp.repeat(picture(sign, age)[None], len(actions), axis=0)
        return twins(state, frames, jnp.asarray(actions, jnp.float32)[:, None])

    return values, policy


@jax.jit
def greedy(state, obs):
    return AGENT.act(state, obs, jax.random.key(0), None)


@jax.jit
def twins(state, frames, actions):
    features = Encoder(CONFIG.channels, CONFIG.strides).apply({"params": state.encoder.params}, frames)
    critic = Critic(CONFIG.hidden, CONFIG.projection)
    return critic.apply({"params": state.critic.params}, features, actions)


close = functools.partial(np.testing.assert_allclose, rtol=0)
ANY = (-0.5, 0.0, 0.5)  # actions to look at


def test_constant_reward_is_the_value():
    values, _ = learned(constant=1.0)
    close(values(1, 0, ANY), 1, atol=0.05)


def test_value_tells_what_is_seen():
    values, _ = learned(seen=1.0, two_signs=True)
    for sign in (-1, 1):
        close(values(sign, 0, ANY), sign, atol=0.05)


def test_reward_to_come_is_discounted():
    values, _ = learned(constant=1.0, length=2)
    close(values(1, 0, ANY), GAMMA, atol=0.05)
    close(values(1, 1, ANY), 1, atol=0.05)


def test_action_that_pays_is_found():
    values, policy = learned(effort=1.0, best=0.5)
    close(values(1, 0, ANY), [[-1, -0.25, 0]] * 2, atol=0.1)
    assert policy(1) == pytest.approx(0.5, abs=0.15)


def test_action_that_pays_depends_on_what_is_seen():
    values, policy = learned(effort=1.0, best_seen=0.5, two_signs=True)
    for sign in (-1, 1):
        close(values(sign, 0, ANY), [[-1, -0.25, 0][::sign]] * 2, atol=0.1)
        assert policy(sign) == pytest.approx(0.5 * sign, abs=0.15)


def test_episode_cut_short_is_worth_what_would_follow():
    values, _ = learned(constant=1.0, ends=False)
    close(values(1, 0, ANY), 1 / (1 - GAMMA), atol=0.1)
