"""Runs as jobs of SLURM, by submitit (extra `submitit`); its executor `local` does the same on this machine.

A job is an element of a job array; it starts the run and waits for it. SLURM's warning, before a time limit or when a
job is preempted (SIGUSR2; submitit's `signal_delay_s`), is passed on as SIGTERM: the run saves, stops, and the job goes
back into the queue. Jobs live on when the sweep ends; the same command finds them again.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from experiments.launch import leash
from experiments.launch.engine import STOPPED, Ended
from experiments.launch.plan import Planned
from experiments.record.metrics_files import write_json

GENERIC = ("name", "timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node")
"""Settings that submitit calls alike for every executor; the others are SLURM's."""
OVER = (
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "TIMEOUT",
)
"""States after which SLURM does nothing more with a job."""
TIMEOUTS = 1_000
"""How often a job may go back into the queue because its time was over; each time it has come further."""
WARNING_COMES_WITHIN = 60
"""Seconds: SLURM tells a run itself that it is preempted, and the job some time later."""


class Job:
    """What a job does: `submitit` calls it, and `checkpoint` when the job is warned."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._command, self._log = list(command), log
        self._run: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """Start the run and wait for it; its status."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        command = leash.command(self._log, "", os.getpid(), self._command)
        self._run = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        while (status := self._run.poll()) is None:
            time.sleep(0.2)
        if status == STOPPED:  # it was told before we were
            time.sleep(WARNING_COMES_WITHIN)
        return status

    def checkpoint(self) -> Any:
        """Pass the warning on, wait until the run has saved, and ask for the same job again."""
        submission = importlib.import_module("submitit.helpers").DelayedSubmission
        if self._run is not None and self._run.returncode is None:
            self._run.send_signal(signal.SIGTERM)
            with suppress(ChildProcessError):
                # Not `Popen.wait`, whose lock the frame that this signal has interrupted may hold
                os.waitid(os.P_PID, self._run.pid, os.WEXITED | os.WNOWAIT)
        return submission(Job(self._command, self._log))


def load_submitit() -> Any:
    """The package.

    Raises:
        ValueError: it is not installed.
    """
    try:
        return importlib.import_module("submitit")
    except ImportError as error:
        raise ValueError(
            '--launcher=submitit needs a package that is not installed: pip install "submitit>=1.5,<2"'
        ) from error


class SubmititLauncher:
    """Jobs by submitit.

    Args:
        folder: of the sweep; submitit's files go to `submitit` below it.
        settings: `cluster` (slurm, or local), `max_num_timeout`, and what submitit's executors know.
        parallel: jobs at a time; None: as many as SLURM lets run.

    Raises:
        ValueError: submitit is not installed, SLURM is not there, or a setting is unknown.
    """

    keeps = True

    def __init__(self, folder: Path, settings: Mapping[str, Any], parallel: int | None) -> None:
        self._submitit = load_submitit()
        own = dict(settings)
        self._cluster, timeouts = own.pop("cluster", "slurm"), own.pop("max_num_timeout", TIMEOUTS)
        self._folder, self._parallel = folder / "submitit", parallel
        self.here = self._cluster == "local"  # whether runs get this machine's memory
        if self._cluster not in ("slurm", "local"):
            raise ValueError(f"--slurm.cluster must be slurm, or local for jobs of this machine, got {self._cluster!r}")
        try:
            self._executor = self._submitit.AutoExecutor(
                self._folder, cluster=self._cluster, **{f"{self._cluster}_max_num_timeout": timeouts}
            )
            self._executor.update_parameters(**self._parameters(own))
        except (RuntimeError, NameError, AssertionError) as error:
            told = " ".join(str(error).split())
            raise ValueError(f"--launcher=submitit cannot be used so: {told}") from error
        self._jobs: dict[str, Any] = {}
        self._note = self._folder / "jobs.json"
        self._ids: dict[str, str] = json.loads(self._note.read_text()) if self._note.exists() else {}

    def _parameters(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        found = {key if key in GENERIC else f"slurm_{key}": value for key, value in settings.items()}
        if self._parallel and self._cluster == "slurm":
            found["slurm_array_parallelism"] = self._parallel
        return {"name": "ne_jax", "timeout_min": 24 * 60} | found

    def start(self, waiting: Sequence[Planned]) -> list[Planned]:
        """Find the jobs that are in the queue or run already, and submit the others as one array.

        Raises:
            ValueError: SLURM does not take them.
        """
        known = self._found([run for run in waiting if run.name in self._ids])
        self._jobs |= known
        others = [run for run in waiting if run.name not in known]
        if self._cluster == "local" and self._parallel:  # which has no queue
            others = others[: max(0, self._parallel - len(self._jobs))]
        if others:
            self._submit(others)
        return [run for run in waiting if run.name in known] + others

    def _submit(self, runs: Sequence[Planned]) -> None:
        try:
            with self._executor.batch():
                jobs = [self._executor.submit(Job(run.command, run.log.absolute())) for run in runs]
        except (self._submitit.core.utils.FailedJobError, self._submitit.core.utils.FailedSubmissionError) as error:
            raise ValueError(f"SLURM does not take the jobs: {' '.join(str(error).split())}") from error
        self._jobs |= {run.name: job for run, job in zip(runs, jobs, strict=True)}
        self._ids |= {run.name: job.job_id for run, job in zip(runs, jobs, strict=True)}
        write_json(self._note, self._ids)

    def _found(self, runs: Sequence[Planned]) -> dict[str, Any]:
        """The jobs that were submitted for these runs, here or by an earlier sweep, and are not over."""
        kind = self._submitit.SlurmJob if self._cluster == "slurm" else self._submitit.LocalJob
        jobs = {run.name: kind(self._folder, self._ids.pop(run.name)) for run in runs}
        if jobs and self._cluster == "slurm":
            kind.watcher.update()  # asks once for all
        # What SLURM knows nothing of is over; were it not, the lock on the run's log would keep the two apart.
        found = {name: job for name, job in jobs.items() if not self._over(job) and job.state != "UNKNOWN"}
        self._ids |= {name: job.job_id for name, job in found.items()}
        return found

    def _over(self, job: Any) -> bool:
        if job.paths.result_pickle.exists():
            return True
        if self._cluster == "local":
            return not _is_controller(int(job.job_id))
        return job.state.split(" ")[0].rstrip("+") in OVER  # which is asked for from time to time

    def ended(self, seconds: float) -> Iterable[Ended]:
        """Those whose job is over."""
        time.sleep(seconds)
        over = [name for name, job in self._jobs.items() if self._over(job)]
        return [Ended(name, _status(self._jobs.pop(name))) for name in over]

    def stop(self) -> str:
        """Jobs go on without us."""
        ids = " ".join(job.job_id for job in self._jobs.values())
        how = f"scancel {ids}" if self._cluster == "slurm" else f"kill {ids}"
        return f"the jobs go on, and the same command shows them again; to end them: {how}" if ids else "no job is left"

    def kill(self) -> None:
        """Nothing here belongs to us alone."""


def _is_controller(process: int) -> bool:
    """Whether this is a living process of submitit's local executor, and not one that has its number now."""
    try:
        found = psutil.Process(process)
        return found.status() != psutil.STATUS_ZOMBIE and "submitit.local._local" in found.cmdline()
    except psutil.Error:
        return False


def _status(job: Any) -> int:
    """The status of a run whose job is over; SIGKILL's if the job ended before the run did."""
    if not job.paths.result_pickle.exists():
        return -signal.SIGKILL
    outcome, value = job._get_outcome_and_result()
    return value if outcome == "success" else 1
