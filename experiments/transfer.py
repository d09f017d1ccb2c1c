"""Does a policy know its task in another picture? `python -m experiments.transfer --run=results/drq_ne_cheetah_run`.

Plays the networks that a run of dm_control pixels left, greedily, in the same episodes with each renderer, and prints
the mean returns and their ratio to those with the renderer that the run was trained with. Runs on MJX are played on
MuJoCo. `gl` needs OpenGL. It is `experiments.evaluate` with `--renderer`, twice.
"""

from __future__ import annotations

from pathlib import Path

from absl import app, flags, logging

from experiments.build.allocator import keep_freed_memory
from experiments.build.errors import CURABLE, is_told
from experiments.evaluate import RENDERERS, drawn_by, play
from experiments.record.policy import read_config


def main(_: list[str]) -> None:
    """Print a line per renderer."""
    keep_freed_memory()
    logging.set_verbosity(logging.WARNING)
    folder = Path(_RUN.value)
    try:
        trained = read_config(folder).env.get("renderer", "gl")
        before = 0.0
        for renderer in sorted(RENDERERS, key=lambda each: each != trained):
            returns = play(folder, drawn_by(renderer, folder, read_config(folder)), _EPISODES.value).returns
            mean, seeds = float(returns.mean()), ", ".join(f"{mean:.1f}" for mean in returns.mean(axis=1))
            before = before or mean
            ratio = f"{mean / before:.3f} x" if before else "no ratio to nothing"
            print(f"{renderer:>4}: mean return {mean:.1f} ({seeds}), {ratio}", flush=True)
    except CURABLE as error:
        if not is_told(error):
            raise
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    _RUN = flags.DEFINE_string("run", None, "A folder that experiments.run has made.", required=True)
    _EPISODES = flags.DEFINE_integer("episodes", 10, "Episodes per seed.")
    app.run(main)
