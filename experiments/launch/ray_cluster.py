"""Runs on a cluster of Ray: each is an actor that starts the run's command line where there is room, and waits."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.launch import leash
from experiments.launch.engine import STOPPING, Ended
from experiments.launch.plan import Planned

HERE = "local"
"""The address of a Ray that is started for the sweep, on this machine, and ends with it."""
NEEDS = ("num_cpus", "num_gpus", "memory", "resources", "accelerator_type")
"""Settings that say what each run needs, as Ray calls them; memory in bytes."""


class Job:
    """What an actor does. Its methods run in threads of their own, so that a run can be told to stop."""

    def __init__(self, command: Sequence[str], log: str, folder: str) -> None:
        self._command, self._log, self._folder = list(command), Path(log), folder
        self._run: subprocess.Popen[bytes] | None = None
        self._told: int | None = None

    def begun(self) -> None:
        """Answers as soon as the actor has its place."""

    def train(self) -> int:
        """Start the run and wait for it; its status."""
        if self._told is not None:
            return -self._told
        self._log.parent.mkdir(parents=True, exist_ok=True)
        command = leash.command(self._log, "", os.getpid(), self._command)
        self._run = subprocess.Popen(command, cwd=self._folder, stdin=subprocess.DEVNULL)
        return self._run.wait()

    def tell(self, number: int) -> None:
        """Send the run a signal; a run that has not begun then does not begin."""
        self._told = number
        if self._run is not None:
            self._run.send_signal(number)


def load_ray() -> Any:
    """The package.

    Raises:
        ValueError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers otherwise
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise ValueError('--launcher=ray needs a package that is not installed: pip install "ray>=2.50,<3"') from error


class RayLauncher:
    """Actors of Ray, which end with the sweep. What waits for room waits in Ray's queue.

    Args:
        settings: `address` of a cluster, auto for that of this machine, none for a Ray that lives as long as the
            sweep; and what each run `NEEDS`.
        parallel: runs at a time; None: as many as there is room for.

    Raises:
        ValueError: Ray is not installed, there is no cluster, or a setting is unknown or can never be met.
    """

    keeps = False

    def __init__(self, settings: Mapping[str, Any], parallel: int | None) -> None:
        own = dict(settings)
        address = own.pop("address", HERE)
        for key in own:
            if key not in NEEDS:
                raise ValueError(f"--ray.{key} is no setting; there are --ray.address, --ray.{', --ray.'.join(NEEDS)}")
        self._ray = load_ray()
        self._job = self._ray.remote(Job)
        try:
            self._job.options(**own)
        except (ValueError, TypeError) as error:
            raise ValueError(f"--ray.KEY=VALUE cannot be so: {' '.join(str(error).split())}") from error
        self._connect(address)
        there = self._ray.cluster_resources()
        self._needs = {"num_cpus": 1, "num_gpus": min(1, there.get("GPU", 0))} | own
        if address == HERE:
            check_needs(self._needs, there)
        self.here, self._parallel = address == HERE, parallel
        self._actors: dict[str, tuple[Any, Any]] = {}
        """By run: its actor, and what answers when that has its place."""
        self._runs: dict[Any, str] = {}
        """By what answers when a run is over: the run."""

    def _connect(self, address: str) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if address == HERE:
            quiet["include_dashboard"] = False
        try:
            self._ray.init(address=address, **quiet)
        except Exception as error:  # it raises all kinds, that one itself, too
            told = " ".join(str(error).split())
            raise ValueError(f"--ray.address={address} cannot be used: {told}") from error

    def start(self, waiting: Sequence[Planned]) -> list[Planned]:
        """Hand the first of these to Ray, as many as may be under way."""
        room = len(waiting) if self._parallel is None else max(0, self._parallel - len(self._actors))
        for run in waiting[:room]:
            job = self._job.options(max_concurrency=4, max_restarts=0, **self._needs)
            actor = job.remote(run.command, str(run.log.absolute()), os.getcwd())
            self._actors[run.name] = actor, actor.begun.remote()
            self._runs[actor.train.remote()] = run.name
        return list(waiting[:room])

    def ended(self, seconds: float) -> list[Ended]:
        """Those whose run is over, or whose actor is gone; waits for the first of them, or for so many seconds."""
        if not self._runs:
            time.sleep(seconds)
            return []
        over, _ = self._ray.wait(list(self._runs), num_returns=1, timeout=seconds)
        return [self._end(each) for each in over]

    def _end(self, answer: Any) -> Ended:
        name = self._runs.pop(answer)
        actor, _ = self._actors.pop(name)
        try:
            status = self._ray.get(answer)
        except self._ray.exceptions.RayActorError:  # its machine, or the process around the run, is gone
            status = -signal.SIGKILL
        except self._ray.exceptions.RayTaskError:  # the run could not be started
            status = 1
        self._ray.kill(actor)
        return Ended(name, status)

    def stop(self) -> str:
        """Ask all that have begun to save and stop, and take the others out of the queue."""
        self._tell(signal.SIGTERM)
        return STOPPING

    def kill(self) -> None:
        """End all at once."""
        self._tell(signal.SIGKILL)

    def _tell(self, number: signal.Signals) -> None:
        for actor, begun in self._actors.values():
            if self._ray.wait([begun], timeout=0)[0]:
                actor.tell.remote(int(number))
            else:
                self._ray.kill(actor)

    def close(self) -> None:
        """Leave the cluster; one that was started for the sweep ends."""
        self._ray.shutdown()


def check_needs(needs: Mapping[str, Any], there: Mapping[str, float]) -> None:
    """ValueError for what a run needs and this machine does not have; a cluster may grow."""
    for key, name in (("num_cpus", "CPU"), ("num_gpus", "GPU"), ("memory", "memory")):
        if needs.get(key, 0) > there.get(name, 0):
            raise ValueError(
                f"--ray.{key}={needs[key]} is more than the {there.get(name, 0):g} of this machine; lower it, or name "
                "a cluster by --ray.address"
            )
