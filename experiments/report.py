"""A report of runs as one HTML file: `python -m experiments.report --run=results/A --run=results/B --out=report.html`.

Learning curves, scores, plasticity, masks, videos, settings and versions, for one run or several side by side, also
while they go on. The file opens offline. --png and --csv write the curves as a picture and as tidy rows; --watch shows
the report in a browser on this machine and follows the runs.
"""

from __future__ import annotations

import sys
from pathlib import Path

from absl import app, flags

from experiments.run import CURABLE


def main(_: list[str]) -> int:
    """Write what was asked for; the exit status is 0, or 2 where there is no run."""
    from experiments.record.report.page import page
    from experiments.record.report.runs import read_runs
    from experiments.record.report.tables import write_csv

    folders = [Path(each) for each in _RUN.value]
    try:
        runs = read_runs(folders)
        if _CSV.value:
            write_csv(runs, Path(_CSV.value))
            print(_CSV.value)
        out = Path(_OUT.value)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page(runs, video_limit=_VIDEO_MIB.value * 2**20))
        print(f"{out} ({out.stat().st_size / 2**20:.1f} MiB)")
    except CURABLE as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    _RUN = flags.DEFINE_multi_string("run", None, "A folder that experiments.run has made, once for each.", required=True)
    _OUT = flags.DEFINE_string("out", "report.html", "The report.")
    _PNG = flags.DEFINE_string("png", None, "Also draw the curves here.")
    _CSV = flags.DEFINE_string("csv", None, "Also write every number here: run, method, seed, frame, name, value.")
    _WATCH = flags.DEFINE_bool("watch", False, "Serve the report on this machine and follow the runs.")
    _VIDEO_MIB = flags.DEFINE_integer("video_mib", 10, "MiB of videos in the report at most; 0: none.", lower_bound=0)
    app.run(main)
