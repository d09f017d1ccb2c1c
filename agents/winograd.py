"""3x3 convolutions of stride 1 by Winograd's minimal filtering F(2x2, 3x3), and their gradients.

Lavin & Gray 2016 (arXiv:1509.09308): each 2x2 tile of the output comes from a 4x4 tile of the input, and needs 16
products in place of 36. With d, g and y the tiles of input, kernel and output, y = A^T [(G g G^T) * (B^T d B)] A; the
products of all tiles and channels are 16 matrix products. All coefficients are 0, +-1 and +-1/2, so that rounding
errors are no larger than those of other orders of summation. The gradients are the transposes of the three maps.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Tiles = Float[Array, "16 tiles channels"]
"""One matrix for each of the 4x4 places of a transformed tile."""
Kernel = Float[Array, "3 3 in out"]

_G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)


def transform_kernel(kernel: Kernel) -> Float[Array, "16 in out"]:
    """G g G^T for each pair of channels."""
    return jnp.einsum("ai,bj,ijcf->abcf", _G, _G, kernel).reshape(16, *kernel.shape[2:])


def kernel_gradient(transformed: Float[Array, "16 in out"]) -> Kernel:
    """The gradient of a kernel from that of its transform: the transpose of `transform_kernel`."""
    return jnp.einsum("ai,bj,abcf->ijcf", _G, _G, transformed.reshape(4, 4, *transformed.shape[1:]))


def forward(
    x: Float[Array, "batch height width in"], kernel: Float[Array, "16 in out"]
) -> Float[Array, "batch height2 width2 out"]:
    """The convolution of `x`, without padding, with a transformed kernel."""
    batch, height, width, _ = x.shape
    products = _matmul(_input_tiles(x), kernel, 2, 1)
    return _output(products, batch, height - 2, width - 2)


def backward(
    x: Float[Array, "batch height width in"],
    kernel: Float[Array, "16 in out"],
    gradient: Float[Array, "batch height2 width2 out"],
) -> tuple[Float[Array, "batch height width in"], Float[Array, "16 in out"]]:
    """From the gradient of the output to those of `x` and of the transformed kernel."""
    products = _output_transpose(gradient)
    of_kernel = _matmul(_input_tiles(x), products, 1, 1)
    return _input_transpose(_matmul(products, kernel, 2, 2), x.shape), of_kernel


def _matmul(a: Float[Array, "16 _ _"], b: Float[Array, "16 _ _"], axis_a: int, axis_b: int) -> Float[Array, "16 _ _"]:
    return jax.lax.dot_general(a, b, (((axis_a,), (axis_b,)), ((0,), (0,))))


def _pairs(size: int) -> int:
    return -(-size // 2)


def _input_tiles(x: Float[Array, "batch height width channels"]) -> Tiles:
    """B^T d B: of rows first, then of columns."""
    _, height, width, channels = x.shape
    down, right = _pairs(height - 2), _pairs(width - 2)
    x = jnp.pad(x, ((0, 0), (0, 2 * down + 2 - height), (0, 2 * right + 2 - width), (0, 0)))
    rows = _combine([x[:, i : i + 2 * down - 1 : 2] for i in range(4)])
    places = [each for row in rows for each in _combine([row[:, :, j : j + 2 * right - 1 : 2] for j in range(4)])]
    return jnp.stack(places).reshape(16, -1, channels)


def _combine(d: list[Array]) -> list[Array]:
    """B^T d along one axis."""
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _input_transpose(tiles: Tiles, shape: tuple[int, ...]) -> Float[Array, "batch height width channels"]:
    """The transpose of `_input_tiles`: what overlapping tiles say of a pixel is added up."""
    batch, height, width, channels = shape
    places = tiles.reshape(4, 4, batch, _pairs(height - 2), _pairs(width - 2), channels)
    rows = [_overlap(list(places[i]), axis=2) for i in range(4)]
    return _overlap(rows, axis=1)[:, :height, :width]


def _overlap(v: list[Array], axis: int) -> Array:
    """Along one axis: pixels 2t and 2t + 1 belong to tile t, and to tile t - 1 as its last two."""
    tile = [v[0], v[1] - v[2] + v[3], v[1] + v[2] - v[0], -v[3]]
    before, behind = ([((0, 0), pad)[each == axis] for each in range(v[0].ndim)] for pad in ((0, 1), (1, 0)))
    even = jnp.pad(tile[0], before) + jnp.pad(tile[2], behind)
    odd = jnp.pad(tile[1], before) + jnp.pad(tile[3], behind)
    return jax.lax.collapse(jnp.stack([even, odd], axis + 1), axis, axis + 2)


def _output(products: Tiles, batch: int, height: int, width: int) -> Float[Array, "batch height width channels"]:
    """A^T m A of every tile, side by side."""
    m = products.reshape(4, 4, batch, _pairs(height), _pairs(width), -1)
    rows = [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]
    tiles = jnp.stack([jnp.stack([r[0] + r[1] + r[2], r[1] - r[2] - r[3]], 3) for r in rows], 2)
    return tiles.reshape(batch, 2 * _pairs(height), 2 * _pairs(width), -1)[:, :height, :width]


def _output_transpose(gradient: Float[Array, "batch height width channels"]) -> Tiles:
    _, height, width, channels = gradient.shape
    d = jnp.pad(gradient, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    rows = _spread([d[:, 0::2], d[:, 1::2]])
    places = [each for row in rows for each in _spread([row[:, :, 0::2], row[:, :, 1::2]])]
    return jnp.stack(places).reshape(16, -1, channels)


def _spread(d: list[Array]) -> list[Array]:
    """A d along one axis."""
    return [d[0], d[0] + d[1], d[0] - d[1], -d[1]]
