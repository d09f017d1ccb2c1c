"""What begins anew at a switch: nothing crosses it, no update comes too early, and resuming is exact."""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from kinds import make_gymnax

from agents.types import Clock
from agents.updates import train_states
from configs import continual, gymnax_states, relabelled
from envs.relabel import RelabelSettings, draw_labels
from experiments.build.experiment import setup
from experiments.train.loop import Run
from experiments.train.schedule import Schedule
from experiments.train.seeds import ACT, NEVER, key_at

SEEDS, TASK, FIRST, TOTAL = (100, 101), 40, 10, 120


def config_of(variant="smoke", **settings):
    config = relabelled.get_config(variant)
    config.update(
        dict(
            seeds=SEEDS,
            total_frames=TOTAL,
            seed_frames=FIRST,
            env=dict(relabel=dict(every=TASK)),
            agent=dict(random_steps=15),
        )
    )
    config.update(settings)
    return config


@functools.cache
def built(fresh=False):
    """An experiment whose programs are compiled once; its environments begin anew with each run."""
    return setup(config_of(fresh_on_switch=fresh))


def trained(experiment, run=None, until=None, ends: Sequence[int] = range(TOTAL + 1)):
    """The run and every pause of it, which comes at the steps `ends`; a pause at a switch is before it."""
    seen = []

    def callback(run):
        seen.append(jax.device_get((run.step, run.learner, run.rollout)))
        return run

    run = run or Run(0, *experiment.steps.init(experiment.keys, experiment.pool.reset()))
    run = experiment.train(run, callback, lambda step: min((e for e in ends if e > step), default=TOTAL), until)
    return run, seen


@pytest.mark.parametrize(("every", "each", "task"), [(1, 1, 40), (1, 4, 25), (3, 1, 31), (2, 1, 10)])
def test_the_schedule_is_that_of_a_run_per_task(every, each, task):
    schedule = Schedule(200, 7, every, each, num_envs=2, measure_every=5, task_steps=task, clears=True, explores=True)
    made, first, measures = 0, [], [0]
    for step in range(300):
        since = step % task
        assert schedule.updates(step) == made and schedule.task(step) == step // task
        assert schedule.seen(schedule.at(step)) == Clock(2 * since, made)
        due = since >= 7 and (since - 7) % every == 0
        assert bool(schedule.due(step)) == due
        first += [step] if since == 7 else []
        if due:
            measures += [step + 1] if made // 5 < (made + each) // 5 else []
            made += each
    for step in range(200):
        assert schedule.next_start(step) == next(each for each in first if each > step)
        assert schedule.measures(step) == (step in measures)
        assert schedule.next_measure(step) == next(each for each in measures if each > step)
    assert schedule.lifetime == schedule.updates(200)
    renewed = schedule._replace(renews=True)
    alone = Schedule(task, 7, every, each)
    assert renewed.lifetime == alone.updates(task)
    for step in range(200):
        assert renewed.seen(schedule.at(step)) == Clock(2 * (step % task), alone.updates(step % task))


def test_new_networks_on_an_old_replay_count_their_own_updates():
    schedule = Schedule(100, 7, task_steps=20, renews=True)
    assert [schedule.seen(schedule.at(step)).update for step in (0, 10, 20, 25, 60)] == [0, 3, 0, 5, 0]
    assert schedule.lifetime == 20 and schedule.seen(schedule.at(33)).env == 33


@pytest.fixture(scope="module")
def runs():
    """Every pause of a run that goes on with its networks, and of one with new ones."""
    return {fresh: trained(built(fresh))[1] for fresh in (False, True)}


def test_a_task_begins_with_an_empty_replay_that_only_its_own_scenes_come_into(runs):
    experiment = setup(config_of())
    for step, _, rollout in runs[False]:
        since = (step - 1) % TASK + 1 if step else 0
        assert np.asarray(jax.vmap(experiment.replay.ready)(rollout.replay_state)).tolist() == [since, since]
    spec = make_gymnax("Pendulum-v1", pixels=False).spec
    keys = [jax.random.key(seed) for seed in SEEDS]
    labels = [[draw_labels(RelabelSettings(TASK), spec, key, task) for key in keys] for task in range(3)]
    for step, _, rollout in runs[False][1:]:
        for lane in range(2):
            drawn, ring = labels[(step - 1) // TASK][lane], tiny.lane(rollout.replay_state, lane)
            scenes = (ring.scene[0, : int(ring.slots[0])] - drawn.offset) * drawn.sign
            cos, sin, _ = scenes[:, np.argsort(drawn.order)].T
            np.testing.assert_allclose(cos**2 + sin**2, 1, atol=1e-4)  # a pendulum's, behind no other labels


def test_no_update_comes_before_the_replay_has_filled(runs):
    for fresh, seen in runs.items():
        for (step, before, _), (_, after, _) in itertools.pairwise(seen):
            if fresh and step and step % TASK == 0:
                continue  # other networks
            same = [
                np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (before.agent, after.agent)), strict=True)
            ]
            assert all(same) == (step % TASK < FIRST), step


def test_new_networks_are_those_of_a_new_agent_and_their_optimisers_know_nothing(runs):
    experiment = built(True)
    init: Any = jax.jit(jax.vmap(experiment.agent.init))
    first = init(jax.vmap(lambda key: key_at(key, NEVER, ACT))(experiment.keys))
    begun = {step: learner.agent for step, learner, _ in runs[True] if step % TASK == 1}
    assert set(begun) == {1, 41, 81}
    tiny.equal(begun[1], first)
    kernels = []
    for step, state in begun.items():
        initial = experiment.steps.initial(experiment.keys, step // TASK)
        for name, model in train_states(state).items():
            tiny.equal(model.params, initial[name])
            tiny.equal(model.opt_state, jax.tree.map(jnp.zeros_like, model.opt_state))
        tiny.equal(state.target_critic, initial["critic"])
        kernels.append(np.asarray(jax.tree.leaves(initial["actor"])[-1]))
    assert len({kernel.tobytes() for kernel in kernels}) == 3, "each task its own"
    tiny.equal(runs[False][1][1].agent, runs[True][1][1].agent)


def test_exploration_begins_again():
    experiment = built(True)
    run, other = (Run(0, *experiment.steps.init(experiment.keys, experiment.pool.reset())) for _ in range(2))
    other = experiment.steps.renew(other.learner, experiment.keys, 7)
    for step in (3, 43, 54, 55, 95):
        mine, others = (
            experiment.steps.act(learner, run.rollout, experiment.keys, experiment.schedule.at(step)).action
            for learner in (run.learner, other)
        )
        assert np.array_equal(mine, others) == (step % TASK < 15)


def test_how_a_run_is_cut_into_chunks_changes_nothing(runs):
    for ends in ((), (40,), range(0, TOTAL, 7)):
        run, _ = trained(built(), ends=ends)
        tiny.equal(run.learner, runs[False][-1][1])
        tiny.equal(run.rollout, runs[False][-1][2])


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "fresh"), [("smoke", True), ("pixels_smoke", False)])
def test_resumed_equals_uninterrupted_across_switches(variant, fresh, tmp_path):
    """Saved in a phase; at a switch, before it, as the monitor saves; at a switch, before the new task has begun."""
    frames = 4 if variant == "pixels_smoke" else 1
    settings = dict(total_frames=TOTAL * frames, seed_frames=FIRST * frames, fresh_on_switch=fresh)
    settings |= dict(env=dict(relabel=dict(every=TASK * frames)), plasticity=dict(method="ne+redo"))
    experiment, other = (setup(config_of(variant, **settings)) for _ in range(2))
    whole, seen = trained(experiment, ends=())
    end = jax.device_get((whole, experiment.pool.snapshot()))
    steps = [step for step, *_ in seen]
    assert steps == sorted(set(steps)), "paused twice"
    assert {0, 40, 80, 120} <= set(steps)
    for until, paused in ((40, True), (40, False), (43, False), (95, False)):
        folder = tmp_path / f"{until}{paused}"
        start = Run(0, *experiment.steps.init(experiment.keys, experiment.pool.reset()))

        def callback(run, until=until, paused=paused, folder=folder):
            if paused and run.step == until:
                tiny.save(folder, run, experiment.pool)
            return run

        stopped = experiment.train(start, callback, lambda step: TOTAL, until + paused)
        if not paused:
            tiny.save(folder, stopped, experiment.pool)
        run = tiny.restored(folder, other, other.pool)
        assert run.step == until
        resumed, _ = trained(other, run, ends=())
        tiny.equal((resumed, other.pool.snapshot()), end)


@pytest.mark.slow
def test_physics_that_switches_can_begin_anew_too():
    config = continual.get_config("smoke")
    config.update(dict(replay=dict(clear_on_switch=True), fresh_on_switch=True, seed_frames=20, seeds=(100,)))
    experiment = setup(config)
    _, seen = trained(experiment, until=301, ends=(150, 200, 300, 301))
    ready = {step: int(jax.vmap(experiment.replay.ready)(rollout.replay_state)[0]) for step, _, rollout in seen}
    assert {step: ready[step] for step in (150, 200, 300, 301)} == {150: 150, 200: 50, 300: 150, 301: 1}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (dict(seed_frames=TASK), r"seed_frames=40 leaves no update of a task of 40 frames .*clear_on_switch.*lower it"),
        (dict(env=dict(num_envs=3)), r"replay\.clear_on_switch=True needs tasks of whole steps of 3 frames"),
        (dict(env=dict(relabel=dict(every=0))), r"replay\.clear_on_switch=True is for tasks that take turns at once"),
        (dict(env=dict(relabel=dict(every=200))), r"env\.relabel\.every=200 must be at least one step .* end before"),
        (dict(env=dict(relabel=dict(every=-1))), r"env\.relabel\.every must not be negative, got -1"),
        (dict(env=dict(sequence=("Reacher-misc",))), r"env\.relabel\.every and env\.sequence cannot both change"),
        (
            dict(env=dict(physics=dict(m=(1.0, 2.0)), physics_every=10)),
            r"env\.relabel\.every and env\.physics cannot both change",
        ),
        (dict(video=dict(every=100)), r"video\.every=100 films evaluations, and eval\.every=0 has none"),
        (dict(updates_per_step=-1.0), r"updates_per_step must not be negative"),
    ],
)
def test_what_cannot_be_is_one_sentence_at_the_start(settings, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        setup(config_of(**settings))
    assert "\n" not in str(error.value)


def test_what_begins_anew_needs_something_that_switches_and_labels_need_the_device():
    config = gymnax_states.get_config("smoke")
    config.explore_on_switch = True
    with pytest.raises(ValueError, match=r"explore_on_switch=True is for tasks .*, and there is one task; set it to"):
        setup(config)
    config = continual.get_config("smoke")
    config.update(dict(fresh_on_switch=True, env=dict(physics_change="drift")))
    with pytest.raises(ValueError, match=r"fresh_on_switch=True .* tasks that pass into each other do not"):
        setup(config)
    config = continual.get_config("mujoco_smoke")
    config.update(dict(env=dict(sequence=(), switch_every=0, relabel=dict(every=120))))
    with pytest.raises(ValueError, match=r"env\.relabel is for environments on the device, and kind gymnasium"):
        setup(config)
