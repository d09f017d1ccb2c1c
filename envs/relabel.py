"""The same task behind other labels, task after task: `env.relabel`.

What an agent has learned of one is of no use in the next, and no task is harder than another: what the same network
reaches on later ones says what became of its ability to learn. The world itself, its rewards and its ends stay.

From states an agent sees `sign * state[order] + offset`, with a random order and random signs of the features and an
offset N(0, offset^2) of each. From pixels it sees the picture mirrored or turned by right angles, with its colour
channels in another order and some of them inverted: 384 views, none of which comes twice before all have come. Actions
have a random sign per dimension. All is a function of the training seed, of `env.relabel.seed` and of the number of the
task.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Key, UInt8

from envs.types import ArraySpec, DeviceEnv, EnvSpec, EnvState, Obs, Scene, TimeStep
from settings import setting

UNUSED = 2**31 - 2
"""A number of a step that no run reaches, so that labels share no random numbers with what happens in steps."""
CHANNELS = tuple(itertools.permutations(range(3)))
VIEWS = 8 * len(CHANNELS) * 8
"""Symmetries of a square, orders of three channels, and which of them are inverted."""


@dataclass(frozen=True)
class RelabelSettings:
    """The same task behind other labels: signs of actions; order, signs and offsets of states, or views of pictures."""

    every: int = setting(0, "until the next labels, of environments on the device; 0: the task as it is", unit="frames",
                         least=0)  # fmt: skip
    offset: float = setting(2.0, "from states: deviation of what is added to each feature", least=0)
    seed: int = setting(0, "other labels for the same seeds", least=0, below=2**32)


class Labels(NamedTuple):
    """How one task is labelled; `order`, `sign` and `offset` are for states, `view` is for pictures."""

    order: Int[Array, " features"]
    sign: Float32[Array, " features"]
    offset: Float32[Array, " features"]
    view: Int[Array, ""]
    action: Float32[Array, " actions"]


def relabel(env: DeviceEnv, settings: RelabelSettings) -> DeviceEnv:
    """`env` behind labels that change every `settings.every` frames, for each seed (`DeviceEnv.of`) in its own way.

    From pixels a scene is `(scene of env, view)`, so that what is drawn of it is what was seen. Pictures for videos
    show the task as it is.

    Raises:
      ValueError: the task changes in another way already.
    """
    if env.at or env.of:
        raise ValueError("env.relabel.every and env.physics cannot both change the task; leave one of them at 0")
    spec = env.spec
    if spec.pixels:
        spec = spec._replace(
            scene=(spec.scene, ArraySpec((), np.dtype(np.int32))),
            observe=partial(_observe, spec.observe),
            vary=partial(_vary, spec.vary) if spec.vary else None,
        )
    of = partial(_of_seed, env, spec, settings)
    return of(jax.random.key(0))._replace(of=of)


def draw_labels(settings: RelabelSettings, spec: EnvSpec, seed: Key[Array, ""], task: Int[Array, ""] | int) -> Labels:
    """The labels of a seed's task, for an environment with the spec of the bare one."""
    own = jax.random.fold_in(jax.random.fold_in(seed, UNUSED), settings.seed)
    key = jax.random.fold_in(own, task)
    features = 0 if spec.pixels else spec.scene.shape[0]
    # Numbers in (0, 1) of one draw; many small ones would cost more in every step.
    order, sign, offset = jax.random.uniform(jax.random.fold_in(key, 0), (3, features), minval=1e-7)
    action = jax.random.uniform(jax.random.fold_in(key, 1), (spec.action_dim,))
    view = jnp.zeros((), jnp.int32)
    if spec.pixels:
        view = jax.random.permutation(jax.random.fold_in(own, UNUSED), VIEWS)[task % VIEWS].astype(jnp.int32)
    return Labels(
        order=jnp.argsort(order),
        sign=jnp.where(sign < 0.5, 1.0, -1.0),
        offset=settings.offset * jax.scipy.special.ndtri(offset),
        view=view,
        action=jnp.where(action < 0.5, 1.0, -1.0),
    )


def turn(image: UInt8[Array, "size size 3"], view: Int[Array, ""]) -> UInt8[Array, "size size 3"]:
    """A square image as a view of it has it: transposed or not, upside down or not, mirrored or not, with
    its channels in another order, each inverted or not."""
    symmetry, channels, inverted = view % 8, view // 8 % len(CHANNELS), view // (8 * len(CHANNELS))
    image = jnp.where(symmetry & 4, image.transpose(1, 0, 2), image)
    image = jnp.where(symmetry & 2, image[::-1], image)
    image = jnp.where(symmetry & 1, image[:, ::-1], image)
    image = image[..., jnp.asarray(CHANNELS)[channels]]
    return jnp.where(inverted & jnp.array([1, 2, 4]), 255 - image, image)


def _of_seed(env: DeviceEnv, spec: EnvSpec, settings: RelabelSettings, seed: Key[Array, ""]) -> DeviceEnv:
    at = partial(_at, env, spec, settings, seed)
    return at(0)._replace(at=at)


def _at(
    env: DeviceEnv, spec: EnvSpec, settings: RelabelSettings, seed: Key[Array, ""], frame: Int[Array, ""] | int
) -> DeviceEnv:
    # Labels are drawn when they are needed: making an environment computes nothing.
    labels = partial(draw_labels, settings, env.spec, seed, frame // settings.every)
    return DeviceEnv(spec, partial(_reset, env, labels), partial(_step, env, labels), env.picture, env.draw)


def _reset(env: DeviceEnv, labels: Callable[[], Labels], key: Key[Array, ""]) -> tuple[EnvState, Scene]:
    state, scene = env.reset(key)
    return state, _see(env.spec, labels(), scene)


def _step(
    env: DeviceEnv, labels: Callable[[], Labels], state: EnvState, action: Float[Array, " actions"], key: Key[Array, ""]
) -> tuple[EnvState, TimeStep]:
    own = labels()
    state, step = env.step(state, own.action * action, key)
    return state, step._replace(scene=_see(env.spec, own, step.scene))


def _see(spec: EnvSpec, labels: Labels, scene: Scene) -> Scene:
    if spec.pixels:
        return scene, labels.view
    return labels.sign * scene[labels.order] + labels.offset


def _observe(observe: Callable[[Scene], Obs], scene: tuple[Scene, Int[Array, ""]]) -> Obs:
    return turn(observe(scene[0]), scene[1])


def _vary(
    make: Callable[..., Callable[[Key[Array, ""], Scene], Scene]], **shares: float
) -> Callable[[Key[Array, ""], tuple[Scene, Int[Array, ""]]], Scene]:
    vary = make(**shares)
    return lambda key, scene: (vary(key, scene[0]), scene[1])
