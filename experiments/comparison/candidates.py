"""What is tried of each method: `--tune="KEY=VALUE,VALUE"` for all, `--tune="METHOD:KEY=VALUE,VALUE"` for one."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict

from experiments.build.run_names import Overrides, name_runs
from experiments.launch.overrides import make_overrides

SAME_FOR_ALL = (
    "preset",
    "seeds",
    "slice",
    "distributed",
    "total_frames",
    "seed_frames",
    "stop_at_frame",
    "plasticity.method",
    "plasticity.preset",
)
"""Keys by which candidates of one method must not differ, and all of `env` and `eval`."""


def grids_of(methods: Mapping[str, Overrides], tune: Sequence[str]) -> dict[str, list[Overrides]]:
    """All combinations of what is to be tried of each method.

    Raises:
        ValueError: there are none to choose from, or a key must be the same for all.
    """
    for each in tune:
        label = each.partition("=")[0].rpartition(":")[0]
        if label and label not in methods:
            raise ValueError(f"--tune={each}: --method={label} is not compared; add it, or drop this")
    own = {label: [each for each in tune if not _is_for_another(each, label, methods)] for label in methods}
    grids = {}
    for label, said in own.items():
        if not said:
            raise ValueError(f'--method={label} has nothing to be tuned; give it --tune="{label}:KEY=VALUE,VALUE"')
        grid = make_overrides([each.removeprefix(f"{label}:") for each in said], flag="tune")
        for key in grid[0]:
            if key in SAME_FOR_ALL or key.startswith(("env.", "eval.")):
                raise ValueError(f"--tune={key} would measure each setting by another rule; set --config.{key} for all")
            if key in methods[label]:
                raise ValueError(f"--tune={key} varies what --method={label} sets; drop one of the two")
        if len(grid) < 2:
            raise ValueError(f"--method={label} has one setting to try, so nothing to choose; give --tune more values")
        grids[label] = grid
    return grids


def _is_for_another(said: str, label: str, methods: Mapping[str, Overrides]) -> bool:
    return not said.startswith(f"{label}:") and any(said.startswith(f"{each}:") for each in methods)


def draw_candidates(grids: Mapping[str, Sequence[Overrides]], count: int) -> dict[str, dict[str, Overrides]]:
    """So many candidates of each method, by name: all, or as many drawn at random, the same ones each time."""
    found = {}
    for label, grid in grids.items():
        drawn = sorted(random.Random(0).sample(range(len(grid)), count))
        chosen = [grid[i] for i in drawn]
        found[label] = dict(zip(name_runs(chosen, "as it is"), chosen, strict=True))
    return found


def read_dev_seeds(text: Sequence[str], config: ConfigDict) -> tuple[int, ...]:
    """The seeds to tune on.

    Raises:
        ValueError: there are none, or they are no seeds, or not apart from those of the table.
    """
    try:
        seeds = tuple(int(each) for each in text)
    except ValueError as error:
        raise ValueError(f"--dev-seeds={','.join(text)} must be whole numbers, such as 100,101,102") from error
    if not seeds or len(set(seeds)) < len(seeds) or not all(0 <= seed < 2**32 for seed in seeds):
        raise ValueError(
            f"--dev-seeds={','.join(text)} must be different whole numbers from 0 to 2**32 - 1, at least one, such as "
            "--dev-seeds=100,101,102; on them --tune chooses, and on --config.seeds the table is made"
        )
    both = sorted(set(seeds) & set(config.seeds))
    if both:
        raise ValueError(
            f"--dev-seeds and --config.seeds share {', '.join(map(str, both))}; a setting looks better on the seeds "
            "that it was chosen on than it is, so take others for --dev-seeds"
        )
    return seeds
