"""The life of an episode on the host: what all kinds of host environments share. May import: envs.types."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from envs.types import EnvSpec, Scene, TimeStep

if TYPE_CHECKING:
    from jaxtyping import Float, Float32

UNBOUNDED = 1e9  # a limit beyond it is none: dm_control reports +-1e10, others infinity or the largest float

Observation = TypeVar("Observation")


class EpisodeEnv(ABC, Generic[Observation]):
    """A host environment that holds actions for `spec.action_repeat` frames. See `envs.types.HostEnv`.

    Rewards of the frames are summed, and the repeat stops where the episode ends. A subclass sets `spec`, calls
    `_act_within`, and keeps the newest observation in `_observation`, which is None while no episode is under way.
    """

    spec: EnvSpec
    _observation: Observation | None = None

    @abstractmethod
    def _start(self, seed: int) -> None:
        """Starts the episode that `seed` stands for."""

    @abstractmethod
    def _frame(self, control: Float[np.ndarray, " actions"]) -> tuple[float, bool, bool]:
        """Steps one frame; gives reward, terminated, truncated."""

    @abstractmethod
    def _scene(self) -> Scene:
        """The scene of the newest observation."""

    @abstractmethod
    def picture(self, size: int) -> Scene:
        """What an image of the current state is drawn from."""

    @abstractmethod
    def close(self) -> None:
        """Ends the environment; safe to call twice."""

    def _act_within(self, low: Float[np.ndarray, " actions"], high: Float[np.ndarray, " actions"]) -> None:
        """Says what -1 and 1 mean: the limits of each action."""
        self._middle, self._reach = (high + low) / 2, (high - low) / 2

    def _control(self, action: Float32[np.ndarray, " actions"]) -> Float[np.ndarray, " actions"]:
        if np.shape(action) != self._middle.shape:
            raise ValueError(
                f"An action of {self.spec.name} must have shape {self._middle.shape}, got {np.shape(action)}."
            )
        self._refuse_infinite(action)
        return self._scaled(action)

    def _scaled(self, actions: Float32[np.ndarray, "*lanes actions"]) -> Float[np.ndarray, "*lanes actions"]:
        """Actions in [-1, 1], clipped to it, between their limits."""
        return self._middle + self._reach * np.clip(actions, -1, 1).astype(self._middle.dtype)

    def _advance(self, action: Float32[np.ndarray, " actions"]) -> tuple[float, bool, bool]:
        """Holds one action for `action_repeat` frames; gives the sum of rewards, terminated, truncated."""
        if self._observation is None:
            raise RuntimeError(f"The episode of {self.spec.name} is over or was never started: call reset(seed) first.")
        control = self._control(action)
        total, terminated, truncated = 0.0, False, False
        for _ in range(self.spec.action_repeat):
            reward, terminated, truncated = self._frame(control)
            total += reward
            if terminated or truncated:
                break
        return total, terminated, truncated and not terminated

    def reset(self, seed: int) -> Scene:
        """Starts the episode that `seed` stands for, and returns its first scene."""
        self._start(seed)
        return self._scene()

    def step(self, action: Float32[np.ndarray, " actions"]) -> TimeStep:
        """Takes one agent step with an action in [-1, 1] (clipped to it).

        Raises:
          RuntimeError: the episode is over, or was never started.
          ValueError: the action has the wrong shape, or is not finite (all kinds but dmc).
          dm_control.rl.control.PhysicsError: the simulation diverged, or the action was not finite (dmc).
        """
        reward, terminated, truncated = self._advance(action)
        scene = self._scene()
        if terminated or truncated:
            self._observation = None
        return TimeStep(scene, np.float32(reward), np.bool_(terminated), np.bool_(truncated))

    def replay(self, seed: int, actions: Float32[np.ndarray, "steps actions"]) -> Scene:
        """Takes an episode to where these actions led it, drawing only the scene there. The episode must not end."""
        self._start(seed)
        for action in actions:
            _, terminated, truncated = self._advance(action)
            if terminated or truncated:
                raise ValueError(
                    f"The {len(actions)} actions to replay run past the end of this episode of {self.spec.name}."
                )
        return self._scene()

    def _refuse_infinite(self, action: Float32[np.ndarray, " actions"]) -> None:
        """ValueError for an action that many simulations would answer with a reward of NaN, or with zeros."""
        if not np.isfinite(action).all():
            raise ValueError(f"An action of {self.spec.name} must be finite, got {action}.")


def action_limits(
    name: str, low: Float[np.ndarray, "*shape"], high: Float[np.ndarray, "*shape"]
) -> tuple[Float[np.ndarray, " actions"], Float[np.ndarray, " actions"]]:
    """What -1 and 1 mean, in one axis: the limits of each action, and themselves where it has none.

    Raises:
      ValueError: an action is limited on one side only, and no scale follows from that.
    """
    limited, above = (low > -UNBOUNDED).ravel(), (high < UNBOUNDED).ravel()
    if (limited != above).any():
        at = int(np.argmax(limited != above))
        raise ValueError(
            f"env.name={name!r} must have actions limited on both sides or on neither, got {low.ravel()[at]} to "
            f"{high.ravel()[at]} for action {at}; give it both limits"
        )
    return np.where(limited, low.ravel(), -1).astype(low.dtype), np.where(limited, high.ravel(), 1).astype(high.dtype)
