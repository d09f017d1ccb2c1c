"""What the replay stores: scenes and frames give the same batches, what each costs, and how `auto` chooses."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kinds import make_dmc

from agents.replay import Entry, make_replay
from configs import dmc_pixels, gymnax_pixels
from envs.registry import device_env
from experiments.build.replay import choose_store, make_vary

GB = 10**9


def spec_of(name, size=84):
    return make_dmc(name, pixels=True, image_size=size).spec


@pytest.mark.parametrize("name", ["cheetah_run", "walker_walk"])
def test_a_million_transitions_fit_into_600_megabytes(name):
    spec = spec_of(name)
    make = partial(make_replay, spec.scene, spec.observe, spec.action_dim, stack=3, nstep=3, discount=0.99)
    assert make(capacity=1_000_000).nbytes <= 0.6e9
    assert make(capacity=1_000).nbytes == sum(leaf.nbytes for leaf in jax.tree.leaves(make(capacity=1_000).init()))


# With one step the stacks overlap, and the window is drawn once.
@pytest.mark.parametrize("nstep", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_scenes_and_frames_give_the_same_batches(nstep):
    env = make_dmc("reacher_easy", pixels=True, image_size=24, action_repeat=4)
    spec, observe = env.spec, jax.jit(env.spec.observe)
    make = partial(make_replay, action_dim=2, capacity=40, stack=3, nstep=nstep, discount=0.9)
    frame = jax.eval_shape(spec.observe, spec.scene)
    replays = {"scene": make(spec.scene, spec.observe), "frame": make(frame, lambda frame: frame)}
    rings = {name: replay.init() for name, replay in replays.items()}
    add = {name: jax.jit(replay.add) for name, replay in replays.items()}
    random = np.random.default_rng(0)
    for episode in range(3):
        scene, reward = env.reset(episode), 0.0
        for episode_step in range(12):
            action = random.uniform(-1, 1, 2).astype(np.float32)
            for name in rings:
                seen = scene if name == "scene" else observe(scene)
                values = (seen, action, np.float32(reward), np.bool_(False), np.int32(episode_step))
                rings[name] = add[name](rings[name], Entry(*(jnp.asarray(v)[None] for v in values)), jnp.array([True]))
            step = env.step(action)
            scene, reward = step.scene, step.reward
    key = jax.random.key(1)
    batches = {name: jax.jit(replays[name].sample, static_argnums=2)(rings[name], key, 32) for name in rings}
    assert batches["scene"].obs.shape == (32, 24, 24, 9) and np.asarray(batches["scene"].obs).std() > 10
    jax.tree.map(np.testing.assert_array_equal, *batches.values())


def config_of(**settings):
    config = dmc_pixels.get_config()
    config.update(settings)
    return config


def test_auto_keeps_frames_while_there_is_room():
    spec, config = spec_of("cheetah_run"), config_of(seeds=(0, 1), replay=dict(capacity=100_000))
    frames = 2 * 100_000 * 84 * 84 * 3
    store, why = choose_store(config, spec, frames)
    assert store == "frame" and "4.2 GB of frames fit into the 4.2 GB of memory" in why
    store, why = choose_store(config, spec, frames - GB // 100)
    assert store == "scene" and "a scene has 288 bytes, not 21,168" in why
    for chosen in ("scene", "frame"):
        config.replay.store = chosen
        assert choose_store(config, spec, 1) == (chosen, "")


def test_auto_follows_augmentation_and_leaves_what_is_seen_as_it_is():
    config = config_of(replay=dict(vary=dict(light=0.1)))
    assert choose_store(config, spec_of("cheetah_run"), 10**15)[0] == "scene"
    states = make_dmc("cartpole_swingup", pixels=False).spec
    assert choose_store(config_of(), states, 1) == ("scene", "")


def test_augmentation_needs_scenes_that_can_be_drawn_anew():
    spec, config = spec_of("cheetah_run"), config_of(replay=dict(vary=dict(camera=5.0)))
    assert make_vary(config_of(), spec, "frame") is None
    vary = make_vary(config, spec, "scene")
    assert vary is not None
    scene = jnp.asarray(make_dmc("cheetah_run", pixels=True).reset(0))
    assert vary(jax.random.key(0), scene).shape[0] > scene.shape[0]
    pendulum = device_env("gymnax", "Pendulum-v1", pixels=True).spec
    with pytest.raises(ValueError, match=r"set --config.replay.store=scene$"):
        make_vary(config, spec, "frame")
    with pytest.raises(ValueError, match="vary needs one task of dm_control from pixels"):
        make_vary(config, pendulum, "scene")
    assert "vary" in gymnax_pixels.get_config().replay


def test_a_sampled_transition_is_seen_in_one_way():
    """Varied, the frames of a stack of one scene stay alike; two transitions differ."""
    spec = spec_of("cheetah_run", 24)
    vary = make_vary(config_of(replay=dict(vary=dict(camera=8.0, light=0.3))), spec, "scene")
    replay = make_replay(spec.scene, spec.observe, 6, capacity=20, stack=3, nstep=1, discount=0.9, vary=vary)
    scene, replay_state = make_dmc("cheetah_run", pixels=True, image_size=24).reset(0), replay.init()
    for episode_step in range(8):
        values = (scene, np.zeros(6, np.float32), np.float32(0), np.bool_(False), np.int32(episode_step))
        replay_state = replay.add(replay_state, Entry(*(jnp.asarray(v)[None] for v in values)), jnp.array([True]))
    batch = jax.jit(replay.sample, static_argnums=2)(replay_state, jax.random.key(0), 6)
    obs = np.asarray(batch.obs).reshape(6, 24, 24, 3, 3).astype(int)
    for later in (obs[:, :, :, 1], obs[:, :, :, 2], np.asarray(batch.next_obs)[..., :3].astype(int)):
        assert np.abs(obs[:, :, :, 0] - later).max() <= 1
    apart = [np.abs(obs[i] - obs[j]).mean() for i in range(6) for j in range(i)]
    assert min(apart) > 1
