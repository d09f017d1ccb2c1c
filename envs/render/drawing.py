"""A scenery and how it is drawn, as a value that can be sent to a worker process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from envs.render.mujoco_scene import Scenery


@dataclass(frozen=True)
class Drawing:
    """`draw(scenes, size)` of `envs.render.raycast.make_draw`. Can be pickled, and needs no jax until it is called."""

    scenery: Scenery
    quality: str

    def __call__(self, scene: Any, size: int) -> Any:
        from envs.render.raycast import make_draw

        return make_draw(self.scenery, self.quality)(scene, size)  # type: ignore[arg-type]

    def vary(self, **shares: float) -> Any:
        """`vary(key, scene)` of `envs.render.vary.make_vary`."""
        from envs.render.vary import make_vary

        return make_vary(self.scenery, **shares)
