"""Compiled programs that outlive a process, and the folder that they lie in."""

import os
import subprocess
import sys
from pathlib import Path

from experiments.build.compile_cache import keep_compiled, prune

ROOT = Path(__file__).parents[3]
AT_ONCE = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
PROGRAM = """
from experiments.build import compile_cache
compile_cache.LEAST_SECONDS = 0.0
print(compile_cache.keep_compiled())
import jax, jax.numpy as jnp
print(float(jax.jit(lambda x: jnp.sin(x) @ jnp.cos(x).T)(jnp.ones((3, 4))).sum()))
"""


def compiled(home, **changes):
    env = os.environ | {"XDG_CACHE_HOME": str(home), "JAX_ENABLE_COMPILATION_CACHE": "true"} | changes
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    place, value = done.stdout.split()
    return place, value, {path.name: path.stat().st_mtime_ns for path in Path(home).rglob("jit*")}


def test_a_second_process_takes_what_the_first_has_compiled(tmp_path):
    place, value, kept = compiled(tmp_path)
    assert Path(place).parent == tmp_path / "ne_jax" and kept
    assert compiled(tmp_path) == (place, value, kept)  # nothing was written again


def test_a_place_that_the_user_has_named_and_a_home_that_cannot_be_written_to(tmp_path):
    place, _, kept = compiled(tmp_path / "home", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "mine"), **AT_ONCE)
    assert place == "None" and not kept and any((tmp_path / "mine").iterdir())
    (tmp_path / "file").touch()
    assert compiled(tmp_path / "file")[0] == "None"


def test_tests_keep_nothing():
    assert keep_compiled() is None


def test_what_was_not_used_for_longest_goes_first(tmp_path):
    for age, name in enumerate(("new", "old", "oldest")):
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    prune(tmp_path, 300)
    assert len(list(tmp_path.iterdir())) == 3
    prune(tmp_path, 150)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
