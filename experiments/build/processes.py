"""Processes that `jax.distributed` brings together for one run: each trains its share of the seeds.

The seeds exchange nothing, so each process runs programs of its own devices, in its own time. What is one for all is
what they save: a checkpoint is of arrays that lie over the devices of all processes. They meet at log points, to stop
and to save at the same step.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from operator import itemgetter
from threading import Timer
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import PyTree
from ml_collections import ConfigDict

from experiments.build.determinism import has_begun, make_repeatable
from experiments.build.devices import cut_cpu
from experiments.build.errors import UserError

ADDRESS, COUNT, NUMBER = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
"""The variables that say where process 0 can be reached, how many there are, and which one this is."""
OF_ANOTHER = ("Gloo", "NCCL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "Connection reset", "another task")
"""Words in the errors of jax and gloo where another process has ended."""
SILENT = 20.0
"""Seconds of waiting for others after which a process says that it waits."""
LAST_WORDS = 3.0
"""Seconds that process 0, with which all connections end, waits until the others have said what went wrong, too."""


def joined(config: ConfigDict, variables: Mapping[str, str] = os.environ) -> ConfigDict:
    """Join the other processes, if the config says so: the config with the seeds of this process alone.

    To be called before anything asks for a device, and after all that can be checked without one. Process `i` of `n`
    has the `i`-th of `n` equal parts of the seeds.

    Raises:
        ValueError: nothing says where the others are, jax has begun, or each cannot have as many seeds.
        UserError: they did not come together in five minutes.
    """
    if not config.get("distributed", False):
        return config
    numbers = _numbers(variables)
    if has_begun():
        raise ValueError(
            "distributed=True comes too late, for jax has begun in this process; start the run in one of its own"
        )
    # Its own handler would swallow SIGTERM until training begins; a run has handlers itself.
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # accelerators have their own
    where = variables.get(ADDRESS, "the address of process 0")
    waiting = Timer(SILENT, print, [f"waiting for the other processes at {where}, five minutes at most"])
    waiting.start()
    try:
        jax.distributed.initialize(num_processes=numbers[0], process_id=numbers[1])
    except ValueError as error:
        raise ValueError(
            f"distributed=True needs to know of the other processes ({str(error).rstrip('.')}): start it with srun or "
            f"mpirun, or set {ADDRESS}=HOST:PORT of process 0, {COUNT} and {NUMBER}"
        ) from error
    except RuntimeError as error:
        raise UserError(f"not all processes came together at {where}: {str(error).splitlines()[0]}") from error
    finally:
        waiting.cancel()
    # Before jax begins, which asking for the number of processes makes it do.
    cut_cpu(config)
    make_repeatable(config.deterministic)
    seeds, count, number = tuple(config.seeds), jax.process_count(), jax.process_index()
    if len(seeds) % count:
        jax.distributed.shutdown()  # all end alike
        raise ValueError(
            f"distributed=True gives each process as many seeds, and {len(seeds)} seeds cannot be shared so by {count} "
            f"processes; give a multiple of {count} seeds, or let slice share them"
        )
    own, each = config.copy_and_resolve_references(), len(seeds) // count
    own.seeds, own.distributed = seeds[number * each : (number + 1) * each], False
    return own


def _numbers(variables: Mapping[str, str]) -> tuple[int | None, int | None]:
    """How many processes there are, and which one this is; None where jax has to find out by itself."""
    address = variables.get(ADDRESS)
    if address and not address.rpartition(":")[2].isdecimal():
        raise ValueError(f"{ADDRESS}={address} names no port; set it to HOST:PORT of process 0, such as node1:1234")
    said = [variables.get(name) for name in (COUNT, NUMBER)]
    if any(each is not None and not each.isdecimal() for each in said) or (None in said and said != [None, None]):
        raise ValueError(
            f"{COUNT} and {NUMBER} must both be whole numbers, or both be unset, got {said[0]} and {said[1]}"
        )
    count, number = (None if each is None else int(each) for each in said)
    if count is not None and number is not None and number >= count:
        raise ValueError(f"{NUMBER}={number} must be less than {COUNT}={count}: the first is number 0")
    return count, number


def several() -> bool:
    """Whether there are other processes in this run."""
    return jax.process_count() > 1


def is_first() -> bool:
    """Whether this process writes what belongs to all, and is the one that talks."""
    return jax.process_index() == 0


def say(sentence: str) -> None:
    """Print it once for all processes."""
    if is_first():
        print(sentence)


def anywhere(flag: bool) -> bool:
    """Whether it holds in any process; all have to ask, in the same order."""
    return bool(_gathered(np.asarray(flag)).any()) if several() else flag


def least(number: float) -> float:
    """The smallest that any process has; all have to ask, in the same order."""
    return float(_gathered(np.asarray(number, np.float32)).min()) if several() else number


def wait_for_all() -> None:
    """Go on once all processes have come here."""
    anywhere(False)


def brought_to_first(tree: PyTree) -> list[PyTree]:
    """What each process has, for process 0, as NumPy's arrays; nothing for the others."""
    if not several():
        return [tree]
    found, each = _gathered(tree), range(jax.process_count() if is_first() else 0)
    return [jax.tree.map(itemgetter(i), found) for i in each]


def _gathered(tree: PyTree) -> Any:
    """The arrays of all processes, which lead with the process."""
    with meeting():
        return multihost_utils.process_allgather(tree)


@contextmanager
def meeting() -> Iterator[None]:
    """For what all processes do together.

    Raises:
        UserError: one of them is gone.
    """
    try:
        yield
    except (ValueError, RuntimeError) as error:
        if not (several() and any(word in str(error) for word in OF_ANOTHER)):
            raise
        raise UserError(
            "another process of this run has ended, and its own output says why; the same commands, in all processes, "
            f"go on from the newest checkpoint ({str(error).splitlines()[0][:120]})"
        ) from error


def part() -> None:
    """Leave the others, at the end of the run, once all have come there."""
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()


def end_alone(status: int) -> None:
    """End this process at once if it comes to its end without `part`, so that the others do not wait for it.

    An orderly exit would wait for them, as they do for it.
    """
    if not jax.distributed.is_initialized():
        return
    if sys.exc_info()[0]:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    if is_first():
        time.sleep(LAST_WORDS)
    os._exit(status)
