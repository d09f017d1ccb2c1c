"""README and docs/: every command can be given, every block of Python runs, and the site builds without a warning.

What a page shows of one's own agent, method or environment is run by test_docs.py and test_own_environment.py.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import linen as nn
from flax.training.train_state import TrainState

import ne_jax
from experiments.build.checks import validate
from experiments.build.command_line import config_of
from experiments.build.lanes import lanes_of

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
OWN = ["docs/own_agent.md", "docs/own_environment.md", "docs/own_method.md"]
PROGRAMS = ("python", ".venv/bin/python", "make", "pip", "docker", "tensorboard", "source", "git")
PROGRAM = "experiments.launch.program"
"""What programs that start many runs share."""
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)


def blocks(page):
    """The blocks of Python of a page."""
    return [code for language, code in FENCED.findall((ROOT / page).read_text()) if language == "python"]


def commands(page):
    """Each command of a page as its words: lines of shell blocks, and indented ones that begin with a program."""
    text = (ROOT / page).read_text()
    lines = [code for language, code in FENCED.findall(text) if language == "bash"]
    lines += re.findall(r"^    (?! )((?:.*\\\n)*.*)$", FENCED.sub("", text), re.M)
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    found = (line for line in joined if line.split() and line.split()[0] in PROGRAMS)
    return [shlex.split(line, comments=True) for line in found]


COMMANDS = [(page, words) for page in PAGES for words in commands(page)]


def test_there_are_commands():
    assert len(COMMANDS) > 50 and {words[0] for _, words in COMMANDS} == set(PROGRAMS)


def module_of(words):
    """The module that a command runs, and its own arguments."""
    assert words[1] == "-m", words
    return words[2], words[3:]


def defined(module):
    """The names of the flags that a program of ours and those that it imports define, read from their sources."""
    text = (ROOT / f"{module.replace('.', '/')}.py").read_text()
    names = {"help", *re.findall(r'(?:DEFINE_\w+|add_argument)\(\s*"(?:--)?([\w-]+)"', text)}
    others = {"experiments.run": "experiments.run import", PROGRAM: "experiments.launch import program"}
    for imported, line in others.items():
        names |= defined(imported) if line in text else set()
    return names


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # ml_collections reads config files with it
def test_commands_of_our_programs_can_be_given(registries):
    tried = 0
    for page, words in COMMANDS:
        if words[0].endswith("python") and page != "docs/own_environment.md":
            module, arguments = module_of(words)
            if not module.startswith(("experiments", "envs")):
                assert module in ("pytest", "examples.flax_regression"), (page, words)
                continue
            of_config = [each for each in arguments if each.startswith("--config")]
            names = {each.removeprefix("--").split("=")[0] for each in arguments if each not in of_config}
            assert all(each.startswith("--") for each in arguments), (page, words)
            names = {each for each in names if not each.startswith("slurm.")}  # of submitit, which checks them
            assert names <= defined(module), (page, words)
            if of_config:
                for lane in lanes_of(config_of(of_config)):  # ValueError: a key or a value that cannot be
                    validate(lane)
                tried += 1
    assert tried >= 20


def test_other_commands_name_what_there_is():
    targets = set(re.findall(r"^([a-z-]+)(?: [a-z-]+)*:", (ROOT / "Makefile").read_text(), re.M))
    wheel = (ROOT / "pyproject.toml").read_text()
    for page, words in COMMANDS:
        if words[0] == "make":
            assert set(words[1:2]) <= targets and all("=" in each for each in words[2:]), (page, words)
        elif words[0] == "pip":
            package = words[-1]
            assert words[1] == "install" and (package == "." or f'"{package}"' in wheel), (page, words)
        elif words[:2] == ["docker", "build"]:
            assert (ROOT / words[words.index("-f") + 1]).exists() and words[-1] == ".", (page, words)
        elif words[:2] == ["docker", "run"]:
            image = next(i for i, word in enumerate(words) if re.fullmatch(r"ne_jax(:cuda)?", word))
            rest = words[image + 1 :]
            assert not rest or (rest[0] == "make" and rest[1] in targets), (page, words)


def test_every_block_of_python_is_run_by_some_test():
    assert [page for page in PAGES if blocks(page)] == ["README.md", *sorted([*OWN, *FLOWS])]


FLOWS = ["docs/first_run.md", "docs/your_code.md"]
"""Pages whose blocks are one program."""


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(nn.relu(nn.Dense(8)(x)))


def test_the_blocks_of_the_readme_run():
    """Those about the library; the one that loads a policy is run with the commands of the first run."""
    load, three_lines, activity = blocks("README.md")
    assert "load_policy" in load
    key, obs, net = jax.random.key(0), jnp.ones((4, 3)), Net()
    names: dict[str, Any] = dict(jax=jax, optax=optax, ne_jax=ne_jax, TrainState=TrainState, key=key, obs=obs, net=net)
    exec(three_lines, names)
    state = names["state"].apply_gradients(grads=names["params"])
    assert 0 < float(ne_jax.density(ne_jax.masks(state.opt_state))["all"]) < 1
    tx, params = names["tx"], names["params"]
    names |= dict(grads=params, opt_state=tx.init(params))
    exec(activity, names)
    assert jax.tree.structure(names["updates"]) == jax.tree.structure(params)


@pytest.mark.slow
def test_your_code_runs():
    names = {"__name__": "your_code"}
    for code in blocks("docs/your_code.md"):
        exec(compile(code, "docs/your_code.md", "exec"), names)


def test_the_api_page_has_every_public_name():
    page = (ROOT / "docs/api.md").read_text()
    named = re.findall(r"^\.\. auto\w+:: (\w+)$", page, re.M)
    assert sorted([*ne_jax.__all__, "load_policy"]) == sorted(named)


def test_every_page_is_in_the_contents_of_the_site():
    listed = re.findall(r"^(\w+)$", (ROOT / "docs/index.md").read_text(), re.M)
    assert sorted(listed) == sorted(path.stem for path in (ROOT / "docs").glob("*.md") if path.stem != "index")


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("sphinx")
    recipe = re.search(r"^docs:.*\n\t\$\(PY\) (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert recipe
    words = [each.replace("build/", f"{tmp_path}/") for each in shlex.split(recipe[1])]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    api = (tmp_path / "docs/api.html").read_text()
    assert all(f'id="ne_jax.{name}"' in api for name in ne_jax.__all__)
    assert (tmp_path / "docs/index.html").exists()


def run(words, folder):
    """A command of ours, as it is given in a clone whose results go elsewhere."""
    if not (folder / "configs").exists():
        (folder / "configs").symlink_to(ROOT / "configs")
    env = os.environ | {"PYTHONPATH": str(ROOT), "WANDB_MODE": "offline"}
    done = subprocess.run([sys.executable, *words[1:]], cwd=folder, capture_output=True, text=True, env=env)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


@pytest.mark.slow
def test_the_first_run_as_it_is_told(tmp_path):
    """Its short commands, its blocks of Python, and the README's block that loads a policy."""
    told = [words for words in commands("docs/first_run.md") if "smoke" in " ".join(words)]
    assert len(told) == 3
    for words in told:
        run(words, tmp_path)
    assert (tmp_path / "results/played/grid.mp4").exists()
    readme = blocks("README.md")[0].replace("drq_ne_quick", "drq_ne_smoke")
    code = "\n".join([*blocks("docs/first_run.md"), "obs = picture", readme])
    printed = run([sys.executable, "-c", code], tmp_path)
    assert "(0, " in printed and "eval/return" in printed


def short_runs():
    """The runs of all pages, each with its keys, but at the size at which all is touched once."""
    found = {}
    for page, words in COMMANDS:
        if page not in OWN and words[1:3] == ["-m", "experiments.run"]:
            keys = [each for each in words[3:] if not re.match(r"--config(=|\.(exp_id|seeds|total_frames)=)", each)]
            file, _, variant = next(each for each in words[3:] if each.startswith("--config=")).partition(":")
            code = (ROOT / file.split("=")[1]).read_text()
            short = next(each for each in (f"{variant}_smoke", "smoke") if f'"{each}"' in code)
            found[" ".join([f"{file}:{short}", *keys])] = None
    return list(found)


@pytest.mark.slow
@pytest.mark.parametrize("line", short_runs())
def test_a_run_that_a_page_shows_runs(line, tmp_path):
    seeds = "(0,1)" if "slice=" in line else "(0,)"  # a slice has to have one
    run([sys.executable, "-m", "experiments.run", *line.split(), f"--config.seeds={seeds}"], tmp_path)
    assert list((tmp_path / "results").rglob("metrics.jsonl"))
    shutil.rmtree(tmp_path / "results")
