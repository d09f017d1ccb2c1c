"""Updates beside their floor and beside what a user would run instead: the items of `bench --what=peer`.

The floor of an update is what its FLOPs take at the speed of this machine's matrix products. The peer is eager PyTorch
(`torch_peer`), a process per seed as its users run it, with as many threads as do it best. Ours, the peer and the
matrix product take turns, and the least of each counts: whoever else uses the machine, uses it against all of them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from agents.types import Agent, Clock, Transition
from configs import dmc_pixels
from configs.common import td3
from experiments.benches.learning import drq_agent, td3_agent
from experiments.benches.torch_worker import Peers, Timed, least
from experiments.train.seeds import over_seeds

ROUNDS = 8
TURN_SECONDS = 0.3
"""What each has a turn for, about; at least one update."""
PRODUCT = 2048
WITHOUT = "PyTorch is not installed, so there is no peer: pip install '.[bench]'"


class Comparison(NamedTuple):
    """An update of all seeds of an item, in milliseconds: ours, its floor, and the peer's, None without PyTorch."""

    name: str
    ours: Timed
    floor: float
    peer: Timed | None

    @property
    def over_floor(self) -> float:
        """How many times the floor ours takes."""
        return self.ours.clock / self.floor

    @property
    def over_peer(self) -> float | None:
        """Ours as a share of the peer."""
        return self.ours.clock / self.peer.clock if self.peer else None


HEADER = f"{'item':<42}{'ms':>9}{'floor':>9}{'ratio':>7}{'PyTorch':>10}{'ratio':>7}{'processor':>11}{'PyTorch':>10}"


def line(found: Comparison) -> str:
    """A row of the table under `HEADER`; the last two columns are processor time of all threads."""
    peer, over = found.peer, found.over_peer
    theirs = (f"{peer.clock:.2f}", f"{over:.2f}", f"{peer.processor:.2f}") if peer and over else ("-", "-", "-")
    row = f"{found.name:<42}{found.ours.clock:>9.2f}{found.floor:>9.2f}{found.over_floor:>7.2f}"
    return f"{row}{theirs[0]:>10}{theirs[1]:>7}{found.ours.processor:>11.2f}{theirs[2]:>10}"


class Item(NamedTuple):
    """Updates that are compared with one and the same peer, with the arguments that they start from."""

    updates: dict[str, tuple[Callable[..., Any], Any]]
    """By name, jitted `update(state, batch, keys, clock)` that is given its state's memory, and that state."""
    batch: Transition
    keys: Any
    each: int
    """Updates in a turn, of which some may cost more than others."""
    flops: float
    """Of one update, of all seeds."""
    peer: Callable[[], Peers]

    @property
    def threads(self) -> tuple[int, ...]:
        """Of each of the peer's processes, in turn: for small networks all cores may be slower than one."""
        cores = os.cpu_count() or 1
        return (1,) if len(self.keys) > 1 else tuple({1, cores})


def bench_peer(variant: str) -> Iterator[Comparison]:
    """DrQ at `:quick` with two seeds, DrQ at 84x84 and TD3 of width 256; or DrQ at a variant alone."""
    if find_spec("torch") is None:
        print(WITHOUT)
    items = [drq_item(variant, 2)] if variant else [drq_item("quick", 2), drq_item("", 1), td3_item()]
    for item in items:
        yield from compare(item)


def drq_item(variant: str, seeds: int) -> Item:
    """The update of `configs/dmc_pixels.py`, dense and, of the small variants, with NE beside it."""
    config = dmc_pixels.get_config(variant)
    size, batch = config.env.image_size, config.batch_size
    shape = (size, size, 3 * config.env.frame_stack)
    word = f"DrQ {size}x{size}, batch {batch}, {seeds} seed{'s' if seeds > 1 else ''}"
    agents = {f"{word}, dense": drq_agent(variant, "none", "auto")}
    if variant:
        agents[f"{word}, NE"] = drq_agent(variant, "ne", "auto")
    settings = config.agent.to_dict() | {"obs": (shape[-1], size, size), "actions": 2}
    counted = drq_agent(variant, "none", "xla")  # no loops, whose turns XLA does not count
    return _item(agents, counted, shape, seeds, batch, 1, settings)


def td3_item() -> Item:
    """TD3's update as published for MuJoCo: 17 features, 6 actions, 256-256, batch 256."""
    agent, own = td3_agent(), td3()
    settings = own.to_dict() | {"obs": (17,), "actions": 6}
    name = "TD3 256-256, batch 256, 1 seed, dense"
    return _item({name: agent}, agent, (17,), 1, 256, own.policy_delay, settings)


def _item(
    agents: dict[str, Agent],
    counted: Agent,
    shape: tuple[int, ...],
    seeds: int,
    size: int,
    each: int,
    settings: dict[str, Any],
) -> Item:
    keys, pixels = jax.random.split(jax.random.key(0), seeds), len(shape) == 3
    rng = np.random.default_rng(0)  # compiles nothing
    obs, next_obs = rng.integers(0, 256, (2, seeds, size, *shape), np.uint8)
    if not pixels:
        obs, next_obs = ((each / 128 - 1).astype(np.float32) for each in (obs, next_obs))
    action = rng.uniform(-1, 1, (seeds, size, settings["actions"])).astype(np.float32)
    reward, discount = rng.uniform(size=(2, seeds, size)).astype(np.float32)
    batch = Transition(*jax.device_put((obs, action, reward, discount, next_obs)))
    updates = {}
    for name, agent in agents.items():
        state = jax.jit(over_seeds(agent.init, "map"))(keys)
        updates[name] = jax.jit(over_seeds(agent.update, "map", shared=1), donate_argnums=0), state
    flops = seeds * flops_of(counted, jax.tree.map(lambda leaf: leaf[0], batch), each)
    peer = partial(Peers, "drq" if pixels else "td3", settings, size, seeds)
    return Item(updates, batch, keys, each, flops, peer)


def flops_of(agent: Agent, batch: Transition, each: int) -> float:
    """FLOPs of an update of one seed, the mean of `each` in a row; without loops, of which XLA counts one turn."""
    key = jax.random.key(0)
    state = jax.eval_shape(agent.init, key)
    found = []
    for number in range(1, each + 1):
        lowered = jax.jit(partial(_update_at, agent, Clock(number, number))).lower(state, batch, key)
        # A branch is counted, unless the compiler has seen that it is never taken.
        cost = (lowered.compile() if each > 1 else lowered).cost_analysis()
        found.append(cost["flops"])  # pyright: ignore[reportOptionalSubscript]
    return sum(found) / each


def _update_at(agent: Agent, clock: Clock, state: Any, batch: Transition, key: Any) -> Any:
    return agent.update(state, batch, key, clock)


def compare(item: Item, rounds: int = ROUNDS) -> Iterator[Comparison]:
    """All updates of an item, taking turns with the matrix product and the peer."""
    product = jax.jit(jnp.matmul)
    square = jnp.asarray(np.random.default_rng(0).normal(size=(PRODUCT, PRODUCT)), jnp.float32)
    with ExitStack() as stack:
        peers = stack.enter_context(item.peer()) if find_spec("torch") else None
        ours = {name: Updates(item, *update) for name, update in item.updates.items()}
        first = [least(each.time(2)) for each in ours.values()]  # compiles, and tells how many make a turn
        turns = max(1, round(1e3 * TURN_SECONDS / (item.each * max(each.clock for each in first))))
        product(square, square).block_until_ready()
        peaks, mine, theirs = [], {name: [] for name in ours}, []
        for _ in range(rounds):
            peaks.append(timed(lambda: product(square, square), 1))
            for name, each in ours.items():
                mine[name] += each.time(turns)
            if peers:
                theirs += [peers.time(turns, threads) for threads in item.threads]
    seconds = item.flops / (2 * PRODUCT**3) * least(peaks).clock
    for name, found in mine.items():
        yield Comparison(name, least(found), seconds, least(theirs) if theirs else None)


class Updates:
    """Updates in a row, as a run makes them: each is given the state of the one before, and its memory."""

    def __init__(self, item: Item, update: Callable[..., Any], state: Any) -> None:
        self._update, self._state, self._item, self._number = update, state, item, 0

    def time(self, turns: int) -> list[Timed]:
        """Milliseconds of an update, turn by turn."""
        return [timed(self._turn, self._item.each) for _ in range(turns)]

    def _turn(self) -> Any:
        for _ in range(self._item.each):
            self._number += 1
            now = Clock(self._number, self._number)
            self._state, _ = self._update(self._state, self._item.batch, self._item.keys, now)
        return self._state


def timed(fn: Callable[[], Any], count: int) -> Timed:
    """Milliseconds of one of the `count` updates that `fn` makes."""
    clock, processor = time.perf_counter(), time.process_time()
    jax.block_until_ready(fn())
    passed = time.perf_counter() - clock, time.process_time() - processor
    return Timed(*(1e3 * seconds / count for seconds in passed))
