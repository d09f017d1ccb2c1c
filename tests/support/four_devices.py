"""Seeds over two, three and four devices against the same on one: `python four_devices.py CASE`, a process of its own.

The number of devices of a CPU is settled when jax begins, and other tests want one.
"""

import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tiny
import tiny_device
import turning
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tiny_device import build, pool_of, train

from experiments.build.experiment import Experiment
from experiments.record.checkpoints import Checkpoints
from experiments.train.devices import AXIS, SeedDevices, rows_of, spread_steps
from experiments.train.evaluation import device_evaluator
from experiments.train.loop import Run, make_advance, train_on_host
from experiments.train.network_metrics import all_masks

COUNT = 4
"""Devices in this process."""


def devices_of(built, count) -> SeedDevices:
    mesh = Mesh(np.array(jax.local_devices()[:count]), (AXIS,)) if count > 1 else None
    return SeedDevices(len(built.keys), mesh)


def spread(built, count):
    """The same experiment over so many devices."""
    devices = devices_of(built, count)
    steps = spread_steps(built.steps, devices, built.schedule.num_envs)
    advance = make_advance(built.steps, built.schedule, built.env, devices)
    return built._replace(keys=devices.fill(built.keys), steps=steps, advance=advance), devices


def same(one, other):
    """Whole numbers and masks bit for bit, the rest to float tolerance."""
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        tiny.equal(a, b, exact=not jnp.issubdtype(jnp.asarray(a).dtype, jnp.floating))


def same_run(one: Run, other: Run):
    tiny.equal(all_masks(one.learner.agent), all_masks(other.learner.agent))
    same(one, other)


def experiment_of(built, devices, pool) -> Experiment:
    """What knows how a checkpoint is made of it."""
    unused: Any = None
    return Experiment(
        config=unused,
        spec=built.env.spec,
        agent=built.agent,
        replay=built.replay,
        schedule=built.schedule,
        steps=built.steps,
        keys=built.keys,
        store="",
        pool=pool,
        evaluator=unused,
        train=unused,
        devices=devices,
    )


def loops(seeds, count, kind="reader", **settings):
    """Both loops, and nothing of the doubles in what a checkpoint gets."""
    built = build(kind, seeds=seeds, **settings)
    many, devices = spread(built, count)
    one, pool = train(built)
    run, its_pool = train(many, pool_of(many, devices.place))
    assert {len(leaf) for leaf in jax.tree.leaves(run.learner)} == {devices.places}
    assert all(len(leaf.sharding.device_set) == count for leaf in jax.tree.leaves(run.learner))
    kept, envs = experiment_of(many, devices, its_pool).kept(run)
    same_run(one, kept)
    same(pool.snapshot(), envs)

    host: Any = tiny_device.HostBlobs(built)  # whose lanes are those of the seeds alone
    start = Run(0, *many.steps.init(many.keys, host.reset()))
    run = train_on_host(many.steps, many.schedule, host, many.keys, start, tiny.quiet)
    same_run(one, Run(run.step, devices.drop(run.learner), devices.drop(run.rollout)))
    compiled = {name: getattr(many.steps, name)._cache_size() for name in ("act", "learn", "remember")}
    assert {many.advance._cache_size(), *compiled.values()} == {1}, compiled
    return built, many, devices, one


def evaluation(seeds, count):
    """Of the seeds alone, and as on one device."""
    built = build("reader", seeds=seeds)
    many, devices = spread(built, count)
    start, run = tiny_device.fresh(built, pool_of(built)), tiny_device.fresh(many, pool_of(many))
    settings: Any = dict(episodes=2, frame_stack=1, how="vmap")
    one = device_evaluator(built.env, built.agent, built.keys, **settings)
    other = device_evaluator(many.env, many.agent, many.keys, **settings, devices=devices)
    for film in (0, 8):
        a, b = one.greedy(start.learner.agent, film), other.greedy(run.learner.agent, film)
        same(a, b)
        assert b.returns.shape == (len(seeds), 2)
    same(one.random(), other.random())
    obs = built.steps.observe(None, pool_of(built).reset())
    same(built.steps.greedy(start.learner.agent, obs), many.steps.greedy(run.learner.agent, obs))


def resumed(seeds, counts, folder, kind="reader"):
    """Every part on another number of devices is one run."""
    built = build(kind, seeds=seeds, num_envs=2)
    whole, _ = train(built)
    kept = whole
    ends = [*range(40 // len(counts), 40, 40 // len(counts))][: len(counts) - 1]
    for count, end in zip(counts, [*ends, None], strict=True):
        many, devices = spread(built, count)
        pool, checkpoints = pool_of(many, devices.place), Checkpoints(folder)
        experiment = experiment_of(many, devices, pool)
        like = Run(0, *jax.eval_shape(many.steps.init, many.keys, pool.reset()))
        found = checkpoints.restore(*experiment.shapes(like))
        run = experiment.go_on(*found[:2]) if found else tiny_device.fresh(many, pool)
        run, pool = train(many, pool, run, until=end)
        kept, envs = experiment.kept(run)
        assert {len(leaf) for leaf in jax.tree.leaves(kept.learner)} == {len(seeds)}
        checkpoints.save(kept, envs)
        checkpoints.close()
    same_run(whole, kept)


def program(kind, seeds, count, **settings):
    """Every branch stays one, and no device copies its replays."""
    temporary = []
    for capacity in (2_000, 50_021):
        built = build(kind, seeds=seeds, capacity=capacity, **settings)
        many, _ = spread(built, count)
        worlds, scene = jax.eval_shape(jax.vmap(many.env.reset), pool_of(many)._keys)
        args = *jax.eval_shape(many.steps.init, many.keys, scene), worlds, many.keys, np.int32(0), np.int32(1)
        compiled = many.advance.lower(*args).compile()
        analysis = compiled.memory_analysis()
        temporary.append(analysis.temp_size_in_bytes)
        assert analysis.alias_size_in_bytes > built.replay.nbytes, "not donated"
    text = compiled.as_text()
    assert not [line for line in text.splitlines() if "50021" in line and " copy(" in line]
    assert not [word for word in ("all-reduce", "all-gather", "all-to-all", "collective") if word in text]
    assert abs(temporary[1] - temporary[0]) < 2_000, temporary
    alone, scene = jax.eval_shape(jax.vmap(built.env.reset), pool_of(built)._keys)
    others = *jax.eval_shape(built.steps.init, built.keys, scene), alone, built.keys, np.int32(0), np.int32(1)
    branches = [
        sorted(depth for name, depth in tiny.primitives(jax.make_jaxpr(each.advance)(*given).jaxpr) if name == "cond")
        for each, given in ((many, args), (built, others))
    ]
    assert branches[0] == branches[1] != []


def turns(on_device):
    """Tasks in turn, whose episodes are cut at each switch."""
    built = turning.build(on_device)
    devices = devices_of(built, 2)
    advances = built.advances and [
        make_advance(built.steps, built.schedule, env, devices) for env in turning.device_tasks(False)
    ]
    steps = spread_steps(built.steps, devices, turning.ENVS)
    many = built._replace(keys=devices.fill(built.keys), steps=steps, advances=advances)
    (one, pool), (run, other) = built.train(), many.train()
    same_run(one, run)
    same(pool.snapshot(), other.snapshot())


def learned(seeds, count, kind, **settings):
    """An agent whose networks grow, measured at the end."""
    built, many, devices, one = loops(seeds, count, kind, **settings)
    run, _ = train(many, pool_of(many, devices.place))
    now = built.schedule.at(40)
    a, b = (
        each.steps.measure(end.learner, end.rollout, each.keys, each.steps.initial(each.keys, 0), now)
        for each, end in ((built, one), (many, run))
    )
    assert {np.shape(value) for value in b.values()} == {(len(seeds),)}
    same(a, b)


def rows():
    """Rows that lie on one device, on several, or on all alike: read on one of them."""
    values = np.arange(12.0).reshape(6, 2)
    mesh = Mesh(np.array(jax.local_devices()[:3]), (AXIS,))
    for spec in (PartitionSpec(AXIS), PartitionSpec()):
        spread_out = jax.device_put(values, NamedSharding(mesh, spec))
        for begin, end in ((0, 1), (3, 4), (2, 4), (1, 6)):
            found = rows_of(spread_out, begin, end)
            np.testing.assert_array_equal(found, values[begin:end])
            assert len(found.devices()) == 1
    keys = jax.device_put(jax.random.split(jax.random.key(0), 6), NamedSharding(mesh, PartitionSpec(AXIS)))
    found, expected = (np.asarray(jax.random.key_data(each)) for each in (rows_of(keys, 4, 5), keys))
    np.testing.assert_array_equal(found, expected[4:5])


def quick():
    """What every test run asks."""
    rows()
    loops((3, 5, 7), 2, num_envs=2)


def kept():
    """Evaluations, and checkpoints on other numbers of devices."""
    evaluation((3, 5, 7), 2)
    with tempfile.TemporaryDirectory() as folder:
        resumed((3, 5, 7), (2, 3, 1), Path(folder))


def more():
    """Other numbers of seeds and devices, other ways of one device."""
    loops((3, 5, 7), 3, num_envs=2, every=2)
    loops((1, 2, 3, 4, 5), 3, how="map", each=2)
    loops((1, 2, 3, 4), 4)
    evaluation((1, 2, 3, 4, 5), 3)
    turns(on_device=True)
    turns(on_device=False)
    program("reader", (3, 5, 7), 2, how="map")
    with tempfile.TemporaryDirectory() as folder:
        resumed((1, 2, 3, 4, 5), (1, 3, 2, 1), Path(folder))


CASES = {
    "quick": quick,
    "kept": kept,
    "more": more,
    "td3": partial(learned, (3, 5, 7), 2, "td3", num_envs=3, each=2),
    "drq": partial(learned, (3, 5), 2, "drq", how="map", every=2, store="frame"),
    "td3_program": partial(program, "td3", (3, 5, 7), 2),
}

if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", COUNT)
    for name in sys.argv[1:]:
        CASES[name]()
        print(name, "holds", flush=True)
