"""A process of PyTorch that times the peer's updates when it is told to: started and spoken to by `Peers`.

The child is PyTorch alone, with no jax in it: each library has its own threads, which would get in each other's way.
Between its turns a child waits for a line, and takes no processor time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

READY = "ready"


class Timed(NamedTuple):
    """Milliseconds of an update, by the clock and of processor time."""

    clock: float
    processor: float


def least(found: Sequence[Timed]) -> Timed:
    """The least of each."""
    return Timed(min(each.clock for each in found), min(each.processor for each in found))


class Peers:
    """Processes of the peer that update side by side, one per seed.

    Args:
        agent: `drq` or `td3`.
        settings: what `torch_peer.form_of` takes, as JSON can say it.
        batch: transitions in a batch.
        seeds: how many processes.

    Raises:
        RuntimeError: PyTorch failed in one of them.
    """

    def __init__(self, agent: str, settings: dict[str, Any], batch: int, seeds: int) -> None:
        spec = json.dumps({"agent": agent, "settings": settings, "batch": batch})
        command = [sys.executable, "-m", __name__, spec]
        pipes: dict[str, Any] = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._children = [subprocess.Popen(command, **pipes) for _ in range(seeds)]
        for child in self._children:
            if self._line(child) != READY:
                self.close()
                raise RuntimeError("a process of PyTorch failed; what it said stands above")

    def time(self, turns: int, threads: int) -> Timed:
        """One update of all seeds, the least of so many turns: by the clock of the slowest, processor time of all."""
        for child in self._children:
            assert child.stdin is not None
            child.stdin.write(json.dumps([turns, threads]) + "\n")
            child.stdin.flush()
        found = [Timed(*json.loads(self._line(child) or "[]")) for child in self._children]
        return Timed(max(each.clock for each in found), sum(each.processor for each in found))

    def close(self) -> None:
        """End the processes."""
        for child in self._children:
            child.kill()
            child.communicate()

    def __enter__(self) -> Peers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @staticmethod
    def _line(child: subprocess.Popen[str]) -> str:
        assert child.stdout is not None
        return child.stdout.readline().strip()


def main(spec: dict[str, Any]) -> None:
    """Answer each line `[turns, threads]` with `[clock, processor]`, until there are no more."""
    import torch  # pyright: ignore[reportMissingImports]

    from experiments.benches import torch_peer

    form = torch_peer.form_of(spec["settings"])
    agent = {"drq": torch_peer.DrQ, "td3": torch_peer.TD3}[spec["agent"]](form)
    size, pixels = (spec["batch"], *form.obs), len(form.obs) == 3
    obs, next_obs = torch.randint(256, (2, *size), dtype=torch.uint8) if pixels else torch.randn(2, *size)
    action, (reward, discount) = torch.rand(size[0], form.actions), torch.rand(2, size[0], 1)
    batch = torch_peer.Batch(obs, action, reward, discount, next_obs)
    each = 1 if pixels else form.policy_delay  # updates in a turn: the actor's are part of it
    for _ in range(2 * each):
        agent.update(batch, 0.5)
    print(READY, flush=True)
    for line in sys.stdin:
        turns, threads = json.loads(line)
        torch.set_num_threads(threads)
        found = []
        for _ in range(turns):
            clock, processor = time.perf_counter(), time.process_time()
            for _ in range(each):
                agent.update(batch, 0.5)
            passed = time.perf_counter() - clock, time.process_time() - processor
            found.append(Timed(*(1e3 * seconds / each for seconds in passed)))
        print(json.dumps(least(found)), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
