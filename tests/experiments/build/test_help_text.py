"""`--help` lists every key with meaning and default, and no heavy package is imported for it."""

import subprocess
import sys
from pathlib import Path

from experiments.build.help_text import PAGE, help_text

ROOT = Path(__file__).parents[3]


def test_every_key_of_the_page_is_listed():
    keys = [line.split("`")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    text = help_text("About.", "")
    assert len(keys) > 100 and all(f"--config.{key}=" in text for key in keys)
    assert "--config.batch_size=  of each update; must be positive (256 transitions)\n" in text
    assert text.startswith("About.\n")


def test_help_needs_no_jax():
    code = (
        "import sys\nimport experiments.run\nfrom experiments.build.command_line import parse\n"
        "try:\n    parse(['run', '--help'])\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "    assert not {'jax', 'flax', 'mujoco'} & set(sys.modules)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert "--config.agent.tau=" in out
