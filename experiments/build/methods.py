"""The methods of `config.plasticity.method` by name, and the settings that each network has of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from jaxtyping import Array, PyTree
from ml_collections import ConfigDict

import ne_jax
from agents.encoder import Encoder
from experiments.build.method_types import Context, Method, activity_of, keywords, library
from ne_jax.activity import Activity
from ne_jax.rules.topology import Birth
from ne_jax.schedules import Share
from ne_jax.sparsity import Leaves, Where
from settings import Setting

SPARSE = ne_jax.kernels_under("hidden")
"""The wide layers of actor and critic; encoder, projection and heads stay dense."""
DISTRIBUTIONS = {"erdos_renyi": ne_jax.erdos_renyi, "uniform": ne_jax.uniform}
SCHEDULES = {"cosine": ne_jax.cosine_growth, "linear": ne_jax.linear_growth}


def signature_settings(method: str) -> Iterator[Setting]:
    """The settings of a method that `library` made, with their keys in a config; none for the others."""
    maker = METHODS[method].maker
    for each in keywords(maker) if maker else ():
        yield replace(each, key=f"plasticity.{method}.{each.key}")


def method_names(settings: ConfigDict) -> list[str]:
    """The methods of a network; several are joined by `+`, and `none` is no method.

    Raises:
        ValueError: a name is unknown.
    """
    names = settings.method.split("+")
    for name in names:
        if name not in ("none", *METHODS):
            raise ValueError(
                f"plasticity.method must be one of none, {', '.join(METHODS)}, or several joined by +; got {name!r}"
            )
    return [name for name in names if name != "none"]


def network_settings(config: ConfigDict, network: str) -> ConfigDict:
    """`config.plasticity` as it holds for a network: `plasticity.actor.*` and `plasticity.critic.*` come first."""
    own = config.plasticity.get(network, {})
    settings = ConfigDict({key: value for key, value in config.plasticity.items() if key not in ("actor", "critic")})
    settings.update({key: value for key, value in own.items() if value is not None})
    return settings


def density_schedule(settings: ConfigDict, total_updates: int) -> ne_jax.DensitySchedule | None:
    """Weights per sparse layer of a network over updates; None for a dense one.

    Raises:
        ValueError: the run is too short for it.
    """
    for name in method_names(settings):
        density = METHODS[name].density
        if density is not None:
            return density(settings, total_updates)
    return None


def round_period(settings: ConfigDict) -> int | None:
    """Updates from one round of a network to the next; None where its methods have no rounds.

    Raises:
        ValueError: the periods of its methods do not fit each other.
    """
    methods = [METHODS[name] for name in method_names(settings)]
    periods = {each.period: found for each in methods if (found := each.updates(settings)) is not None}
    if not periods:
        return None
    shortest = min(periods.values())
    for key, period in periods.items():
        if period % shortest:
            raise ValueError(
                f"plasticity.{key}={period} must be a multiple of {shortest}, the period of the method beside it"
            )
    return shortest


def make_rule(context: Context) -> ne_jax.Rule:
    """All methods of a network as one rule, with rounds every `round_period` updates.

    Raises:
        ValueError: they do not go together.
    """
    shortest, rules = round_period(context.settings), []
    for name in method_names(context.settings):
        method = METHODS[name]
        rule = method.make(context)
        if isinstance(method.period, str):
            _last_round(context.settings, context.total_updates, method.period)
            if context.settings[method.period] != shortest:
                rule = ne_jax.spaced(rule, context.settings[method.period])
        rules.append(rule)
    try:
        return ne_jax.chain(*rules) if len(rules) > 1 else rules[0]
    except ValueError as error:
        raise ValueError(f"plasticity.method={context.settings.method}: {error}") from error


def _last_round(settings: ConfigDict, total_updates: int, period: str = "every") -> int:
    """A round can come no later than the last update, and the last round must reach the final density."""
    last = (total_updates - 1) // settings[period] * settings[period]
    if last < 1:
        raise ValueError(
            f"plasticity.{period}={settings[period]} leaves no round in a run of {total_updates} updates; "
            "lower it, or train for more frames"
        )
    return last


def _grown_by(settings: ConfigDict, total_updates: int) -> int:
    """The update at which the density is final."""
    last = _last_round(settings, total_updates)
    if not settings.growth_rate:
        return max(1, min(round(settings.grow_until * total_updates), last))
    lost = settings.omega if settings.prune != "none" else 0.0
    rounds = -int(-1 // (settings.growth_rate * (1 - lost)))
    if rounds * settings.every > last:
        raise ValueError(
            f"plasticity.growth_rate={settings.growth_rate} takes {rounds * settings.every} updates to the final "
            f"density, and the run has {total_updates}; raise it, or lower plasticity.every"
        )
    return rounds * settings.every


def _growth(settings: ConfigDict, total_updates: int) -> ne_jax.DensitySchedule:
    distribution = DISTRIBUTIONS[settings.distribution]
    initial, final = distribution(1 - settings.initial_sparsity), distribution(1 - settings.final_sparsity)
    return SCHEDULES[settings.schedule](initial, final, _grown_by(settings, total_updates))


def _schedule_of(context: Context) -> ne_jax.DensitySchedule:
    return _growth(context.settings, context.total_updates)


def _constant(settings: ConfigDict, total_updates: int) -> ne_jax.DensitySchedule:
    return ne_jax.constant(DISTRIBUTIONS[settings.distribution](1 - settings.initial_sparsity))


def _pruning(settings: ConfigDict, total_updates: int) -> ne_jax.DensitySchedule:
    final, last = (
        DISTRIBUTIONS[settings.distribution](1 - settings.final_sparsity),
        _last_round(settings, total_updates),
    )
    return ne_jax.cubic_pruning(final, max(1, min(round(settings.grow_until * total_updates), last)))


def _rewiring(context: Context, begin: int = 0) -> Share:
    settings = context.settings
    until = round(settings.rewire_until * context.total_updates)
    first = max(1, -(-begin // settings.every)) * settings.every
    if until <= first:
        raise ValueError(
            f"plasticity.rewire_until={settings.rewire_until} ends rewiring at update {until}, and its first round is "
            f"at {first}; raise it, or lower plasticity.every"
        )
    return ne_jax.cosine_share(settings.rewire_fraction, until, begin)


def _birth(settings: ConfigDict, own: Birth = "zero") -> Birth:
    """How weights are born; `own` is the method's way."""
    return own if settings.birth == "own" else settings.birth


def _neuroplastic(make: Callable[..., ne_jax.Rule], *keys: str) -> Callable[[Context], ne_jax.Rule]:
    def maker(context: Context) -> ne_jax.Rule:
        settings, rewire = context.settings, None
        if settings.after == "rewire":
            rewire = _rewiring(context, _grown_by(settings, context.total_updates))
        return make(
            _growth(settings, context.total_updates),
            activity=activity_of(context) if settings.prune == "dormant" else None,
            rewire=rewire,
            birth=_birth(settings),
            **{key: settings[key] for key in ("prune", "omega", "tau", "revive", *keys)},
        )

    return maker


def _static(context: Context) -> ne_jax.Rule:
    return ne_jax.static()


def _rigl(context: Context) -> ne_jax.Rule:
    return ne_jax.rigl(_rewiring(context), birth=_birth(context.settings), revive=context.settings.revive)


def _set(context: Context) -> ne_jax.Rule:
    share = ne_jax.constant_share(context.settings.rewire_fraction)
    return ne_jax.set_(share, birth=_birth(context.settings, "lecun"), revive=context.settings.revive)


def _magnitude_prune(context: Context) -> ne_jax.Rule:
    return ne_jax.magnitude_prune(_pruning(context.settings, context.total_updates))


ENCODED = "encoder"
"""Where `redo` finds the activations of the encoder's last convolution among those of actor and critic."""


def _with_encoded(context: Context) -> Activity:
    """The network's activations, and those of the encoder's last convolution, which are its first input."""
    own, channels = activity_of(context), _channels(context)

    def activity(params: PyTree, batch: tuple[Array, ...]) -> Leaves:
        encoded = {} if channels is None else {ENCODED: batch[0].reshape(len(batch[0]), -1, channels)}
        return own(params, batch) | encoded

    return activity


def _taken(context: Context) -> dict[str, str]:
    return {} if _channels(context) is None else {"projection/dense/kernel": ENCODED}


def _channels(context: Context) -> int | None:
    """Of the encoder whose units the network's projection takes, where `redo` is at work in both; else None."""
    if "redo" not in context.everywhere or isinstance(context.network, Encoder):
        return None
    return getattr(context.network, "channels", None)


def _leads_out(context: Context) -> Where:
    """The encoder's last convolution, behind which are the projections of actor and critic."""
    follow = "redo" in context.everywhere and isinstance(context.network, Encoder)
    return lambda path, leaf: follow


def _reset(context: Context) -> ne_jax.Rule:
    if context.settings.reset_layers == "all":
        return ne_jax.reset(context.initialise)
    return ne_jax.reset(context.initialise, where=lambda path, leaf: "head" in path.split("/"))


def _shrink_and_perturb(context: Context) -> ne_jax.Rule:
    settings = context.settings
    return ne_jax.shrink_and_perturb(context.initialise, shrink=settings.shrink, perturb=settings.perturb)


def _plasticity_injection(context: Context) -> ne_jax.Rule:
    at = round(context.settings.inject_at * context.total_updates)
    if at >= context.total_updates:
        raise ValueError(
            f"plasticity.inject_at={context.settings.inject_at} injects after the last of {context.total_updates} "
            "updates; lower it"
        )
    return ne_jax.plasticity_injection(at)


def _regenerative_l2(context: Context) -> ne_jax.Rule:
    return ne_jax.regenerative_l2(context.settings.l2_init)


METHODS: dict[str, Method] = {
    "ne": Method(_neuroplastic(ne_jax.neuroplastic, "grow"), _growth, "every"),
    "lifelong_ne": library(ne_jax.lifelong_ne, period="every", encoder=True, density=_growth, schedule=_schedule_of),
    "random_grow": Method(_neuroplastic(ne_jax.random_grow), _growth, "every"),
    "static": Method(_static, _constant),
    "rigl": Method(_rigl, _constant, "every"),
    "set": Method(_set, _constant, "every"),
    "magnitude_prune": Method(_magnitude_prune, _pruning, "every"),
    "redo": library(
        ne_jax.redo, period="every", encoder=True, activity=_with_encoded, leads_out=_leads_out, taken=_taken
    ),
    "grama": library(ne_jax.grama, period="every", encoder=True),
    "reset": Method(_reset, period="reset_every"),
    "shrink_and_perturb": Method(_shrink_and_perturb, period="reset_every", encoder=True),
    "plasticity_injection": Method(_plasticity_injection),
    "regenerative_l2": Method(_regenerative_l2, encoder=True),
    "self_normalised_resets": library(ne_jax.self_normalised_resets, period=1, encoder=True),
    "l2": library(ne_jax.l2, encoder=True),
    "weight_decay": library(ne_jax.weight_decay, encoder=True),
    "parseval": library(ne_jax.parseval, encoder=True),
    "weight_clipping": library(ne_jax.weight_clipping, encoder=True),
    "normalise_and_project": library(ne_jax.normalise_and_project),
    "fire": library(ne_jax.fire, period="reset_every", encoder=True),
    "upgd": library(ne_jax.upgd, encoder=True),
    "continual_backprop": library(ne_jax.continual_backprop, period=1, encoder=True),
}
