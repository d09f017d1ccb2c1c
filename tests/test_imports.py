"""Imports run one way, from the programs down to the library, and in no circle; lazy ones count too.

Which folder may import what is said once, here. All imports are read from the source by `ast`, those inside functions
and under TYPE_CHECKING included.
"""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("settings", "ne_jax", "agents", "envs", "experiments", "configs")

# A part is named by the longest prefix that fits a module. Everything may import from its own part.
LIBRARIES = {"settings", "ne_jax"}
ENVS = {"envs.types", "envs.mujoco", "envs.render", "envs.pools", "envs.dmc", "envs.gymnasium", "envs.dm_env"}
ENVS |= {"envs.gymnax", "envs.mjx", "envs"}
ON_MUJOCO = {"envs.types", "envs.render", "envs.mujoco", "settings"}
BUILD = {"experiments.train", "agents", *ENVS, *LIBRARIES}
RECORD = {"experiments.build", *BUILD}
STREAMS = {"experiments.run", "experiments.record", "configs", *RECORD}
MAY_IMPORT = {
    "settings": set(),
    "ne_jax": set(),
    "agents": LIBRARIES,
    # What all kinds of environments share comes first, then rendering and MuJoCo, then the kinds, which know nothing of
    # each other, and, beside them, pools. `envs` itself is the registry, which imports kinds by their names.
    "envs.types": {"settings"},
    "envs.render": {"envs.types", "ne_jax"},
    "envs.mujoco": {"envs.render", "envs.types", "settings"},
    "envs.dmc": ON_MUJOCO,
    "envs.gymnasium": ON_MUJOCO,
    "envs.mjx": ON_MUJOCO,
    "envs.gymnax": {"envs.types", "envs.render", "settings"},
    "envs.dm_env": {"envs.types", "settings"},
    "envs.pools": {"envs.types", "ne_jax"},
    "envs": {"envs.types", "settings"},
    "programs of envs": ENVS,
    "experiments.train": {"agents", *ENVS, *LIBRARIES},
    "experiments.build": BUILD,
    "experiments.record": RECORD,
    # The program that trains is called by others, and by the streams.
    "experiments.run": {"experiments.record", *RECORD},
    "experiments.streams": STREAMS,
    "experiments.launch": {"experiments.run", *RECORD, "experiments.record"},
    "experiments.comparison": {"experiments.launch", "experiments.run", "experiments.record", *RECORD},
    "experiments": {"experiments.streams", "experiments.launch", "experiments.comparison", *STREAMS},
    "configs": {"agents", "experiments.build", *ENVS, *LIBRARIES},
}
PROGRAMS = ("envs.render.fidelity", "envs.render.sheet")
"""Programs beside what they are about: nobody imports them, and they may import all of `envs`."""
SHARED = ("envs.types", "envs.names", "envs.images", "envs.episodes", "envs.physics_schedule")
"""Files that make up the part `envs.types`."""


def modules() -> dict[str, Path]:
    """Every module of ours by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(name: str, path: Path, known: set[str]) -> set[str]:
    """The modules of ours that a file imports, from anywhere in it; of a package, its names that are modules."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            within = {f"{module}.{alias.name}" for alias in node.names}
            found |= (within & known) | ({module} if within - known else set())
    return {each for each in found & known if each != name}


def part_of(module: str) -> str:
    """The part of the project that a module belongs to."""
    if module in PROGRAMS:
        return "programs of envs"
    if module in SHARED:
        return "envs.types"
    return max((part for part in MAY_IMPORT if f"{module}.".startswith(f"{part}.")), key=len)


MODULES = modules()
IMPORTS = {name: imports_of(name, path, set(MODULES)) for name, path in MODULES.items()}


def wrong(imports: dict[str, set[str]]) -> list[str]:
    """Imports that lead from one part of the project into another that it must not know."""
    return [
        f"{name} imports {each}"
        for name, them in imports.items()
        for each in sorted(them)
        if part_of(name) != part_of(each) and part_of(each) not in MAY_IMPORT[part_of(name)]
    ]


def test_every_import_runs_in_the_allowed_direction():
    assert wrong(IMPORTS) == []


def test_there_is_no_circle_between_files():
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


def test_the_rules_see_what_they_forbid(tmp_path):
    """The reading of imports finds lazy ones, relative ones, submodules and names; and a wrong one is told."""
    assert "envs.render.raycast" in IMPORTS["envs.render.drawing"], "an import inside a function"
    assert "ne_jax.rules" in IMPORTS["ne_jax"] or any("ne_jax.rules" in each for each in IMPORTS["ne_jax"])
    assert wrong({"ne_jax.rule": {"agents.td3"}, "envs.dmc.env": {"envs.mjx.env", "envs.types"}}) == [
        "ne_jax.rule imports agents.td3",
        "envs.dmc.env imports envs.mjx.env",
    ]
    file = tmp_path / "imagined.py"
    file.write_text("def f():\n    from . import td3\n    import envs.types\n    from agents.replay import ring\n")
    assert imports_of("agents.imagined", file, set(MODULES)) == {"agents.td3", "envs.types", "agents.replay.ring"}


def test_every_folder_says_what_it_may_import():
    """The first lines of each package, but for the library, whose folders import nothing of ours but themselves."""
    for name, path in MODULES.items():
        if path.name == "__init__.py" and name.startswith(("agents", "envs", "experiments")):
            said = ast.get_docstring(ast.parse(path.read_text())) or ""
            assert "import" in said, f"{path} does not say what it may import"


def test_the_library_imports_nothing_of_ours_at_run_time():
    others = set(PACKAGES) - {"ne_jax"}
    code = f"import sys, ne_jax; print([m for m in sys.modules if m.split('.')[0] in {others}])"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert out.strip() == "[]"
