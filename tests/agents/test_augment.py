"""Random shifts against padding and cropping in numpy."""

import collections
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.augment import random_shift


def crops(image, pad):
    """All (2 pad + 1)^2 shifted versions of an image, keyed by their offset."""
    height, width, _ = image.shape
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="edge")
    offsets = range(2 * pad + 1)
    return {(y, x): padded[y : y + height, x : x + width] for y in offsets for x in offsets}


def images(batch: int, height: int = 9, width: int = 11, channels: int = 4) -> Any:
    return np.random.default_rng(0).integers(0, 256, (batch, height, width, channels), np.uint8)


@pytest.mark.parametrize("pad", [1, 2, 4])
def test_each_image_is_one_whole_shift_of_itself_and_all_shifts_occur_alike(pad):
    draws = 60 * (2 * pad + 1) ** 2
    batch: Any = np.repeat(images(3), draws // 3, axis=0)
    shifted = jax.jit(random_shift, static_argnums=2)(jax.random.key(1), batch, pad)
    assert shifted.dtype == np.uint8 and shifted.shape == batch.shape
    offsets = {crop.tobytes(): offset for image in images(3) for offset, crop in crops(image, pad).items()}
    counts = collections.Counter(offsets[image.tobytes()] for image in np.asarray(shifted))  # same for all channels
    assert len(counts) == (2 * pad + 1) ** 2
    freedom = len(counts) - 1
    mean = draws / len(counts)
    chi_square = sum((count - mean) ** 2 / mean for count in counts.values())
    assert abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom)


def test_without_padding_images_stay():
    batch = jnp.asarray(images(5))
    np.testing.assert_array_equal(random_shift(jax.random.key(0), batch, 0), batch)


def test_images_of_a_batch_move_independently_and_with_the_key():
    batch = jnp.repeat(images(1), 50, axis=0)
    first, second = (np.asarray(random_shift(jax.random.key(seed), batch)) for seed in (0, 1))
    assert len({image.tobytes() for image in first}) > 20
    assert (first != second).any(axis=(1, 2, 3)).mean() > 0.9
    np.testing.assert_array_equal(first, random_shift(jax.random.key(0), batch, 4))  # the published pad is the default


def test_seeds_under_vmap_match_each_alone():
    batch, keys = jnp.asarray(images(6)).reshape(2, 3, 9, 11, 4), jax.random.split(jax.random.key(2), 2)
    both = jax.vmap(random_shift)(keys, batch)
    for lane in range(2):
        np.testing.assert_array_equal(both[lane], random_shift(keys[lane], batch[lane]))
