"""How close the ray caster comes to OpenGL: `python -m envs.render.fidelity`. Needs headless OpenGL.

For each task it takes poses from random play and compares both renderers' images: the silhouettes of all geoms that can
move (intersection over union, of all poses together and of the worst one) and the mean absolute difference of the
colours, in 255ths, as `fast` and as `canonical`. It prints a table in Markdown and writes a sheet of images: per task
OpenGL's, ours, and four times the difference, first fast, then canonical.

`--poses=3 --reference=tests/envs/render/reference/mujoco` writes the images that the tests compare with instead.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import jax
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from envs.mujoco import gl
from envs.render.mujoco_scene import RenderQuality, Scenery, poses
from envs.render.raycast import make_draw, make_segment
from envs.render.scenery import make_scenery

SIZE, CAMERA, GEOM = 84, 0, 5
LOOKS: tuple[RenderQuality, ...] = ("fast", "canonical")


class Views(NamedTuple):
    """Poses of one task, and what OpenGL makes of them."""

    scenery: Scenery
    scenes: Float32[np.ndarray, "poses floats"]
    images: dict[str, UInt8[np.ndarray, "poses size size 3"]]
    silhouettes: Bool[np.ndarray, "poses size size"]


def benchmark_tasks() -> list[str]:
    """The suite's benchmarking set; none of its tasks shows a mesh."""
    suite = gl.import_suite(pixels=True)
    return [f"{domain}_{task}" for domain, task in suite.BENCHMARKING]


def gather_views(name: str, count: int, seed: int = 0) -> Views:
    """`count` poses, each from an episode of its own after up to 60 random actions, each held for 4 control steps."""
    suite = gl.import_suite(pixels=True)
    domain, task = next(each for each in suite.ALL_TASKS if "_".join(each) == name)
    env = suite.load(domain, task, task_kwargs={"random": seed})
    env.reset()
    physics, spec, random = env.physics, env.action_spec(), np.random.default_rng(seed)
    scenery = make_scenery(physics.model.ptr, CAMERA, name)
    renderers = {quality: gl.Renderer(physics.model.ptr, SIZE, CAMERA, quality) for quality in LOOKS}
    moving = [each.row for each in scenery.primitives if each.source == "geom" and each.moves]
    scenes, images, silhouettes = [], {quality: [] for quality in LOOKS}, []
    for _ in range(count):
        env.reset()
        for _ in range(int(random.integers(60))):
            action = random.uniform(np.maximum(spec.minimum, -1), np.minimum(spec.maximum, 1))
            for _ in range(4):
                env.step(action)
        scenes.append(poses(scenery, physics.data.ptr))
        for quality, renderer in renderers.items():
            images[quality].append(renderer.render(physics.data.ptr))
        kind, row = np.moveaxis(renderers["fast"].segment(physics.data.ptr), -1, 0)
        silhouettes.append((kind == GEOM) & np.isin(row, moving))
    for renderer in renderers.values():
        renderer.close()
    return Views(scenery, np.stack(scenes), {q: np.stack(f) for q, f in images.items()}, np.stack(silhouettes))


def draw(views: Views, quality: RenderQuality) -> UInt8[np.ndarray, "poses size size 3"]:
    """Our images of the same poses."""
    return np.asarray(jax.jit(make_draw(views.scenery, quality), static_argnums=1)(views.scenes, SIZE))


def silhouettes(views: Views) -> Bool[np.ndarray, "poses size size"]:
    """Where we draw geoms that can move."""
    labels = np.asarray(jax.jit(make_segment(views.scenery), static_argnums=1)(views.scenes, SIZE))
    moving = [i for i, each in enumerate(views.scenery.primitives) if each.source == "geom" and each.moves]
    return np.isin(labels, moving)


def overlap(a: Bool[np.ndarray, "*shape"], b: Bool[np.ndarray, "*shape"]) -> float:
    """Intersection over union; 1 where both are empty."""
    union = np.logical_or(a, b).sum()
    return float(np.logical_and(a, b).sum() / union) if union else 1.0


def difference(a: UInt8[np.ndarray, "*shape"], b: UInt8[np.ndarray, "*shape"]) -> float:
    """Mean absolute difference in 255ths."""
    return float(np.abs(a.astype(np.float32) - b.astype(np.float32)).mean())


def compare(name: str, count: int) -> tuple[str, UInt8[np.ndarray, "height width 3"]]:
    """A row of the table, and a row of the sheet: OpenGL, ours and four times the difference, for both looks."""
    views = gather_views(name, count)
    ours = silhouettes(views)
    each = [overlap(a, b) for a, b in zip(ours, views.silhouettes)]
    row, cells = [name, f"{overlap(ours, views.silhouettes):.3f}", f"{min(each):.3f}"], []
    for quality in LOOKS:
        theirs, mine = views.images[quality], draw(views, quality)
        row.append(f"{difference(mine, theirs):.2f}")
        apart = np.clip(4 * np.abs(mine[-1].astype(int) - theirs[-1]), 0, 255).astype(np.uint8)
        cells += [theirs[-1], mine[-1], apart]
    return "| " + " | ".join(row) + " |", np.concatenate(cells, axis=1)


def reference(names: list[str], count: int, folder: Path) -> Iterator[str]:
    """Writes poses.npz, and a PNG per task, a row per pose: OpenGL's fast and canonical image, and the silhouette."""
    folder.mkdir(parents=True, exist_ok=True)
    scenes: dict[str, Any] = {}
    for name in names:
        views = gather_views(name, count)
        masks = np.repeat(views.silhouettes[..., None].astype(np.uint8) * 255, 3, axis=-1)
        picture = np.concatenate([np.concatenate([*views.images.values(), masks], axis=2)[i] for i in range(count)])
        scenes[name] = views.scenes
        path = folder / f"{name}.png"
        cv2.imwrite(str(path), picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
        yield str(path)
    poses_file = folder / "poses.npz"
    earlier = dict(np.load(poses_file)) if poses_file.exists() else {}
    np.savez_compressed(poses_file, **(earlier | scenes))


def main() -> None:
    """Prints the table and writes the sheet, or writes the reference images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="*", default=None, help="default: the suite's benchmarking set")
    parser.add_argument("--poses", type=int, default=20, help="of each task")
    parser.add_argument("--out", type=Path, default=Path("docs/renderers.png"), help="the sheet to write")
    parser.add_argument("--reference", type=Path, default=None, help="a folder for reference images")
    args = parser.parse_args()
    if args.out.suffix != ".png":
        sys.exit(f"--out={args.out} cannot be written; give a file name that ends in .png.")
    try:
        _run(args)
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")


def _run(args: argparse.Namespace) -> None:
    names = args.tasks or benchmark_tasks()
    if args.reference:
        for path in reference(names, args.poses, args.reference):
            print(path, flush=True)
        return
    print("| task | IoU | worst pose | fast | canonical |\n|---|---|---|---|---|")
    rows = []
    for name in names:
        text, picture = compare(name, args.poses)
        print(text, flush=True)
        rows.append(picture)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(args.out), np.concatenate(rows)[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    print(f"\n{args.out}")


if __name__ == "__main__":
    main()
