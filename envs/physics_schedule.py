"""Physical parameters that follow a schedule: `env.physics`, `env.physics_every`, `env.physics_change`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int

from envs.names import did_you_mean
from envs.types import is_int

Change = Literal["switch", "drift"]


class PhysicsSchedule(NamedTuple):
    """Parameters over time. Value `k` of each holds at frame `k * every`; after the last one comes the first again.

    In between, `switch` keeps the value and `drift` moves evenly towards the next one.
    """

    values: dict[str, tuple[float, ...]]
    every: int
    change: Change

    @property
    def length(self) -> int:
        """Values of each parameter; 0 where there are none, 1 where nothing ever changes."""
        return max((len(values) for values in self.values.values()), default=0)

    def at(self, frame: Int[Array, ""] | int) -> dict[str, Float32[Array, ""]]:
        """The parameters at a frame, which may be traced."""
        place = jnp.asarray(frame) // self.every % self.length
        part = jnp.asarray(frame) % self.every / self.every if self.change == "drift" else None

        def value(values: tuple[float, ...]) -> Float32[Array, ""]:
            row = jnp.asarray(values, jnp.float32)
            here, there = row[place], row[(place + 1) % self.length]
            return here if part is None else here + (there - here) * part.astype(jnp.float32)

        return {name: value(values) for name, values in self.values.items()}

    def to_try(self) -> list[dict[str, float]]:
        """What a task must bear: the values at each frame `k * every` and, as they drift, where one goes through 0."""
        found = [{name: values[place] for name, values in self.values.items()} for place in range(self.length)]
        if self.change == "switch":
            return found
        crossings = []
        for here, there in zip(found, [*found[1:], *found[:1]]):
            for name in [name for name in here if here[name] * there[name] < 0]:
                part = here[name] / (here[name] - there[name])
                between = {each: here[each] + (there[each] - here[each]) * part for each in here}
                crossings.append(between | {name: 0.0})
        return found + crossings

    def label(self, place: int) -> str:
        """The name of a task in what is logged, such as `m=1.0,l=0.5`: what changes."""
        return ",".join(f"{name}={values[place]}" for name, values in self.values.items() if len(set(values)) > 1)


def make_physics(physics: Mapping[str, Sequence[float]] | None, every: int, change: Change) -> PhysicsSchedule:
    """A schedule of the parameters that have values: one value stays, and with an empty tuple the task's own does.

    Raises:
        ValueError: values that are no numbers, tuples of different lengths, neighbours that are alike, or a setting
            that cannot be; the sentence names the key.
    """
    if change not in get_args(Change):
        raise ValueError(f"env.physics_change must be one of {', '.join(get_args(Change))}, got {change!r}")
    values = {}
    for name, given in (physics or {}).items():
        numbers = isinstance(given, Sequence) and not isinstance(given, str) and all(map(_is_finite, given))
        if not numbers:
            raise ValueError(f"env.physics.{name} must be a tuple of finite numbers such as (1.0, 2.0), got {given!r}")
        if given:
            values[name] = tuple(float(value) for value in given)
    lengths = {name: len(given) for name, given in values.items() if len(given) > 1}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ValueError(f"env.physics needs as many values of each parameter that changes, and {found}.")
    most = max(lengths.values(), default=1)
    made = PhysicsSchedule({name: given * (most // len(given)) for name, given in values.items()}, every, change)
    if made.length > 1:
        _check_change(made)
    return made


def check_names(physics: PhysicsSchedule, task: str, known: Sequence[str]) -> None:
    """ValueError for a parameter that the task does not have."""
    for name in physics.values:
        if name not in known:
            raise ValueError(f"env.physics.{name} is no parameter of {task}; {did_you_mean(name, known)}")


def _check_change(physics: PhysicsSchedule) -> None:
    if not is_int(physics.every) or physics.every < 1:
        raise ValueError(
            "env.physics_every must be the frames until the next values of env.physics, at least 1, "
            f"got {physics.every!r}"
        )
    labels = [physics.label(place) for place in range(physics.length)]
    for before, after in zip(labels, labels[1:] + labels[:1], strict=True):
        if before == after:
            raise ValueError(
                f"env.physics has {after} twice in a row (the first values follow the last): leave one of them out, "
                "or raise env.physics_every."
            )


def _is_finite(value: object) -> bool:
    most = float(np.finfo(np.float32).max)
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < most
