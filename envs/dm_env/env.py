"""Anything with dm_env's interface (github.com/google-deepmind/dm_env): `env.name` is a function that makes one.

`module:function` must take `seed` or `random_state`. It is called at the start of every episode, with that episode's
seed, so that an episode is a function of its seed and its actions whatever the environment keeps to itself.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from envs.episodes import EpisodeEnv, action_limits
from envs.images import resized
from envs.names import did_you_mean, import_named
from envs.types import ArraySpec, EnvSpec, HostKind, Scene, ViewSettings, image_spec, observe
from settings import setting

if TYPE_CHECKING:
    import dm_env
    from jaxtyping import Float, Float32, UInt8

SEEDS = ("seed", "random_state")
BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
OPEN = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)  # *args and **kwargs, which may be empty


@dataclass(frozen=True)
class DmEnvSettings(ViewSettings):
    """How an environment with dm_env's interface is seen.

    States are all entries of the observation but `pixels_key`, flattened, in their order. Pixels are that entry, or,
    where there is none, what `physics.render` gives, as environments of dm_control have it.
    """

    pixels_key: str = setting("pixels", "entry of the observation that is an image, uint8 [height, width, 3]")
    camera_id: int | None = setting(None, "camera of `physics.render`, -1 for the free one; unset: 0", least=-1)
    max_episode_steps: int = setting(
        1000, "the environment's steps after which an episode is truncated, if it has not ended before", least=1
    )


def find_factory(name: str) -> tuple[Callable[..., dm_env.Environment], str]:
    """The function that `module:function` names, and the argument that takes the seed.

    Raises:
      ValueError: there is no such module or function, it takes no seed, or it needs more than that.
    """
    module_name, colon, function = name.partition(":")
    if not colon:
        raise ValueError(f"env.name must be module:function for env.kind='dm_env', got {name!r}")
    module = import_named("env.name", name, module_name)
    make = getattr(module, function, None)
    if not callable(make):
        functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        hint = did_you_mean(function, functions) if functions else "it has none"
        raise ValueError(f"env.name={name!r}: the module {module_name} has no function {function!r}; {hint}")
    known = {each.name: each for each in inspect.signature(make).parameters.values()}
    seed = next((each for each in SEEDS if each in known and known[each].kind in BY_NAME), None)
    if seed is None:
        raise ValueError(
            f"env.name={name!r}: the function must take `seed` or `random_state`, so that an episode follows from its "
            "seed, and hand it to all that is random in its environment"
        )
    needed = [each.name for each in known.values() if each.default is each.empty and each.kind not in OPEN]
    more = [each for each in needed if each != seed]
    if more:
        raise ValueError(
            f"env.name={name!r}: the function must need nothing but `{seed}`, and needs {', '.join(more)}; give "
            "defaults, or name a function that calls it with them"
        )
    return make, seed


def check(name: str, settings: DmEnvSettings) -> None:
    """Raises what `DmEnv` would raise; the environment is made once, and for pixels drawn."""
    env = DmEnv(name, settings)
    try:
        if settings.pixels:
            env.reset(0)
    finally:
        env.close()


class DmEnv(EpisodeEnv["dm_env.TimeStep"]):
    """One environment with dm_env's interface. A discount of 0 at the end terminates; any other end truncates.

    Raises:
      ValueError: no such function, actions without bounds, or no pictures where `pixels` asks for them.
    """

    def __init__(self, name: str, settings: DmEnvSettings) -> None:
        self._make, self._seed_name = find_factory(name)
        self._settings, self._steps = settings, 0
        env = self._make(**{self._seed_name: 0})
        self._env: dm_env.Environment | None = env
        actions = env.action_spec()
        self._act_within(*_bounds(name, actions))
        observations = _entries(env.observation_spec(), settings.pixels_key)
        features = sum(math.prod(entry.shape) for entry in observations)
        self._drawn_by_key = _has(env.observation_spec(), settings.pixels_key)
        self._check_pixels(name, env.observation_spec())
        if not settings.pixels and not features:
            raise ValueError(f"env.name={name!r} has no states; set --config.env.pixels=True")
        self.spec = EnvSpec(
            name=name,
            scene=image_spec(settings.image_size) if settings.pixels else ArraySpec((features,), np.dtype(np.float32)),
            observe=observe,
            action_dim=math.prod(actions.shape),
            action_repeat=settings.action_repeat,
            episode_steps=math.ceil(settings.max_episode_steps / settings.action_repeat),
            pixels=settings.pixels,
        )
        self._action_shape = actions.shape

    def _check_pixels(self, name: str, observation: object) -> None:
        key, usual = self._settings.pixels_key, DmEnvSettings.pixels_key
        if self._settings.pixels and not self._drawn_by_key and not _can_render(self._env):
            raise ValueError(
                f"env.name={name!r} has neither an entry {key!r} in its observation nor "
                "physics.render; name the entry with --config.env.pixels_key, or set --config.env.pixels=False"
            )
        if not self._drawn_by_key and key != usual:
            known = [str(each) for each in observation] if isinstance(observation, Mapping) else []
            hint = did_you_mean(key, known) if known else "it has none"
            raise ValueError(
                f"env.pixels_key must be unset or name an entry of the observation of {name}, got {key!r}; {hint}"
            )
        if self._drawn_by_key and self._settings.camera_id is not None:
            raise ValueError(
                f"env.camera_id is for physics.render, and images of {name} are its entry {key!r}; leave it unset"
            )

    def _start(self, seed: int) -> None:
        self.close()
        self._env = env = self._make(**{self._seed_name: seed})
        self._observation, self._steps = env.reset(), 0

    def _frame(self, control: Float[np.ndarray, " actions"]) -> tuple[float, bool, bool]:
        assert self._env is not None
        self._observation = step = self._env.step(control.reshape(self._action_shape))
        self._steps += 1
        terminated = step.last() and step.discount == 0
        truncated = step.last() or self._steps >= self._settings.max_episode_steps
        return 0.0 if step.reward is None else float(step.reward), terminated, truncated and not terminated

    def _scene(self) -> Scene:
        return self.picture(self._settings.image_size) if self.spec.pixels else self._states()

    def _states(self) -> Float32[np.ndarray, " features"]:
        assert self._observation is not None
        entries = _entries(self._observation.observation, self._settings.pixels_key)
        return np.concatenate([np.ravel(entry) for entry in entries]).astype(np.float32)

    def picture(self, size: int) -> UInt8[np.ndarray, "size size 3"]:
        """The image of the current state: the observation's own, resized, or one that `physics.render` draws.

        Raises:
          ValueError: there is neither, or the observation's own is not uint8 [height, width, 3].
        """
        if self._drawn_by_key:
            assert self._observation is not None
            key = self._settings.pixels_key
            image = np.asarray(self._observation.observation[key])
            return resized(image, size, f"The entry {key!r} that {self.spec.name} observes")
        if not _can_render(self._env):
            raise ValueError(f"{self.spec.name} has no pictures: neither {self._settings.pixels_key!r} nor a renderer.")
        physics: Any = getattr(self._env, "physics")  # noqa: B009  (of dm_control's environments alone)
        return physics.render(height=size, width=size, camera_id=self._settings.camera_id or 0).copy()

    def close(self) -> None:
        """Ends the environment; safe to call twice."""
        if self._env is not None:
            self._env.close()
            self._env = None


def _bounds(name: str, spec: Any) -> tuple[Float[np.ndarray, " actions"], Float[np.ndarray, " actions"]]:
    """What -1 and 1 mean, in one axis: the limits of each action, and themselves where it has none."""
    from dm_env import specs

    if not isinstance(spec, specs.BoundedArray) or not np.issubdtype(spec.dtype, np.floating):
        raise ValueError(
            f"env.name={name!r} must have bounded actions, floats of a dm_env.specs.BoundedArray, got "
            f"{type(spec).__name__}"
        )
    low, high = (np.broadcast_to(limit, spec.shape).astype(spec.dtype) for limit in (spec.minimum, spec.maximum))
    return action_limits(name, low, high)


def _has(observation: object, key: str) -> bool:
    return isinstance(observation, Mapping) and key in observation


def _can_render(env: object) -> bool:
    return hasattr(getattr(env, "physics", None), "render")


def _entries(observation: Any, pixels_key: str) -> list[Any]:
    """The arrays, or their specs, of an observation or its spec in their order, without the image."""

    def walk(part: Any) -> Iterator[Any]:
        if isinstance(part, Mapping):
            for each in part.values():
                yield from walk(each)
        elif isinstance(part, Sequence):
            for each in part:
                yield from walk(each)
        else:
            yield part

    if _has(observation, pixels_key):
        observation = {key: value for key, value in observation.items() if key != pixels_key}
    return list(walk(observation))


KIND = HostKind("dm_env", DmEnv, DmEnvSettings, check=check, packages=("dm_env",))
