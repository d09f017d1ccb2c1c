"""What the main programs are made of, against a baseline: `python -m experiments.benches.count` (`make bench-smoke`).

Each main program is compiled at small shapes for a CPU, and counted: conditionals, sorts and convolutions in its jaxpr,
FLOPs, bytes that it touches, temporary memory and donated bytes. Counts must be equal, the others lie within
TOLERANCE of `experiments/benches/counts.json`. Nothing is timed, so a busy machine changes nothing. `--write` makes the
baseline anew, where a change is meant. XLA counts the body of a loop once.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jax
from absl import app, flags
from jax.extend.core import ClosedJaxpr, Jaxpr

from configs import gymnax_states
from experiments.benches.learning import drq_update
from experiments.build.experiment import Experiment, setup
from experiments.train.loop import Run
from experiments.train.seeds import over_seeds

BASELINE = Path(__file__).parent / "counts.json"
TOLERANCE = 0.1
COUNTED = ("cond", "sort", "conv_general_dilated")
Counts = dict[str, float]


def count(fn: Any, *args: Any) -> Counts:
    """What a jitted function of these arguments is made of."""
    traced = fn.trace(*args)
    found: Counts = dict.fromkeys(COUNTED, 0)
    _primitives(traced.jaxpr.jaxpr, found)
    compiled = traced.lower().compile()
    cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
    found |= {"flops": cost["flops"], "bytes accessed": cost["bytes accessed"]}
    return found | {"temporary bytes": memory.temp_size_in_bytes, "donated bytes": memory.alias_size_in_bytes}


def _primitives(jaxpr: Jaxpr, found: Counts) -> None:
    """Adds those of a jaxpr, and of all within it, to `found`."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in found:
            found[equation.primitive.name] += 1
        for each in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr):
            if _is_jaxpr(each):
                _primitives(each.jaxpr if isinstance(each, ClosedJaxpr) else each, found)


def _is_jaxpr(each: Any) -> bool:
    return isinstance(each, Jaxpr | ClosedJaxpr)


def count_all() -> dict[str, Counts]:
    """The main programs: DrQ's update in all ways of convolution, and TD3's chunk of the device loop."""
    found = {}
    for conv in ("blocks", "im2col", "xla"):
        agent, args = drq_update("smoke", "ne", conv, seeds=2)
        found[f"drq + ne, update, {conv}, map"] = count(jax.jit(over_seeds(agent.update, "map", shared=1)), *args)
    for method in ("none", "ne", "lifelong_ne"):
        found[f"td3 + {method}, chunk on the device"] = count(*_chunk(_device_run(method)))
    return found


def _device_run(method: str) -> Experiment:
    config = gymnax_states.get_config("smoke")
    config.plasticity.method = method
    return setup(config)


def _chunk(experiment: Experiment) -> tuple[Any, ...]:
    """The program of a chunk, with its arguments."""
    pool: Any = experiment.pool  # on the device
    run = Run(0, *experiment.steps.init(experiment.keys, pool.reset()))
    return experiment.advance, run.learner, run.rollout, pool.state, experiment.keys, 0, 10


def differences(baseline: dict[str, Counts], now: dict[str, Counts]) -> list[str]:
    """A sentence for each number that is not that of the baseline."""
    found = [f"{name}: in the baseline, and no longer counted" for name in baseline.keys() - now.keys()]
    for name, counts in now.items():
        if name not in baseline:
            found.append(f"{name}: not in the baseline")
            continue
        for what, value in counts.items():
            old = baseline[name].get(what, 0)
            most = 0 if what in COUNTED else TOLERANCE * old
            if abs(value - old) > most:
                change = f" ({100 * (value / old - 1):+.0f} %)" if old else ""
                found.append(f"{name}: {what} was {old:,.0f} and is {value:,.0f}{change}")
    return found


def main(_: list[str]) -> int:
    """Compare, or write the baseline; the exit status is 1 where something differs."""
    jax.config.update("jax_platforms", "cpu")
    known: dict[str, Any] = {}
    if not _WRITE.value:
        if not BASELINE.exists():
            print(
                f"error: there is no {BASELINE} yet; python -m experiments.benches.count --write makes it",
                file=sys.stderr,
            )
            return 2
        known = json.loads(BASELINE.read_text())
        if known["jax"] != jax.__version__:
            print(f"nothing to compare: the baseline is of jax {known['jax']}, and this is {jax.__version__}")
            return 0
    now = count_all()
    if _WRITE.value:
        BASELINE.write_text(json.dumps({"jax": jax.__version__, "programs": now}, indent=1) + "\n")
        print(f"{len(now)} programs written to {BASELINE}")
        return 0
    found = differences(known["programs"], now)
    for each in found:
        print(each)
    cure = "; where that is meant, python -m experiments.benches.count --write makes the baseline anew" if found else ""
    print(f"{len(now)} programs counted, {len(found)} differences{cure}")
    return 1 if found else 0


if __name__ == "__main__":
    _WRITE = flags.DEFINE_bool("write", False, "Make the baseline anew.")
    app.run(main)
