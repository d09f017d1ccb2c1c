"""An environment of your own as pure JAX functions, and TD3 and DrQ trained on it.

`python -m examples.own_environment` trains both for a short while. A run of any size, from the command line:

    python -m experiments.run --config=configs/gymnax_states.py --config.env.kind=examples.own_environment:KIND \
        --config.env.name=reach --config.env.speed=0.3
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from envs.types import ArraySpec, DeviceEnv, DeviceKind, EnvSpec, TimeStep, ViewSettings, observe
from settings import setting

STEPS = 25


@dataclass(frozen=True)
class ReachSettings(ViewSettings):  # pixels, image_size and action_repeat, which is 1 here
    """Settings of the task, each a key of `config.env`."""

    speed: float = setting(0.2, "distance in a step, at most", above=0)


def make(name: str, settings: ReachSettings) -> DeviceEnv:
    """Move a disc to a ring. A state is x and y of both, in -1..1, and the step."""

    def reset(key):
        state = {"places": jax.random.uniform(key, (4,), minval=-1, maxval=1), "step": jnp.int32(0)}
        return state, state["places"]

    def step(state, action, key):
        moved = jnp.clip(state["places"][:2] + settings.speed * jnp.clip(action, -1, 1), -1, 1)
        state = {"places": state["places"].at[:2].set(moved), "step": state["step"] + 1}
        distance = jnp.linalg.norm(moved - state["places"][2:])
        return state, TimeStep(state["places"], -distance, jnp.array(False), state["step"] >= STEPS)

    def draw(places, size):
        y, x = jnp.mgrid[1 : -1 : 1j * size, -1 : 1 : 1j * size]
        disc, ring = (jnp.hypot(x - at[0], y - at[1]) for at in (places[:2], places[2:]))
        shown = jnp.stack([disc < 0.2, jnp.abs(ring - 0.2) < 0.1, jnp.zeros_like(x, bool)], axis=-1)
        return 255 * shown.astype(jnp.uint8)

    see = (lambda places: draw(places, settings.image_size)) if settings.pixels else observe
    spec = EnvSpec(name, ArraySpec((4,), np.dtype(np.float32)), see, 2, 1, STEPS, settings.pixels)
    return DeviceEnv(spec, reset, step, lambda state: state["places"], draw)


KIND = DeviceKind("reach", make, ReachSettings, tasks=lambda: ["reach"])


def main(results_dir: str = "results", agents: tuple[str, ...] = ("td3", "drq"), frames: int = 6_000) -> None:
    """Train TD3 from states, and DrQ from pixels, for so many frames."""
    from configs import gymnax_pixels, gymnax_states
    from experiments.run import run

    configs = {"td3": gymnax_states.get_config(), "drq": gymnax_pixels.get_config("quick")}
    for config in (configs[agent] for agent in agents):
        config.update(results_dir=results_dir, seeds=(0,), total_frames=frames, seed_frames=1_000)
        config.env.update(kind="examples.own_environment:KIND", name="reach", action_repeat=1)
        config.replay.update(reward_scale=1.0, discount=0.95, capacity=frames)
        assert run(config) == 0


if __name__ == "__main__":
    main()
