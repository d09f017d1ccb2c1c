"""Start a run so that no other process trains it, and that it does not outlive who started it.

`python -m experiments.launch.leash LOG CORES PARENT COMMAND...` takes a lock on LOG, to which all goes that is printed,
and becomes COMMAND. The lock is the kernel's (`flock`): it ends with the process, however that ends, and is never left
behind. Where another process still holds it, a run that a killed sweep has left and that is saving, this waits.

On Linux the kernel sends SIGTERM to the run when PARENT dies, SIGKILL included, and the run saves and stops. PARENT 0:
it lives on by itself. CORES, such as 0,1, are those that it may use; XLA makes as many threads. Empty: all.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1


def command(log: Path, cores: str, parent: int, run: Sequence[str]) -> list[str]:
    """The command line that starts `run` on a leash."""
    return [sys.executable, "-m", "experiments.launch.leash", str(log), cores, str(parent), *run]


def is_held(log: Path) -> bool:
    """Whether a process is at the run with this log."""
    if not log.exists():
        return False
    with log.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def main(log: str, cores: str, parent: str, *run: str) -> None:
    """Become `run`."""
    if sys.platform == "linux" and int(parent):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(parent):
            sys.exit("who has started this run is gone")
    if sys.platform == "linux" and cores:
        os.sched_setaffinity(0, map(int, cores.split(",")))
    locked, printed = (os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644) for _ in range(2))
    fcntl.flock(locked, fcntl.LOCK_EX)
    os.set_inheritable(locked, True)  # by the run, whose own children get what it prints to, and not the lock
    for number in (1, 2):
        os.dup2(printed, number)
    os.execv(run[0], run)


if __name__ == "__main__":
    main(*sys.argv[1:])
