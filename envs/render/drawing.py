"""A scenery and how it is drawn, as a value that can be sent to a worker process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from envs.render.mujoco_scene import RenderQuality, Scenery

if TYPE_CHECKING:
    from jaxtyping import Array, Float32, UInt8

    from envs.render.vary import Vary


@dataclass(frozen=True)
class Drawing:
    """`draw(scenes, size)` of `envs.render.raycast.make_draw`. Can be pickled, and needs no jax until it is called."""

    scenery: Scenery
    quality: RenderQuality

    def __call__(self, scene: Float32[Array, "*batch floats"], size: int) -> UInt8[Array, "*batch size size 3"]:
        from envs.render.raycast import make_draw

        return make_draw(self.scenery, self.quality)(scene, size)

    def vary(self, **shares: float) -> Vary:
        """`vary(key, scene)` of `envs.render.vary.make_vary`."""
        from envs.render.vary import make_vary

        return make_vary(self.scenery, **shares)
