"""Random command lines and damaged bytes for hypothesis; the former are made of what each setting says of itself."""

import random
from dataclasses import replace
from functools import cache, partial

import hypothesis
import hypothesis.strategies as st
from hypothesis import HealthCheck, Phase
from tiny_config import NAMES, ON_HOST

from agents.encoder import VisionSettings
from envs.registry import find_kind
from experiments.build.agent import AGENTS
from experiments.build.default_settings import EnvSettings, RunSettings
from experiments.build.methods import METHODS, signature_settings
from experiments.streams.registry import STREAMS
from settings import settings_of

# The same examples each time; none is made smaller when it fails, for some take seconds.
repeatable = hypothesis.settings(
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture),
)

KEPT = ("results_dir", "exp_id", "overwrite", "resume", "compile_cache", "log.wandb", "preset", "env.kind", "env.name")
"""Where results go, what needs a network, and what `command_line` chooses itself."""
COSTLY = {
    "total_frames": 400,
    "updates_per_step": 3,
    "eval.episodes": 2,
    "env.num_envs": 3,
    "env.max_episode_steps": 60,
    "review.window": 12,
}
"""Keys whose right values are kept so low: each step of the run, or each evaluation, costs so many times more."""
USUALLY_WRONG = (
    "",
    "x",
    "None",
    "nan",
    "-1",
    "1e400",
    "(1,'a')",
    "{}",
    "True",
    "0x",
    "2**31",
    "é",
    "[",
    "'",
    "1,,2",
    "-",
)
KINDS = [kind for kind in NAMES if kind != "mjx"] * 5 + ["mjx"]
"""MJX compiles for so long that it comes once in a while."""


def command_lines(wrong=False):
    """Arguments of `experiments.run`; see `command_line`. One number each, of which hypothesis takes none twice."""
    return st.integers(0, 2**60).map(partial(command_line, wrong))


def command_line(wrong, seed):
    """A kind of environment, an agent, a method, and up to five settings, most of them at values that are allowed.

    Args:
        wrong: there is one setting alone, with a value that is not, or that looks wrong.
    """
    rng = random.Random(seed)
    kind, agent = rng.choice(KINDS), rng.choice(sorted(AGENTS))
    view = "states" if kind.startswith("own_kinds") else rng.choice(("states", "pixels"))
    if view == "states" and agent == "drq" and rng.random() < 0.9:
        agent = "td3"  # drq is refused here, which need not be seen often
    methods = rng.sample(["none", *METHODS], rng.choice((1, 1, 1, 2, 3)))
    given = [f"--config=tests/support/tiny_config.py:{kind}-{view}-{agent}"]
    given.append(f"--config.plasticity.method={'+'.join(methods)}")
    for each in rng.sample(settings_here(kind, view, agent), 1 if wrong else rng.randrange(6)):
        value = wrong_value(each, rng) if wrong or rng.random() < 0.1 else right_value(each, rng)
        given.append(f"--config.{each.key}={value}")
    return [*given, "--config.eval.every=40"] if rng.random() < 0.3 else given


def comparisons():
    """A stream of `experiments.plasticity` and an arm on it, with up to two settings; see `comparison`."""
    return st.integers(0, 2**60).map(comparison)


def comparison(seed):
    """A stream's name, and what `--method` would say."""
    rng = random.Random(seed)
    known = [
        replace(each, key=each.key.removeprefix("plasticity.")) for each in settings_here("gymnax", "states", "td3")
    ]
    arm = [rng.choice([*METHODS, _word(rng)])]
    for each in rng.sample(known, rng.randrange(3)):
        arm.append(f"{each.key}={(wrong_value if rng.random() < 0.3 else right_value)(each, rng)}")
    return rng.choice([*STREAMS] * 3 + [_word(rng)]), ",".join(arm)


@cache
def settings_here(kind, view, agent):
    """Every setting that the config of `tiny_config` has, but for those that are `KEPT`."""
    env = {each.key: each for each in settings_of(EnvSettings) if each.key != "backend"}
    if kind not in ON_HOST:
        del env["workers"], env["worker_timeout"]
    env |= {each.key: each for each in settings_of(find_kind(kind).settings) if each.key != "physics"}
    parts = (AGENTS[agent].settings, VisionSettings)[: 1 + (view == "pixels")]
    found = [replace(each, key=f"env.{key}") for key, each in env.items()]
    found += [replace(each, key=f"agent.{each.key}") for part in parts for each in settings_of(part)]
    found += settings_of(RunSettings)
    found += [each for method in METHODS for each in signature_settings(method)]
    return [each for each in found if each.key not in KEPT]


def right_value(setting, rng):
    """A value that the setting itself allows; it need not fit the others, nor a run so short."""
    if setting.choices:
        return rng.choice(setting.choices)
    if getattr(setting.type, "__origin__", None) is not tuple:
        return _scalar(setting, setting.type, rng)
    (inner, *_), length = setting.type.__args__, rng.randrange(4)
    if inner is str:
        return tuple(rng.choice([*NAMES.values(), "reacher_easy", "MountainCarContinuous-v0"]) for _ in range(length))
    return tuple(_scalar(setting, inner, rng) for _ in range(length))


def _scalar(setting, kind, rng):
    about = setting.about
    low = next((each for each in (about.least, about.above) if each is not None), -2)
    high = next((each for each in (about.most, about.below) if each is not None), 60)
    high = min(high, COSTLY.get(setting.key, high))
    if kind is bool:
        return rng.random() < 0.5
    if kind is int:
        return rng.choice((rng.randint(int(low), int(high) - (about.below is not None)), int(low)))
    if kind is float:
        ends = [about.least, about.most, low + 1e-9, high - 1e-9]
        number = rng.choice((rng.uniform(low, high), rng.uniform(low, min(high, low + 1)), rng.choice(ends)))
        return rng.uniform(low, high) if number is None else number
    return _word(rng)


def _word(rng):
    return "".join(rng.choice("aZ9_-+./:\\ %é漢\t=,'\"(") for _ in range(rng.randrange(7)))


def wrong_value(setting, rng):
    """What the setting should refuse; a text, and a number without bounds, may take some of it."""
    about = setting.about
    ends = [each for each in (about.above, about.below) if each is not None]
    ends += [about.least - 1] if about.least is not None else []
    ends += [about.most + 1] if about.most is not None else []
    return rng.choice([*USUALLY_WRONG, *ends, *ends, _word(rng)])


@st.composite
def damages(draw, content):
    """Other bytes than `content`: some flipped, a piece cut out, the end cut off, or something foreign inside."""
    how = draw(st.sampled_from(("flip", "cut", "end", "foreign", "replace")))
    begin = draw(st.integers(0, max(0, len(content) - 1)))
    if how == "flip" and content:
        found = bytearray(content)
        found[begin] ^= 1 << draw(st.integers(0, 7))
    elif how == "cut":
        found = content[:begin] + content[begin + draw(st.integers(1, 200)) :]
    elif how == "end":
        found = content[:begin]
    elif how == "foreign":
        found = content[:begin] + draw(FOREIGN) + content[begin:]
    else:
        found = draw(FOREIGN)
    return bytes(found)


FOREIGN = st.one_of(
    st.binary(min_size=1, max_size=20),
    st.sampled_from(
        (b"null", b"[]", b"{}\n", b"1e999", b"[" * 5_000, b"\x80\x04.", b'{"step": 1}\n', b'"x"\n', b"NaN")
    ),
)
