"""The one loop of a sweep: give runs to a launcher while it takes them, hear how they end, restart what was killed."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from experiments.launch.plan import Planned
from experiments.launch.progress import State, progress_of

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
STOPPED = 130
"""The status of a run that has saved and stopped, because it was asked to."""
STOPPING = "stopping: runs under way save a checkpoint (Ctrl-C again stops at once and loses what came after the last)"
"""What becomes of runs that end with the sweep when it is asked to stop."""
WRONG = 2
"""That of a run which says in a sentence what is wrong; it would say so again."""


class Ended(NamedTuple):
    """A run whose process is gone."""

    name: str
    status: int
    """Negative: the signal that killed it."""


class Launcher(Protocol):
    """What starts runs. A run is a command line that goes on by itself when it is started again."""

    def start(self, waiting: Sequence[Planned]) -> Sequence[Planned]:
        """Start the first of these for which there is room; which they were."""
        ...

    def ended(self, seconds: float) -> Iterable[Ended]:
        """Those that have ended since the last call; it waits for so long at most."""
        ...

    def stop(self) -> str:
        """The user has asked to stop: what becomes of the runs that are under way, in a sentence."""
        ...

    def kill(self) -> None:
        """The user has asked again: end what belongs to the launcher at once."""
        ...

    @property
    def keeps(self) -> bool:
        """Whether runs live on after the sweep, so that there is nothing to wait for when it stops."""
        ...


class Result(NamedTuple):
    """How all runs stand in the end, and why those that failed did."""

    states: dict[str, State]
    why: dict[str, str]
    stopped: bool


class Stop:
    """Counts how often the user, or a scheduler, has asked to stop. Only a second Ctrl-C means at once."""

    def __init__(self) -> None:
        self.asked = self.at_once = False
        self._previous = {number: signal.signal(number, self._on_signal) for number in STOP_SIGNALS}

    def _on_signal(self, number: int, _: Any) -> None:
        self.at_once = self.at_once or (self.asked and number == signal.SIGINT)
        self.asked = True

    def close(self) -> None:
        """Give the signals their usual meaning back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)


def carry_out(
    runs: Sequence[Planned],
    launcher: Launcher,
    tell: Callable[[Mapping[str, State], Mapping[str, str]], None],
    say: Callable[[str], None],
    retries: int,
) -> Result:
    """Train all runs that are not done yet.

    Args:
        tell: called with the state of each run, and why it failed, about every second.
        say: called with a sentence for the user.
        retries: how often a run that died without a word, no further than before, is started again.
    """
    by_name = {run.name: run for run in runs}
    states = {run.name: State.DONE if run.done else State.WAITING for run in runs}
    why: dict[str, str] = {}
    tries, reached, stop, told = Counter[str](), Counter[str](), Stop(), False
    try:
        while True:
            if stop.at_once:
                launcher.kill()
            if stop.asked and not told:
                say(launcher.stop())
                told = True
                if launcher.keeps:
                    break
            if not told:
                for run in launcher.start([by_name[name] for name, state in states.items() if state is State.WAITING]):
                    states[run.name] = State.RUNNING
            tell(states, why)
            if State.RUNNING not in states.values():
                break
            for name, status in launcher.ended(1.0):
                frame = progress_of(by_name[name]).frame
                tries[name] *= frame <= reached[name]
                reached[name] = max(reached[name], frame)
                states[name], reason = _after(by_name[name], status, told, tries[name] < retries)
                tries[name] += states[name] is State.WAITING
                why |= {name: reason} if reason else {}
        tell(states, why)
    finally:
        stop.close()
    return Result(states, why, told)


def _after(run: Planned, status: int, stopping: bool, again: bool) -> tuple[State, str]:
    """The state of a run whose process has ended, and why if that is not as it should be."""
    if status == 0 and run.done:
        return State.DONE, ""
    if stopping and (status == STOPPED or status < 0):
        return State.STOPPED, ""
    if status == WRONG:
        return State.FAILED, _last_error(run)
    if status < 0:
        reason = f"killed by {signal.Signals(-status).name}"
    else:
        reason = {0: "it ended without its last checkpoint", STOPPED: "asked to stop by someone else"}.get(
            status, f"status {status}"
        )
    return (State.WAITING, f"{reason}; it goes on") if again else (State.FAILED, f"{reason}, see {run.log}")


def _last_error(run: Planned) -> str:
    """The sentence with which a run has refused."""
    lines = run.log.read_text(errors="replace").splitlines() if run.log.exists() else []
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return said[-1] if said else f"see {run.log}"
