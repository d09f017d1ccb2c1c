"""A launcher on a Ray of its own: `python -m ray_session FOLDER` starts runs, loses some, stops, and checks it all."""

import functools
import signal
import sys
from pathlib import Path

import psutil
import waiting
from planned import planned

from experiments.launch.engine import STOPPED
from experiments.launch.ray_cluster import RayLauncher

SAVES = "signal.signal(signal.SIGTERM, lambda *_: (folder / 'saved').touch() or sys.exit(130))\n"
WAITS = SAVES + "(folder / 'begun').write_text(str(os.getpid())); time.sleep(600)"


wait_for = functools.partial(waiting.wait_for, seconds=300.0)


def ends(launcher, count):
    """The status of each of so many runs, once they have ended."""
    found = {}
    wait_for(lambda: found.update(launcher.ended(0.2)) or len(found) == count)
    return found


def begun(run):
    """The process of a run, once it is there."""
    path = run.folder / "begun"
    return int(wait_for(lambda: path.exists() and path.read_text()))


def start_and_end(launcher, root):
    runs = [
        planned(root, "good", "end()"),
        planned(root, "bad", "print('error: no'); sys.exit(2)"),
        planned(root, "dies", "os.kill(os.getpid(), signal.SIGKILL)"),
    ]
    assert [run.name for run in launcher.start(runs)] == ["good", "bad"]  # two at a time
    assert ends(launcher, 2) == {"good": 0, "bad": 2} and runs[0].done
    assert "error: no" in runs[1].log.read_text()
    assert [run.name for run in launcher.start(runs[2:])] == ["dies"]
    assert ends(launcher, 1) == {"dies": -signal.SIGKILL}


def lose(launcher, root):
    lost = planned(root, "lost", WAITS)
    launcher.start([lost])
    parent = psutil.Process(begun(lost)).parent()
    assert parent is not None
    parent.kill()  # the actor's process, as when its machine is gone
    assert ends(launcher, 1) == {"lost": -signal.SIGKILL}
    wait_for(lambda: (lost.folder / "saved").exists())


def stop(launcher, root):
    runs, waits = (planned(root, name, WAITS) for name in ("runs", "waits"))
    launcher.start([runs])
    begun(runs)
    launcher._needs["num_cpus"] = 5_000  # for which there is never room
    launcher.start([waits])
    assert "save a checkpoint" in launcher.stop()
    assert ends(launcher, 2) == {"runs": STOPPED, "waits": -signal.SIGKILL}
    assert (runs.folder / "saved").exists() and not (waits.folder / "begun").exists()


if __name__ == "__main__":
    made = RayLauncher({}, 2)
    for part in (start_and_end, lose, stop):
        part(made, Path(sys.argv[1]))
        print(part.__name__, flush=True)
    made.close()
    print("all is as it should be")
