"""The container's files name what there is: packages, files, the two commands, a user who is not root."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DEVICES = ("cpu", "cuda")


def instructions(device) -> list[tuple[str, str]]:
    """(instruction, the rest) of each line of a Dockerfile, continued lines joined, comments left out."""
    text = re.sub(r"\\\n\s*", "", (ROOT / f"docker/{device}.Dockerfile").read_text())
    return [
        (line.partition(" ")[0], line.partition(" ")[2])
        for line in text.splitlines()
        if line and not line.startswith("#")
    ]


@pytest.mark.parametrize("device", DEVICES)
def test_it_names_what_there_is(device):
    found = instructions(device)
    names = [name for name, _ in found]
    said = dict(found)
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", said["FROM"])  # a version that stays what it is
    (run, *_) = [rest for name, rest in found if name == "RUN"]
    (gl,) = re.findall(r"gl_packages=\((.*)\)", (ROOT / ".ci/run").read_text())
    assert {*gl.split(), "make", "git"} <= set(run.split())
    assert said["USER"] == "1000" and names.index("USER") < names.index("CMD")
    copied = [rest.split()[1:-1] for name, rest in found if name == "COPY"]
    assert all(any(ROOT.glob(file)) for files in copied for file in files if file != ".")
    made = {path.name for pattern in copied[0] for path in ROOT.glob(pattern)}
    needed = re.search(r"^\$\(READY\): (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert needed and {"Makefile", *needed[1].split()} == made  # packages are set up before the code is there
    assert ("ENV", f"DEVICE={device} PYTHONUNBUFFERED=1") in found
    assert any(f".venv/.ready-{device}" in rest for _, rest in found)
    assert said["CMD"] == '["make", "run"]'
    assert f"{said['WORKDIR']}/results" == said["VOLUME"]


def test_both_differ_in_the_device_alone():
    cpu, cuda = (
        [
            f"{name} {rest}".replace(f"-{device}", "-X").replace(f"={device} ", "=X ")
            for name, rest in instructions(device)
        ]
        for device in DEVICES
    )
    (extra,) = [line for line in cuda if line not in cpu]
    assert extra.startswith("ENV NVIDIA_") and [line for line in cuda if line != extra] == cpu


def test_what_runs_leave_behind_is_not_copied():
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".venv", "results", "build"} <= set(ignored) and ".git" not in ignored
