"""Check runs as `experiments.run` does, without compiling: `python -m experiments.launch.check`, for the sweep alone.

A process of its own, since it initialises JAX, and what starts runs must not. Reads a list of command lines as JSON
from its input, and answers with a line of JSON for each.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any


def answer(arguments: Sequence[str]) -> dict[str, Any]:
    """All that a sweep has to know of a run, or the `error`, a sentence, for which it would not start.

    `memory` is what its replays take, in bytes, and `beyond_memory` the error where these would not fit here.
    """
    from experiments.build.checks import validate
    from experiments.build.command_line import config_of
    from experiments.build.errors import CURABLE, is_told
    from experiments.build.experiment import make_schedule, setup
    from experiments.build.lanes import refuse_lanes
    from experiments.build.slices import own_seeds
    from experiments.record.calendar import stop_step
    from experiments.record.folder import Folder, check_config, check_folder, resolved

    try:
        config = config_of(arguments)
        refuse_lanes(config, "experiments.sweep")
        if config.overwrite or not config.resume:
            raise ValueError("a sweep goes on where it was stopped, so leave resume=True and overwrite=False")
        if config.stop_after:
            raise ValueError("a sweep takes a run that stops by itself for one that was killed; leave stop_after empty")
        if config.distributed:
            raise ValueError("a sweep starts one process for each run; leave distributed=False, or take slice")
        folder = Folder(config)
        said = resolved(config) | {"exp_id": ""}
        total = make_schedule(config).total
        parts = sorted(folder.root.glob(f"slices/*/checkpoint/{total}"))
        by_several = bool(parts) and not folder.slice and folder.is_trained(total)
        (check_config if by_several else check_folder)(folder, config)
        checkpoint = parts[0] if by_several else folder.checkpoint / str(stop_step(config, total))
        own = own_seeds(config)
        found = {
            "folder": str(folder.root),
            "seeds": list(own.seeds),
            "frames": min(config.stop_at_frame or config.total_frames, config.total_frames),
            "checkpoint": str(checkpoint),
            "config": said,
            "memory": 0,
        }
    except CURABLE as error:
        if not is_told(error):
            raise
        return {"error": _sentence(error)}
    try:
        validate(own)
        own.over_seeds, own.devices = "auto", 1  # what devices there are is for the run to see
        own.deterministic = False  # jax has begun in this process when it checks a second run
        experiment = setup(own)
    except MemoryError as error:
        return found | {"beyond_memory": _sentence(error)}
    except CURABLE as error:
        if not is_told(error):
            raise
        return {"error": _sentence(error)}
    found["memory"] = experiment.replay.nbytes * len(own.seeds)
    experiment.close()
    return found


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def main() -> None:
    """Answer for each command line in turn."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # of the GPU that runs are about to take
    lines = sys.stdout
    with redirect_stdout(sys.stderr):  # what libraries print is no answer
        for arguments in json.load(sys.stdin):
            print(json.dumps(answer(arguments)), file=lines, flush=True)


if __name__ == "__main__":
    main()
