"""The programs of runs as a GPU or a TPU would get them: lowered here from shapes, and looked through."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_device
from lowered import PLATFORMS, chunk, foreign, host_programs, lowered, shapes

from agents.encoder import VisionSettings, make_encoder
from configs import dmc_pixels, gymnax_pixels, gymnax_states, mjx_pixels
from experiments.build import experiment
from experiments.build.experiment import setup
from ne_jax.target import made_for, on_cpu

slow = pytest.mark.slow


@pytest.fixture(autouse=True)
def room(monkeypatch):
    """Full jobs are only looked at, so whatever memory this machine has will do."""
    monkeypatch.setattr(experiment, "free_memory", lambda: 10**12)
    monkeypatch.setattr(experiment, "total_memory", lambda: 10**12)


def check(found, pixels, scatters=True, unique=True):
    for platform, text in found.items():
        assert not foreign(text, platform)
        assert ("stablehlo.scatter" in text) == scatters
        # Others would be sorted, and their indices multiplied out in 32 bits, where runs are to be repeatable.
        assert not unique or "unique_indices = false" not in text
        assert ("stablehlo.convolution" in text) == pixels, "convolutions are XLA's own, not a CPU's blocks"


def test_what_is_made_for_an_accelerator_is_so_wherever_it_is_made():
    assert on_cpu()
    for platform in PLATFORMS:
        with made_for(platform):
            assert not on_cpu()
            encoder = make_encoder(VisionSettings(), (40, 40, 9))
            assert not encoder.blocks and not encoder.im2col
    with made_for("cpu"):
        assert on_cpu() and make_encoder(VisionSettings(), (40, 40, 9)).blocks
    assert on_cpu()


def test_a_call_of_the_cpu_would_be_found():
    def one(x):
        return jax.ffi.ffi_call("lapack_sgetrf_ffi", jax.ShapeDtypeStruct(x.shape, x.dtype))(x)

    for platform, text in lowered(jax.jit(one), jnp.ones((3, 3))).items():
        assert foreign(text, platform) == {"lapack_sgetrf_ffi"}


def test_a_chunk_holds_nothing_of_a_cpu():
    """With an agent that does nothing but read."""
    built = tiny_device.build("reader", how="map", store="frame")
    worlds, scene = jax.eval_shape(jax.vmap(built.env.reset), tiny_device.pool_of(built)._keys)
    state = jax.eval_shape(built.steps.init, built.keys, scene)
    check(lowered(built.advance, *state, worlds, built.keys, np.int32(0), np.int32(1)), pixels=False)


@slow
def test_made_for_a_cpu_a_chunk_has_blocks_in_place_of_convolutions():
    """So the tests below would see it if the choice went wrong."""
    built = setup(gymnax_pixels.get_config("smoke"))
    text = built.advance.trace(*shapes(built)).lower().as_text()  # pyright: ignore
    assert "stablehlo.convolution" not in text


@slow
@pytest.mark.parametrize(
    ("make", "pixels"), [(gymnax_states.get_config, False), (gymnax_pixels.get_config, True)], ids=["td3", "drq"]
)
def test_whole_jobs_hold_nothing_of_a_cpu(make, pixels):
    config = make()
    config.replay.store = "frame" if pixels else "scene"
    found = chunk(config)
    check(found, pixels)
    if pixels:
        assert all("tensor<4x1x100000x84x84x3xui8>" in text for text in found.values())


@slow
def test_the_whole_job_on_mjx_holds_nothing_of_a_cpu():
    pytest.importorskip("mujoco.mjx")
    config = mjx_pixels.get_config()
    config.replay.store = "scene"  # drawn by the ray caster when it is acted upon, and when it is sampled
    check(chunk(config), pixels=True, unique=False)  # MJX adds up forces in scatters of its own


@slow
def test_the_update_of_the_host_loop_holds_nothing_of_a_cpu():
    config = dmc_pixels.get_config()
    config.env.workers = "serial"
    for found in host_programs(config):
        check(found, pixels=True, scatters=False)
