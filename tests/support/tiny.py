"""A tiny pixel environment and a tiny experiment around it: every program of a run, compiled in seconds."""

from functools import cache, partial
from typing import Any

import jax
import numpy as np

from agents.drq import DrQSettings, make_drq
from agents.encoder import VisionSettings
from agents.replay import make_replay
from configs.dmc_pixels import get_config
from envs.pools.host import HostPool
from envs.types import ArraySpec, EnvSpec, TimeStep
from experiments.build.experiment import Experiment
from experiments.build.optimisers import make_optimisers
from experiments.record.checkpoints import Checkpoints
from experiments.train.evaluation import host_evaluator
from experiments.train.loop import Run, train_on_host
from experiments.train.network_metrics import measure_plasticity
from experiments.train.schedule import Schedule
from experiments.train.step import make_steps

SIZE, EPISODE = 16, 9


class Blob:
    """A bright square that the action pushes sideways. Truncated after nine steps, terminated at the right edge."""

    def __init__(self):
        scene = ArraySpec((SIZE, SIZE, 3), np.dtype(np.uint8))
        self.spec = EnvSpec("blob", scene, _same, 1, 2, EPISODE, True)

    def _scene(self):
        frame = np.full((SIZE, SIZE, 3), 10 * self._steps, np.uint8)
        frame[self._row : self._row + 3, int(self._x) : int(self._x) + 3] = 255
        return frame

    def reset(self, seed):
        self._row, self._x, self._steps = seed % (SIZE - 3), 4.0, 0
        return self._scene()

    def step(self, action):
        self._steps += 1
        self._x = float(np.clip(self._x + 3 * float(action[0]), 0, SIZE - 3))
        terminated = self._x >= SIZE - 3
        reward = np.float32(self._x / SIZE)
        return TimeStep(
            self._scene(), reward, np.bool_(terminated), np.bool_(self._steps == EPISODE and not terminated)
        )

    def replay(self, seed, actions):
        return [self.reset(seed), *(self.step(action).scene for action in actions)][-1]

    def picture(self, size):
        return np.repeat(np.repeat(self._scene(), size // SIZE, 0), size // SIZE, 1)

    def close(self):
        pass


def _same(scene):
    return scene


def experiment(seeds=(3, 5), how="map", total=40, method="ne", review=None, dynamic=None):
    """An experiment on `Blob` whose topology changes every four updates; its programs are compiled once per process."""
    pool, eval_pool = (HostPool(Blob, [(seed, stream) for seed in seeds], "serial") for stream in (0, 1))
    parts = programs(seeds, how, total, method, review, dynamic)
    config, *_, schedule, steps, keys, _ = parts
    evaluator = host_evaluator(eval_pool, steps, seeds, config.eval.episodes)

    def train(run, callback, next_due, until=None):
        return train_on_host(steps, schedule, pool, keys, run, callback, until)

    return Experiment(*parts, pool, evaluator, train)


@cache
def programs(seeds, how, total, method, review, dynamic):
    config = get_config("smoke")
    config.update(seeds=seeds, batch_size=8, total_frames=2 * total, log_every=16, checkpoint_every=32)
    config.update(env=dict(name="blob", image_size=SIZE), plasticity=dict(method=method, every=4))
    config.update(eval=dict(every=32, episodes=2), video=dict(every=40, size=2 * SIZE))
    schedule = Schedule(total=total, first_update=5, forget_every=8 if dynamic else 0)
    optimisers = make_optimisers(config, schedule.updates(total))
    settings = DrQSettings(config.agent.learning_rate, hidden=(16, 16), random_steps=4)
    vision = VisionSettings(channels=4, strides=(2, 1), projection=8, conv="im2col")
    agent = make_drq(settings, vision, (SIZE, SIZE, 9), 1, optimisers)
    spec = Blob().spec
    replay = make_replay(spec.scene, _same, 1, capacity=30, stack=3, nstep=2, discount=0.9, dynamic=dynamic is not None)
    parts: dict[str, Any] = dict(batch_size=8, frame_stack=3, how=how, measure=measure_plasticity)
    steps = make_steps(agent, replay, spec, schedule, **parts, review=review, dynamic=dynamic)
    keys = jax.vmap(jax.random.key)(np.asarray(seeds, np.uint32))
    return config, spec, agent, replay, schedule, steps, keys, "frames"


def fresh(built):
    """The run at step 0."""
    return Run(0, *built.steps.init(built.keys, built.pool.reset()))


def train(built, run=None, callback=None, until=None):
    """Train from `run`, by default from the start, with nothing due in between unless `callback` is given."""
    return built.train(run or fresh(built), callback or quiet, lambda step: built.schedule.total, until)


def save(folder, run, pool):
    """A checkpoint of the run, complete on return."""
    checkpoints = Checkpoints(folder)
    checkpoints.save(run, pool.snapshot())
    checkpoints.close()


def find(folder, built, pool):
    """What the newest checkpoint holds, for an experiment that shares nothing with the one that saved it."""
    checkpoints = Checkpoints(folder)
    like = jax.eval_shape(lambda keys, scene: Run(0, *built.steps.init(keys, scene)), built.keys, pool.reset())
    found = checkpoints.restore(like, pool.snapshot())
    checkpoints.close()
    return found


def restored(folder, built, pool) -> Run:
    """The run of the newest checkpoint; `pool` goes on from there too."""
    found = find(folder, built, pool)
    assert found is not None
    run, envs, failures = found
    assert not failures
    pool.restore(envs)
    return run


def quiet(run):
    """A callback in which nothing is due."""
    return run


def lane(tree, i):
    """What one seed has."""
    return jax.tree.map(lambda leaf: leaf[i], tree)


def equal(a, b, exact=True):
    """Assert that two pytrees are equal, bit for bit or to float tolerance."""
    compare = np.testing.assert_array_equal if exact else partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-5)
    jax.tree.map(lambda x, y: compare(np.asarray(x), np.asarray(y)), a, b)


def primitives(jaxpr, conds=0):
    """(name, conds around it) of every primitive, and of every jitted function by its own, through all of them."""
    for equation in jaxpr.eqns:
        yield equation.params.get("name", equation.primitive.name), conds
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda v: hasattr(v, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from primitives(inner, conds + (equation.primitive.name == "cond"))
