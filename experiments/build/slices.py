"""A run whose seeds are spread over processes: each trains `seeds[i::n]`, and none knows anything of the others."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ml_collections import ConfigDict

NUMBERED_BY = (("SLURM_PROCID", "SLURM_NTASKS"), ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"))
"""The variables in which SLURM's srun and Open MPI's mpirun tell a process its number, and how many there are."""


@dataclass(frozen=True)
class Slice:
    """Which of a run's processes this is."""

    index: int
    count: int

    @property
    def name(self) -> str:
        """As that of a folder."""
        return f"{self.index}_of_{self.count}"


def slice_of(config: ConfigDict, variables: Mapping[str, str] = os.environ) -> Slice | None:
    """The slice that a config asks for; None where one process trains all seeds, which 0/1 says, too.

    Raises:
        ValueError: `slice` says none, or has more processes than there are seeds, or `distributed` shares them, too.
    """
    text = config.get("slice", "")
    if not text:
        return None
    if config.get("distributed", False):
        raise ValueError(
            f"slice={text} and distributed=True both share the seeds among processes; leave slice empty, or, for "
            "processes that need not start together, set --config.distributed=False"
        )
    said = text
    if text == "auto":
        numbers = [(variables[i], variables[n]) for i, n in NUMBERED_BY if i in variables and n in variables]
        if not numbers:
            raise ValueError(
                "slice=auto needs the variables of SLURM's srun or Open MPI's mpirun, and there are none; "
                "say which by hand, such as --config.slice=0/2"
            )
        said = "/".join(numbers[0])
    parts = re.fullmatch(r"(\d+)/(\d+)", said)
    if not parts or not int(parts[1]) < int(parts[2]):
        raise ValueError(f"slice must be i/n with i from 0 to n - 1, such as 0/2 and 1/2, or auto, got {text!r}")
    found = Slice(int(parts[1]), int(parts[2]))
    if found.count > len(config.seeds):
        raise ValueError(
            f"slice={said} is one of {found.count} processes, and there are {len(config.seeds)} seeds; each needs one, "
            "so lower n, or add seeds"
        )
    return found if found.count > 1 else None


def own_seeds(config: ConfigDict) -> ConfigDict:
    """The config with the seeds of this process alone; the same one where it trains all.

    Raises:
        ValueError: as `slice_of`.
    """
    own = slice_of(config)
    if own is None:
        return config
    found = config.copy_and_resolve_references()
    found.seeds, found.slice = tuple(config.seeds)[own.index :: own.count], ""
    return found
