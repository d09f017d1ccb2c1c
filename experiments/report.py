"""A report of runs as one HTML file: `python -m experiments.report --run=results/A --run=results/B --out=report.html`.

Learning curves, scores, plasticity, masks, videos, settings and versions, for one run or several side by side, also
while they go on. The file opens offline. --png and --csv write the curves as a picture and as tidy rows; --watch shows
the report in a browser on this machine and follows the runs. docs/report.md says how to read it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags, logging

from experiments.build.errors import CURABLE, is_told


def main(argv: list[str]) -> int:
    """Write what was asked for; the exit status is 0, or 2 where there is no run."""
    logging.set_verbosity(logging.ERROR)  # orbax tells of each file that it reads
    if len(argv) > 1:
        print(f"error: what is {argv[1]!r}? Runs are given as --run={argv[1]}", file=sys.stderr)
        return 2
    folders = [Path(each) for each in _RUN.value]
    try:
        if _WATCH.value:
            watch(folders, _PORT.value, _VIDEO_MIB.value * 2**20)
        else:
            write(folders)
    except CURABLE as error:
        if not is_told(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped")
    return 0


def write(folders: Sequence[Path]) -> None:
    """Write the report, and picture and rows where they were asked for; say where they are."""
    from experiments.record.report.page import page
    from experiments.record.report.picture import draw_picture
    from experiments.record.report.runs import read_runs
    from experiments.record.report.tables import write_csv

    runs, out = read_runs(folders), Path(_OUT.value)
    content = page(runs, video_limit=_VIDEO_MIB.value * 2**20)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(content)
    except OSError as error:
        raise OSError(f"--out={out} cannot be written: {error.strerror}") from error
    print(f"{out} ({out.stat().st_size / 2**20:.1f} MiB)")
    if _CSV.value:
        write_csv(runs, Path(_CSV.value))
        print(_CSV.value)
    if _PNG.value:
        draw_picture(runs, Path(_PNG.value))
        print(_PNG.value)


def watch(folders: Sequence[Path], port: int, video_limit: int) -> None:
    """Serve the report until Ctrl-C; it follows the runs."""
    from experiments.record.report.page import page
    from experiments.record.report.runs import read_runs
    from experiments.record.report.server import Watcher, make_server

    read_runs(folders)  # says at once what is wrong

    def render(state: str) -> str:
        return page(read_runs(folders), video_limit=video_limit, watched=state)

    server = make_server(Watcher(folders, render), port)
    print(
        f"http://127.0.0.1:{server.server_address[1]} shows the report and follows the runs; Ctrl-C ends it", flush=True
    )
    server.serve_forever()


if __name__ == "__main__":
    _RUN = flags.DEFINE_multi_string("run", None, "A folder of experiments.run, once for each.", required=True)
    _OUT = flags.DEFINE_string("out", "report.html", "The report.")
    _PNG = flags.DEFINE_string("png", None, "Also draw the curves here.")
    _CSV = flags.DEFINE_string("csv", None, "Also write every number here: run, method, seed, frame, name, value.")
    _WATCH = flags.DEFINE_bool("watch", False, "Serve the report on this machine instead, and follow the runs.")
    _PORT = flags.DEFINE_integer("port", 8642, "Of --watch; 0: any that is free.", lower_bound=0, upper_bound=65535)
    _VIDEO_MIB = flags.DEFINE_integer("video_mib", 10, "MiB of videos in the report at most; 0: none.", lower_bound=0)
    app.run(main)
