"""What pages, hooks and the workflow name exists: targets, files, headings, modules, keys, functions."""

import importlib
import re
import tomllib
from pathlib import Path

import pytest
from ml_collections import ConfigDict

ROOT = Path(__file__).parents[1]
WORKFLOW, HOOKS, CI = ".github/workflows/checks.yml", ".pre-commit-config.yaml", ".ci/run"
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
PACKAGES = "agents|configs|envs|examples|experiments|ne_jax|settings|tests"
PATH = re.compile(rf"(?<![\w/}}.~-])([\w.*-]+/[\w./*-]*\.(?:py|md|txt|toml|yml|yaml|png)|(?:{PACKAGES})/[\w./*-]*/)")
MADE_BY_RUNS = ("results/",)
FENCED = re.compile(r"^```.*?^```", re.M | re.S)


def read(name: str) -> str:
    return (ROOT / name).read_text()


def inline(page: str) -> str:
    """What stands in backticks within the text of a page, a line each."""
    return "\n".join(re.findall(r"`([^`\n]+)`", FENCED.sub("", page)))


def code(page: str) -> str:
    """All code of a page: blocks that are fenced or indented, and what stands in backticks."""
    indented = re.findall(r"^    (?! *[-*|] ).*$", FENCED.sub("", page), re.M)
    return "\n".join([*FENCED.findall(page), *indented, inline(page)])


def makefile() -> dict[str, list[str]]:
    """Each target of the Makefile that has a name, with the lines of its recipe; `$(PY)` is spelt out."""
    recipes: dict[str, list[str]] = {}
    names: list[str] = []
    for line in read("Makefile").splitlines():
        if rule := re.match(r"([a-z][a-z -]*):(?!=)(?! export)", line):
            names = rule[1].split()
            recipes |= {name: [] for name in names}
        elif line.startswith("\t"):
            for name in names:
                recipes[name].append(line.strip().replace("$(PY)", ".venv/bin/python"))
        elif line:
            names = []
    return recipes


def parsed(name: str) -> dict:
    """A YAML file with every scalar as it is written, so that `on` is no truth value and 3.10 no number."""
    yaml = pytest.importorskip("yaml")
    return yaml.load(read(name), yaml.BaseLoader)


def slugs(page: str) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", FENCED.sub("", page), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def config_keys() -> set[str]:
    """Every dotted key, groups included, that some config has."""
    found: set[str] = set()

    def add(config: ConfigDict, prefix: str) -> None:
        for key in config:
            found.add(prefix + key)
            if isinstance(config[key], ConfigDict):
                add(config[key], f"{prefix}{key}.")

    for path in (ROOT / "configs").glob("[a-z]*.py"):
        if path.stem != "common":
            add(importlib.import_module(f"configs.{path.stem}").get_config(), "")
    return found


@pytest.mark.parametrize("name", [*PAGES, WORKFLOW, HOOKS, CI])
def test_targets_of_make_exist(name):
    text = code(read(name)) if name.endswith(".md") else read(name)
    named = set(re.findall(r"^(?:[\s-]*run:)?\s*make ([a-z][a-z-]*)", text, re.M))
    assert not named - set(makefile())
    assert named or name not in ("README.md", "CONTRIBUTING.md", WORKFLOW, CI)


def test_workflow_and_ci_script_do_the_same():
    steps = parsed(WORKFLOW)["jobs"]["checks"]["steps"]
    lines = "\n".join(step.get("run", "") for step in steps).splitlines()
    ours = [line for line in read(CI).splitlines() if line.startswith("make ")]
    assert ours == [line for line in lines if line.startswith("make ") and line != "make venv"]
    packages = re.search(r"gl_packages=\((.*)\)", read(CI))
    install = next(line for line in lines if "apt-get install" in line)
    assert packages and set(packages[1].split()) == set(re.findall(r"lib[\w-]+", install))


def test_workflow_runs_the_pythons_that_the_makefile_takes():
    versions = parsed(WORKFLOW)["jobs"]["checks"]["strategy"]["matrix"]["python"]
    assert set(versions) == set(re.findall(r"python(3\.\d+)", read("Makefile")))
    least = tomllib.loads(read("pyproject.toml"))["project"]["requires-python"]
    first = int(least.removeprefix(">=3."))
    assert versions == [f"3.{minor}" for minor in range(first, first + len(versions))]


def test_workflow_may_only_read_and_ends_by_itself():
    workflow = parsed(WORKFLOW)
    assert set(workflow["on"]) == {"push", "pull_request"}
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["cancel-in-progress"] == "true"
    assert all(int(job["timeout-minutes"]) <= 60 for job in workflow["jobs"].values())


def test_hooks_are_the_commands_of_make_check():
    (repo,) = parsed(HOOKS)["repos"]
    assert repo["repo"] == "local"  # nothing is downloaded, and no version stands here
    assert [hook["entry"].removeprefix("env ") for hook in repo["hooks"]] == makefile()["check"]
    assert all(hook["language"] == "system" and hook["pass_filenames"] == "false" for hook in repo["hooks"])


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", WORKFLOW, HOOKS, CI])
def test_no_host_is_named(name):
    assert not re.findall(r"\w+://|index-url|trusted-host", read(name))


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", read(name)):
        path, _, anchor = target.replace("\\", "").partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        if not re.match(r"\w+:", target) and not (file.exists() and (not anchor or anchor in slugs(file.read_text()))):
            wrong.append(target)
    assert not wrong


@pytest.mark.parametrize("name", PAGES)
def test_files_named_exist(name):
    """Those with a folder in their path, from the root or from the page's own folder."""
    named = [path for path in PATH.findall(inline(read(name))) if not path.startswith(MADE_BY_RUNS)]
    assert not [path for path in named if not any(any(at.glob(path)) for at in (ROOT, (ROOT / name).parent))]


@pytest.mark.parametrize("name", PAGES)
def test_modules_named_exist(name):
    modules = re.findall(rf"-m ((?:{PACKAGES})[\w.]*)", code(read(name)))
    paths = [ROOT / module.replace(".", "/") for module in modules]
    assert not [path for path in paths if not path.with_suffix(".py").exists() and not path.is_dir()]


@pytest.mark.parametrize("name", PAGES)
def test_functions_named_beside_a_file_are_in_it(name):
    """In brackets: two names in backticks, the word in, a file."""
    for names, path in re.findall(r"\[([^\[\]]*) in\s`([\w/]+\.py)`", read(name)):
        for each in re.findall(r"`([\w.]+)(?:=[^`]*)?`", names):
            assert re.search(rf"\b{each.split('.')[-1]}\b", read(path)), f"{each} in {path}"


@pytest.mark.parametrize("name", PAGES)
def test_configs_and_keys_named_exist(name):
    for file, variant in re.findall(r"configs/(\w+)\.py(?::(\w+))?", read(name)):
        if file != "common":
            importlib.import_module(f"configs.{file}").get_config(variant)  # ValueError: no such variant
    named = set(re.findall(r"--config\.(?:lanes\.)?([a-z][\w.]*\w)=", read(name)))
    described = set(re.findall(r"^\| `([\w.]+)` \|", read("docs/settings.md"), re.M))  # not every config has each
    own = {f"env.{key}" for key in re.findall(r"^    (\w+): .* = setting\(", code(read(name)), re.M)}
    assert not named - config_keys() - described - own


def test_keys_of_the_readme_exist():
    table = read("README.md").partition("| key |")[2].partition("\n\n")[0]
    named = {key for row in re.findall(r"^\| (`[^|]*) \|", table, re.M) for key in re.findall(r"`([^`]+)`", row)}
    assert len(named) >= 12
    assert not named - config_keys()
