"""A sweep on machines that are taken away, in no time: `python -m experiments.launch.simulate --runs=1000 --slots=100`.

The loop of `experiments.sweep` with a launcher whose runs only take time, and whose clock jumps from one run's end to
the next. Prints how long the sweep takes, and how much work was done twice. docs/scaling.md has its figures.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.launch.engine import Ended, carry_out
from experiments.launch.plan import Planned

FRAMES = 1_000_000


class World(NamedTuple):
    """What is assumed; times in hours."""

    hours: float
    """That a run takes by itself."""
    slots: int
    """Runs at a time."""
    preempted: float
    """Probability within an hour that a machine is taken away, and another one given."""
    checkpoint_every: float
    startup: float
    """From the start of a process to its first update; the same for each start."""
    warned: bool
    """Whether a run is told in time to save."""


class SimulatedLauncher:
    """Runs that end after their time, or with the machine that is taken from them."""

    keeps = False

    def __init__(self, world: World, seed: int) -> None:
        self._world, self._random = world, random.Random(seed)
        self._rate = -math.log1p(-world.preempted)
        self.saved: dict[str, float] = {}
        self._running: list[tuple[float, str, float]] = []
        self._runs: dict[str, Planned] = {}
        self.clock = self.busy = 0.0
        self.starts = 0

    def start(self, waiting: Sequence[Planned]) -> list[Planned]:
        """Start as many as there are slots."""
        begun = list(waiting[: self._world.slots - len(self._running)])
        for run in begun:
            left = self._world.startup + self._world.hours - self.saved.get(run.name, 0.0)
            lasts = self._random.expovariate(self._rate) if self._rate else math.inf
            heapq.heappush(self._running, (self.clock + min(left, lasts), run.name, self.clock))
            self._runs[run.name] = run
        self.starts += len(begun)
        return begun

    def ended(self, seconds: float) -> list[Ended]:
        """The next one that ends, whenever that is."""
        self.clock, name, begun = heapq.heappop(self._running)
        run, spent = self._runs[name], self.clock - begun
        self.busy += spent
        done = self.saved.get(name, 0.0) + max(0.0, spent - self._world.startup)
        if done >= self._world.hours - 1e-9:
            run.checkpoint.mkdir(parents=True)
            return [Ended(name, 0)]
        every = self._world.checkpoint_every
        self.saved[name] = done if self._world.warned else max(self.saved.get(name, 0.0), done // every * every)
        rows = run.folder / str(run.seeds[0]) / "metrics.jsonl"
        rows.parent.mkdir(parents=True, exist_ok=True)
        rows.write_text(json.dumps({"frame": int(FRAMES * done / self._world.hours)}) + "\n")
        return [Ended(name, -9)]

    def stop(self) -> str:
        """Nothing is there to be stopped."""
        return "stopped"

    def kill(self) -> None:
        """Nothing is there to be ended."""
        self._running.clear()


def simulate(world: World, runs: int, seed: int) -> str:
    """Carry out such a sweep; what there is to say of it."""
    with tempfile.TemporaryDirectory() as root:
        plan = [_planned(Path(root), f"run{i}") for i in range(runs)]
        launcher = SimulatedLauncher(world, seed)
        result = carry_out(plan, launcher, lambda states, why: None, print, retries=2)
        useful = runs * world.hours - sum(
            world.hours - launcher.saved.get(run.name, 0.0) for run in plan if not run.done
        )
    least = math.ceil(runs / world.slots) * (world.hours + world.startup)
    starting, lost = launcher.starts * world.startup, launcher.busy - useful
    return (
        f"{sum(state.value == 'done' for state in result.states.values())} of {runs} done in {launcher.clock:.1f} h "
        f"(without failures {least:.1f} h), {launcher.starts - runs} restarts, {launcher.busy:,.0f} machine hours, "
        f"{starting:,.0f} of them for starting, {max(0.0, lost - starting):,.0f} for work that was lost"
    )


def _planned(root: Path, name: str) -> Planned:
    return Planned(name, {}, (), root / name, (0,), FRAMES, root / name / "checkpoint", 0, root / f"{name}.txt")


def main() -> None:
    """Simulate what the command line says, with and without a warning."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--slots", type=int, default=100, help="runs at a time")
    parser.add_argument("--hours", type=float, default=4.0, help="that a run takes")
    parser.add_argument("--preempted", type=float, default=0.05, help="probability within an hour, for each machine")
    parser.add_argument("--checkpoint-every", type=float, default=10.0, help="minutes")
    parser.add_argument("--startup", type=float, default=2.0, help="minutes from a start to the first update")
    parser.add_argument("--seed", type=int, default=0)
    told = parser.parse_args()
    if min(told.runs, told.slots) < 1 or min(told.hours, told.checkpoint_every) <= 0 or told.startup < 0:
        parser.error("--runs and --slots must be at least 1, times positive")
    if not 0 <= told.preempted < 1:
        parser.error(f"--preempted must lie in [0, 1), got {told.preempted}")
    for warned in (True, False):
        world = World(
            told.hours, told.slots, told.preempted, told.checkpoint_every / 60, told.startup / 60, warned=warned
        )
        print(f"{'warned' if warned else 'not warned'}: {simulate(world, told.runs, told.seed)}")


if __name__ == "__main__":
    main()
