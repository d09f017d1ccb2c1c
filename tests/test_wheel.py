"""The wheel is the library alone: what it holds, what it asks for, and that it works with nothing else of ours."""

import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NEEDS = {"jax", "flax", "optax", "jaxtyping"}
USE = """
import jax, jax.numpy as jnp, optax, ne_jax
params = {"hidden": {"kernel": jax.random.normal(jax.random.key(0), (6, 8))}}
params = ne_jax.sparsify(jax.random.key(1), params, ne_jax.erdos_renyi(0.2))
rule = ne_jax.neuroplastic(ne_jax.cosine_growth(0.2, 0.75, until=4))
tx = ne_jax.plastic(optax.adam(1e-2), rule, every=2)
state = tx.init(params)
for step in range(6):
    gradients = jax.grad(lambda p: jnp.sum((p["hidden"]["kernel"] - 1) ** 2))(params)
    updates, state = tx.update(gradients, state, params)
    params = optax.apply_updates(params, updates)
print(ne_jax.__file__, float(ne_jax.density(ne_jax.masks(state))["all"]))
"""
ONLY = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {refused}:
            raise ImportError(f"the library asks for {{name}}")
sys.meta_path.insert(0, Refuse())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, names):  # a copy, so that no build folder is left in the clone
        if (ROOT / name).exists() and name.startswith(("ne_jax/", "pyproject", "README", "LICENSE", "agents/")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q"]
    subprocess.run([*command, "-w", str(folder), str(source)], check=True, timeout=240)
    (made,) = folder.glob("ne_jax-*.whl")
    return made


def requirements(file):
    lines = (line.strip() for line in (ROOT / file).read_text().splitlines())
    return {line for line in lines if line and not line.startswith(("#", "-r"))}


def test_it_holds_the_library_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"ne_jax", wheel.name.split("-py3")[0] + ".dist-info"}
    assert "ne_jax/py.typed" in names and "ne_jax/rules/growth.py" in names


def test_it_asks_for_four_packages(wheel):
    (metadata,) = [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith("/METADATA")]
    lines = zipfile.ZipFile(wheel).read(metadata).decode().splitlines()
    asked = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    assert {re.split(r"[<>=\[ ]", line)[0] for line in asked if "extra ==" not in line} == NEEDS


def test_lists_of_requirements_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert set(project["dependencies"]) | set(extras["rl"]) == requirements("requirements-cpu.txt")
    added = {each for name in ("dev", "docs", "gymnasium", "mjx", "ray", "submitit", "wandb") for each in extras[name]}
    assert added == requirements("requirements-dev.txt")
    assert set(extras["cuda12"]) == requirements("requirements.txt")


def test_it_works_in_a_fresh_venv_with_what_it_asks_for(wheel, tmp_path):
    venv.create(tmp_path / "venv", with_pip=False)
    (site,) = (tmp_path / "venv" / "lib").glob("python3*/site-packages")
    zipfile.ZipFile(wheel).extractall(site)
    (installed,) = {str(Path(path)) for path in sys.path if path.endswith("site-packages")}
    (site / "installed.pth").write_text(installed + "\n")
    refused = {"agents", "envs", "experiments", "configs", "settings", "gymnax", "mujoco", "dm_control", "cv2"}
    refused |= {"orbax", "ml_collections", "matplotlib", "gymnasium", "tensorboardX", "chex"}
    refused -= {"chex", "orbax"}  # what optax and flax import themselves
    script = ONLY.format(refused=refused) + USE
    command = [tmp_path / "venv" / "bin" / "python", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=240)
    assert done.returncode == 0, done.stderr
    file, density = done.stdout.split()
    assert file.startswith(str(tmp_path)) and float(density) == pytest.approx(0.75, abs=0.02)


@pytest.mark.slow
def test_it_installs_with_pip_into_a_fresh_venv(wheel, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel], check=True, timeout=600
    )
    done = subprocess.run([python, "-c", USE], capture_output=True, text=True, cwd=tmp_path, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path))
