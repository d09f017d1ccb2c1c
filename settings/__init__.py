"""A setting: default, meaning, unit, choices and bounds in one place, from which configs, checks and docs follow.

Each part of a run (an agent, a kind of environment, the replay, ...) says its settings as a frozen dataclass::

    @dataclass(frozen=True)
    class TD3Settings:
        tau: float = setting(0.005, "rate at which target networks follow", above=0, most=1)
        policy_delay: int = setting(2, "critic updates per update of the actor", least=1)
        init: Literal["orthogonal", "uniform"] = setting("uniform", "of dense layers")

Choices are those of a `Literal`; `T | None` may be unset; a field whose type is another such dataclass is a group of
settings. This package needs nothing but the standard library, and every other may import it.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

_ABOUT = "about"
_KINDS = {int: "a whole number", float: "a number", bool: "True or False", str: "a text"}


@dataclasses.dataclass(frozen=True)
class About:
    """What `setting` says of a field, beside its default."""

    meaning: str
    unit: str = ""
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None


@dataclasses.dataclass(frozen=True)
class Setting:
    """One setting with its dotted key. `choices` is empty where any value of the type within the bounds will do."""

    key: str
    type: Any
    default: Any
    choices: tuple[Any, ...]
    optional: bool
    about: About


def setting(
    default: Any,
    meaning: str,
    *,
    unit: str = "",
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """A field of a settings dataclass.

    Args:
        meaning: what it says, as a phrase without a full stop.
        unit: of the number, such as "frames" or "agent steps".
        least, most: bounds that the value may reach; of a tuple they hold for each entry.
        above, below: bounds that it may not reach.
    """
    about = About(meaning, unit, least, most, above, below)
    return dataclasses.field(default=default, metadata={_ABOUT: about})


def group(of: type) -> Any:
    """A field that holds the settings of another dataclass, at their defaults."""
    return dataclasses.field(default_factory=of)


def settings_of(part: type, prefix: str = "") -> Iterator[Setting]:
    """Every setting of a dataclass with its dotted key, groups included, in the order in which they are written."""
    hints = typing.get_type_hints(part)
    for field in dataclasses.fields(part):
        hint = hints[field.name]
        if _ABOUT not in field.metadata:
            yield from settings_of(hint, f"{prefix}{field.name}.")
            continue
        given = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        kinds = [each for each in given if each is not NoneType]
        choices = tuple(choice for each in kinds if get_origin(each) is Literal for choice in get_args(each))
        kind = type(choices[0]) if choices else kinds[0]
        yield Setting(prefix + field.name, kind, field.default, choices, NoneType in given, field.metadata[_ABOUT])


def check(part: type, values: Mapping[str, Any] | Any, prefix: str = "") -> None:
    """ValueError, which names the key and what it may be, for the first value that its setting does not allow.

    Args:
        values: a mapping of names, nested for groups, or an instance of `part`.
    """
    for each in settings_of(part):
        value = values
        for name in each.key.split("."):
            try:
                value = value[name] if isinstance(value, Mapping) else getattr(value, name)
            except (KeyError, AttributeError) as error:
                raise ValueError(f"there is no {prefix}{each.key} in the config, which needs it") from error
        check_value(each, value, prefix + each.key)


def check_value(setting: Setting, value: Any, key: str) -> None:
    """ValueError for a value that the setting does not allow; `key` is what the sentence calls it."""
    if value is None and setting.optional:
        return
    if hasattr(value, "aval"):  # a number of JAX's, of a lane inside a program: it was checked before that was made
        return
    if setting.choices and value not in setting.choices:
        raise ValueError(f"{key} must be one of {', '.join(map(str, setting.choices))}, got {value!r}")
    several = get_origin(setting.type) is tuple
    if several and not isinstance(value, tuple | list):
        raise ValueError(f"{key} must be a tuple, got {value!r}")
    kind = get_args(setting.type)[0] if several else setting.type
    each: Any
    for each in tuple(value or ()) if several else (value,):
        if isinstance(each, float) and not math.isfinite(each):
            raise ValueError(f"{key} must be a finite number, got {each}")
        if kind in _KINDS and not _is_a(kind, each):
            words = f"hold {_KINDS[kind].removeprefix('a ')}s only" if several else f"be {_KINDS[kind]}"
            raise ValueError(f"{key} must {words}, got {value!r}")
        if isinstance(each, int | float) and not _within(setting.about, each):
            raise ValueError(f"{key} must {in_words(setting)}, got {value}")


def _is_a(kind: type, value: Any) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)


def in_words(setting: Setting) -> str:
    """What a number must do, such as `lie in (0, 1]` or `be positive`; empty where there are no bounds."""
    about, whole = setting.about, setting.type is int
    low = about.least if about.least is not None else about.above
    high = about.most if about.most is not None else about.below
    if low is not None and high is not None:
        opening, closing = "[" if about.least is not None else "(", "]" if about.most is not None else ")"
        return f"lie in {opening}{low}, {high}{closing}"
    if high is not None:
        return f"be at most {high}" if about.most is not None else f"be below {high}"
    if low is None:
        return ""
    if low == 0:
        return "not be negative" if about.least is not None else "be positive"
    return "be positive" if whole and about.least == 1 else f"be at least {low}"


def _within(about: About, value: float) -> bool:
    return (
        (about.least is None or value >= about.least)
        and (about.most is None or value <= about.most)
        and (about.above is None or value > about.above)
        and (about.below is None or value < about.below)
    )
