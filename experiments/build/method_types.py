"""What a method of `plasticity.method` is, and how one is made of any rule of ne_jax, settings included."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, get_args, get_origin, get_type_hints

import flax.linen as nn
from ml_collections import ConfigDict

import ne_jax
from agents.updates import Initialise
from ne_jax.activity import Activity
from ne_jax.numbers import Number
from settings import About, Setting


class Context(NamedTuple):
    """What a maker knows of the network that its method is for."""

    settings: ConfigDict
    """`config.plasticity`, with what this network has of its own."""
    network: nn.Module
    initialise: Initialise
    total_updates: int
    everywhere: frozenset[str] = frozenset()
    """The methods that actor, critic and encoder all have."""


class Method(NamedTuple):
    """How a name becomes a rule.

    make(context): the rule. density(settings, total_updates): weights per sparse layer over updates; None for a
    method that leaves the topology alone. period: the setting that says how often it has a round, or the updates
    themselves; None for no rounds. encoder: does it act on networks that are not plastic, which is the encoder, too?
    maker: the function of ne_jax whose keywords are its settings, where `library` made this.
    """

    make: Callable[[Context], ne_jax.Rule]
    density: Callable[[ConfigDict, int], ne_jax.DensitySchedule] | None = None
    period: str | int | None = None
    encoder: bool = False
    maker: Callable[..., ne_jax.Rule] | None = None

    def updates(self, settings: ConfigDict) -> int | None:
        """Updates from one round to the next; None for no rounds."""
        return settings[self.period] if isinstance(self.period, str) else self.period


def library(
    maker: Callable[..., ne_jax.Rule],
    *,
    period: str | int | None = None,
    encoder: bool = False,
    density: Callable[[ConfigDict, int], ne_jax.DensitySchedule] | None = None,
    **others: Callable[[Context], object],
) -> Method:
    """A method whose settings follow from its maker's signature and docstring: `plasticity.{name of maker}.{keyword}`.

    Of the maker's arguments, `activity` and `initialise` are the network's; keywords that hold functions stay at their
    defaults, unless `others` says what they are.
    """

    def make(context: Context) -> ne_jax.Rule:
        given = {"activity": activity_of, "initialise": lambda context: context.initialise} | others
        wanted = [name for name in inspect.signature(maker).parameters if name in given]
        settings = {each.key: context.settings[maker.__name__][each.key] for each in keywords(maker)}
        try:
            return maker(**{name: given[name](context) for name in wanted}, **settings)
        except ValueError as error:
            raise ValueError(f"plasticity.{maker.__name__}.{error}") from error

    return Method(make, density, period, encoder, maker)


def keywords(maker: Callable[..., ne_jax.Rule]) -> Iterator[Setting]:
    """The keyword-only arguments of a maker that are numbers, words or switches, as its docstring explains them."""
    hints, doc = get_type_hints(maker), inspect.getdoc(maker) or ""
    for name, parameter in inspect.signature(maker).parameters.items():
        hint = hints.get(name)
        choices = get_args(hint) if get_origin(hint) is Literal else ()
        kind = type(choices[0]) if choices else float if hint == Number else hint
        if parameter.kind is not parameter.KEYWORD_ONLY or kind not in (int, float, str, bool):
            continue
        said = re.search(rf"^ +{name}: (.*?)(?=^ +\w+(?:, \w+)*: |^\S|\Z)", doc, re.MULTILINE | re.DOTALL)
        if said is None:
            raise TypeError(f"the docstring of {maker.__name__} must say in its Args what {name} is")
        meaning = " ".join(said[1].split()).rstrip(".")
        yield Setting(name, kind, parameter.default, choices, False, About(meaning))


def activity_of(context: Context) -> Activity:
    """The activations of the network, as it sows them."""
    return ne_jax.flax_activity(context.network.apply)
