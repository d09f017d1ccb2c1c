"""A contact sheet of gymnax's tasks, for the eye: `python -m envs.render.sheet --out=docs/gymnax_tasks.png`.

One row per task, a few moments of one episode under random actions, and the last of them once more at 32 by 32
pixels.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from envs.gymnax.env import task_names
from envs.registry import device_env

CELL, GAP, TITLE = 168, 8, 24
MOMENTS = (0, 8, 16, 32, 64)


def moments(name: str, size: int, seed: int = 0) -> list[UInt8[np.ndarray, "size size 3"]]:
    """Frames of one episode after `MOMENTS` control steps. An action is held for eight steps, so that things move."""
    env = device_env("gymnax", name, pixels=True)
    reset_key, action_key, step_key = jax.random.split(jax.random.key(seed), 3)
    steps = MOMENTS[-1]
    actions = jax.random.uniform(action_key, (steps // 8, env.spec.action_dim), minval=-1, maxval=1)

    def step(state, inputs):
        state, after = env.step(state, *inputs)
        return state, after.scene

    def episode():
        state, first = env.reset(reset_key)
        inputs = jnp.repeat(actions, 8, axis=0), jax.random.split(step_key, steps)
        return jnp.concatenate([first[None], jax.lax.scan(step, state, inputs)[1]])

    scenes = jax.jit(episode)()
    draw = jax.jit(env.draw, static_argnums=1)
    return [np.asarray(draw(scenes[moment], size)) for moment in MOMENTS]


def sheet() -> UInt8[np.ndarray, "height width 3"]:
    """All tasks below each other."""
    rows = []
    for name in task_names():
        images = moments(name, 84) + moments(name, 32)[-1:]
        cells = [cv2.resize(image, (CELL, CELL), interpolation=cv2.INTER_NEAREST) for image in images]
        row = np.concatenate([np.pad(cell, ((0, 0), (GAP, 0), (0, 0)), constant_values=225) for cell in cells], axis=1)
        title = np.full((TITLE, row.shape[1], 3), 225, np.uint8)
        text = f"{name}: steps {', '.join(map(str, MOMENTS))} at 84 x 84, step {MOMENTS[-1]} at 32 x 32"
        cv2.putText(title, text, (GAP, TITLE - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (30, 30, 30), 1, cv2.LINE_AA)
        rows += [title, row]
    page = np.concatenate(rows)
    return np.pad(page, ((0, GAP), (0, GAP), (0, 0)), constant_values=225)


def main() -> None:
    """Writes the sheet."""
    parser = argparse.ArgumentParser(description=sheet.__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/gymnax_tasks.png"), help="the PNG file to write")
    out = parser.parse_args().out
    out.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(out), cv2.cvtColor(sheet(), cv2.COLOR_RGB2BGR)):
        raise SystemExit(f"--out={out} cannot be written; give a file name that ends in .png.")
    print(out)


if __name__ == "__main__":
    main()
