"""PyTorch has a process of its own: after OpenGL has begun in one, importing it there crashes."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed: pip install '.[bench]'"
)
def test_the_peer_is_the_same_agent():
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/support/torch_peer_cases.py"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
