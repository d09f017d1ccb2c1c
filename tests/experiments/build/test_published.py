"""`preset=drqv2`: the settings that DrQ-v2's authors published for each task, at facebookresearch/drqv2 c0c650b."""

import pytest
from dm_control import suite

from configs import dmc_pixels, gymnax_states, mjx_pixels
from envs.dmc.env import task_names
from experiments.build.presets import OF_TASKS, apply_task

SCHEDULES = {  # "linear(1.0,0.1,N)" of cfgs/task/{easy,medium,hard}.yaml, and num_train_frames there
    "cartpole_swingup": (100_000, 1_100_000),
    "ball_in_cup_catch": (100_000, 1_100_000),
    "walker_walk": (100_000, 1_100_000),
    "cheetah_run": (500_000, 3_100_000),
    "reacher_easy": (500_000, 3_100_000),
    "walker_run": (500_000, 3_100_000),
    "humanoid_walk": (2_000_000, 30_100_000),
}


def config_of(task, given=()):
    config = dmc_pixels.get_config()
    config.env.name = task
    for key, value in dict(given).items():
        config.update_from_flattened_dict({key: value})
    assert apply_task(config, {"env.name": task, **dict(given)}) == ""
    return config


@pytest.mark.parametrize("task", SCHEDULES)
def test_noise_frames_and_replay_are_those_of_the_task(task):
    config = config_of(task)
    assert (config.agent.std_steps, config.total_frames) == SCHEDULES[task]
    assert config.replay.capacity == 1_000_000 and config.seed_frames == 4_000
    assert (config.agent.std_initial, config.agent.std_final, config.agent.std_clip) == (1.0, 0.1, 0.3)
    assert (config.agent.random_steps, config.agent.tau, config.agent.hidden) == (2_000, 0.01, (1024, 1024))
    assert (config.env.action_repeat, config.env.frame_stack, config.env.image_size) == (2, 3, 84)
    assert (config.updates_per_step, config.replay.discount) == (0.5, 0.99)
    walker, humanoid = task.startswith("walker"), task.startswith("humanoid")
    assert (config.replay.nstep, config.batch_size) == ((1, 512) if walker else (3, 256))
    assert (config.agent.learning_rate, config.agent.projection) == ((8e-5, 100) if humanoid else (1e-4, 50))


def test_all_of_their_tasks_are_there_by_dm_controls_names():
    assert len(OF_TASKS["drqv2"]) == 23  # theirs but reach_duplo, which is not in the suite
    assert set(OF_TASKS["drqv2"]) <= set(task_names())
    assert config_of("quadruped_run").replay.capacity == 100_000


def test_the_command_line_wins_and_unpublished_tasks_are_told():
    config = config_of("walker_run", {"batch_size": 64, "replay.capacity": 500})
    assert (config.batch_size, config.replay.capacity, config.replay.nstep) == (64, 500, 1)
    config = dmc_pixels.get_config()
    config.env.name = "fish_swim"
    before = config.to_json()
    assert "published nothing for fish_swim" in apply_task(config, {}) and config.to_json() == before
    config.preset = "rainbow"
    with pytest.raises(ValueError, match="preset must be drqv2 or small, or empty for none; got 'rainbow'"):
        apply_task(config, {})


def test_other_jobs_have_none():
    assert mjx_pixels.get_config().preset == dmc_pixels.get_config().preset == "drqv2"
    for config in (mjx_pixels.get_config("smoke"), gymnax_states.get_config()):
        before = config.to_json()
        assert apply_task(config, {}) == "" and config.to_json() == before and config.preset == ""


def test_the_small_job_looks_at_its_cart_from_near_and_at_other_tasks_as_usual():
    config = dmc_pixels.get_config("quick")
    assert apply_task(config, {}) == "" and (config.env.name, config.env.camera_id) == ("cartpole_swingup", 1)
    for given in ({"env.camera_id": 0}, {"env.name": "walker_walk"}):
        config = dmc_pixels.get_config("quick")
        config.update_from_flattened_dict(given)
        assert apply_task(config, given) == "" and config.env.camera_id == given.get("env.camera_id")
    assert set(OF_TASKS["small"]) <= set(task_names())
    for task in OF_TASKS["small"]:
        model = suite.load(*task.split("_", 1)).physics.model
        assert model.id2name(1, "camera") == "lookatcart"
