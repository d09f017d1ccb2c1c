"""Image augmentation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key, UInt8

from agents.types import Transition


def augment(keys: Key[Array, "2"], batch: Transition, pad: int | None) -> Transition:
    """The batch with `obs` and `next_obs` shifted at random, each with a key of its own.

    Args:
        pad: the largest shift in pixels; None leaves the batch as it is, for observations that are states.
    """
    if pad is None:
        return batch
    obs, next_obs = (random_shift(key, obs, pad) for key, obs in zip(keys, (batch.obs, batch.next_obs)))
    return batch._replace(obs=obs, next_obs=next_obs)


def random_shift(
    key: Key[Array, ""], images: UInt8[Array, "batch height width channels"], pad: int = 4
) -> UInt8[Array, "batch height width channels"]:
    """Shift each image by up to `pad` whole pixels along either axis, repeating the border (DrQ, Yarats et al. 2021).

    Both shifts are uniform over {-pad, ..., pad} and the same for all channels, so a stack of frames moves as one.
    """
    batch, height, width, _ = images.shape
    shift = jax.random.randint(key, (batch, 2), -pad, pad + 1)
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="edge")

    def crop(
        image: UInt8[Array, "padded_height padded_width channels"], offset: Int[Array, "2"]
    ) -> UInt8[Array, "height width channels"]:
        return jax.lax.dynamic_slice(image, (offset[0], offset[1], 0), (height, width, image.shape[-1]))

    return jax.vmap(crop)(padded, shift + pad)
