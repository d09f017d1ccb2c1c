"""docs/settings.md, from the code: `python -m experiments.build.settings_page > docs/settings.md`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from agents.encoder import VisionSettings
from envs.registry import KINDS, find_kind
from experiments.build.agent import AGENTS
from experiments.build.default_settings import EnvSettings, RunSettings
from experiments.build.lanes import OF_THE_RUN, of_agent, of_methods
from experiments.build.methods import METHODS, signature_settings
from settings import Setting, in_words, settings_of

HEAD = """# Settings

Every key of a config, with the default of its dataclass. A config file may say otherwise; the command line always may:
`--config.KEY=VALUE`, such as `--config.replay.nstep=3`. `config.json` in a run's folder holds what was used.

This page is made from the code (`python -m experiments.build.settings_page > docs/settings.md`), and a test compares.
"""


def page() -> str:
    """The whole page."""
    lines = [HEAD]
    run = list(settings_of(RunSettings))
    groups = dict.fromkeys(each.key.partition(".")[0] for each in run if "." in each.key)
    lines += _section("The run", "experiments/build/default_settings.py", (each for each in run if "." not in each.key))
    for group in groups:
        of_group = [each for each in run if each.key.startswith(f"{group}.")]
        lines += _section(f"`{group}`", "experiments/build/default_settings.py", of_group)
    for name in METHODS:
        found = list(signature_settings(name))
        if found:
            lines += _section(f"`plasticity.{name}`", "the signature of its maker in ne_jax/rules", found)
    for name, kind in AGENTS.items():
        file = kind.settings.__module__.replace(".", "/") + ".py"
        lines += _section(f"`agent`, name={name}", file, settings_of(kind.settings, "agent."))
    lines += _section("`agent`, where it sees pixels", "agents/encoder.py", settings_of(VisionSettings, "agent."))
    lines += _section("`env`, any kind", "experiments/build/default_settings.py", settings_of(EnvSettings, "env."))
    for name in KINDS:
        kind = find_kind(name)
        file = kind.settings.__module__.replace(".", "/") + ".py"
        lines += _section(f"`env`, kind={name}", file, settings_of(kind.settings, "env."))
    lines += _lanes()
    return "\n".join(lines).rstrip() + "\n"


def _lanes() -> Iterator[str]:
    yield "## `lanes`\n\nFrom `experiments/build/lanes.py`.\n"
    yield "| key | default | unit | meaning |\n|---|---|---|---|"
    yield (
        "| `lanes.KEY` | unset | | values of a number, `(A,B)`, each of which trains beside the others in one program "
        "as a run of its own; see [sweeps](sweeps.md#lanes-a-sweep-inside-one-program) |"
    )
    of_agents = dict.fromkeys(key for kind in AGENTS.values() for key in of_agent(kind.settings))
    keys = ", ".join(f"`{key}`" for key in [*of_agents, *OF_THE_RUN, *of_methods()])
    yield f"\nThe keys: {keys}.\n"


def _section(title: str, file: str, settings: Iterable[Setting]) -> Iterator[str]:
    yield f"## {title}\n\n{_sentence(file)}\n"
    yield "| key | default | unit | meaning |\n|---|---|---|---|"
    yield from map(_row, settings)
    yield ""


def _sentence(file: str) -> str:
    return f"From `{file}`." if file.endswith(".py") else f"From {file}."


def _row(setting: Setting) -> str:
    meaning = setting.about.meaning
    if setting.choices:
        choices = ", ".join(f"`{choice}`" if choice != "" else "empty" for choice in setting.choices)
        meaning += f"; one of {choices}"
    elif in_words(setting):
        meaning += f"; must {in_words(setting)}"
    default = "unset" if setting.default is None else f"`{setting.default!r}`".replace("'", "")
    return f"| `{setting.key}` | {'empty' if setting.default == '' else default} | {setting.about.unit} | {meaning} |"


if __name__ == "__main__":
    print(page(), end="")
