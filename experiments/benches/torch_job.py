"""One seed of the job of `configs/dmc_pixels.py` in eager PyTorch, as DrQ-v2's users run it: a process per seed.

`python -m experiments.benches.whole_job` starts it with a config as JSON. The environment is ours, but drawn by
MuJoCo's own renderer as there, in the quality that the config asks for; frames go into a ring of bytes, and batches are
gathered from it with numpy. It evaluates as often as ours, and saves and films nothing. No jax is imported.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import torch._dynamo  # pyright: ignore[reportMissingImports]  # Adam imports it: after OpenGL, triton's LLVM crashes
from ml_collections import ConfigDict

from envs.registry import host_env
from experiments.benches.torch_peer import Batch, DrQ, form_of


class Frames:
    """A ring of frames with the actions that led to them. Slots are numbered in order of arrival."""

    def __init__(self, config: ConfigDict, actions: int) -> None:
        self._stack, self._nstep, self._discount = config.env.frame_stack, config.replay.nstep, config.replay.discount
        self._scale, self._size, self.slots = config.replay.reward_scale, config.replay.capacity, 0
        self._frame = np.zeros((self._size, 3, config.env.image_size, config.env.image_size), np.uint8)
        self._action = np.zeros((self._size, actions), np.float32)
        self._reward, self._end = np.zeros(self._size, np.float32), np.zeros(self._size, bool)
        self._step = np.zeros(self._size, np.int64)  # within its episode

    def add(self, frame: np.ndarray, action: np.ndarray | float, reward: float, step: int, end: bool = False) -> None:
        """Store what was observed, uint8 [height, width, 3], and what had led to it; `end`: the world ended there."""
        at = self.slots % self._size
        self._frame[at], self._action[at] = frame.transpose(2, 0, 1), action
        self._reward[at], self._step[at], self._end[at] = reward, step, end
        self.slots += 1

    def stack(self, slots: np.ndarray) -> np.ndarray:
        """What is seen at these slots, uint8 [slots, channels, height, width]; episodes begin with a frame repeated."""
        back = np.minimum(np.arange(self._stack)[::-1], self._step[slots % self._size, None])
        return self._frame[(slots[:, None] - back) % self._size].reshape(len(slots), -1, *self._frame.shape[2:])

    def sample(self, count: int, rng: np.random.Generator) -> Batch:
        """Transitions of `nstep` steps, uniform over those that are stored whole; at least one must be."""
        oldest = max(0, self.slots - self._size) + self._stack - 1
        found = np.zeros(0, np.int64)
        while len(found) < count:
            slots = rng.integers(oldest, self.slots - self._nstep, count)
            whole = self._step[(slots + self._nstep) % self._size] == self._step[slots % self._size] + self._nstep
            found = np.concatenate([found, slots[whole]])
        slots = found[:count]
        later = (slots[:, None] + np.arange(1, self._nstep + 1)) % self._size
        reward = self._scale * (self._reward[later] * self._discount ** np.arange(self._nstep)).sum(1, keepdims=True)
        discount = self._discount**self._nstep * ~self._end[later[:, -1:]]
        arrays = self.stack(slots), self._action[later[:, 0]], reward, discount, self.stack(slots + self._nstep)
        obs, action, reward, discount, next_obs = (torch.from_numpy(each) for each in arrays)
        return Batch(obs, action, reward.float(), discount.float(), next_obs)


class Seed:
    """Agent, environments and replay of one seed."""

    def __init__(self, config: ConfigDict, seed: int) -> None:
        torch.manual_seed(seed)
        self.config, self.rng = config, np.random.default_rng(seed)
        size, env = config.env.image_size, config.env
        view: dict[str, Any] = dict(pixels=True, image_size=size, renderer="gl", render_quality=env.render_quality)
        view["camera_id"] = env.camera_id
        make = host_env("dmc", env.name, action_repeat=env.action_repeat, **view)
        self.env, self.eval_env = make(), make()
        self.actions = self.env.spec.action_dim
        self.agent = DrQ(form_of(config.agent.to_dict(), obs=(3 * env.frame_stack, size, size), actions=self.actions))
        self.replay, self.noise = Frames(config, self.actions), np.zeros(self.actions)

    def std(self, step: int) -> float:
        """The deviation of the noise after so many agent steps."""
        agent, done = self.config.agent, min(step / self.config.agent.std_steps, 1.0)
        return (1 - done) * agent.std_initial + done * agent.std_final

    def action(self, obs: np.ndarray, step: int) -> np.ndarray:
        """With noise, which is held; uniform at first."""
        if step % self.config.agent.noise_hold == 0:
            self.noise = self.rng.normal(size=self.actions)
        if step < self.config.agent.random_steps:
            return self.rng.uniform(-1, 1, self.actions).astype(np.float32)
        mean = self.agent.act(torch.from_numpy(obs)).numpy()[0]
        return np.clip(mean + self.std(step) * self.noise, -1, 1).astype(np.float32)

    def train(self) -> Iterator[tuple[int, float]]:
        """All steps; yields (frame, mean return) of each evaluation."""
        config, repeat = self.config, self.config.env.action_repeat
        first, total = -(-config.seed_frames // repeat), config.total_frames // repeat
        wait, evaluate = max(1, round(1 / config.updates_per_step)), max(1, round(config.eval.every / repeat))
        each = max(1, round(config.updates_per_step))
        episode = within = 0
        self.replay.add(self.env.reset(episode), 0.0, 0.0, 0)
        for step in range(total):
            if step % evaluate == 0:
                yield step * repeat, self.evaluate()
            action = self.action(self.replay.stack(np.array([self.replay.slots - 1])), step)
            if step >= first and (step - first) % wait == 0:
                for _ in range(each):
                    self.agent.update(self.replay.sample(config.batch_size, self.rng), self.std(step))
            found, within = self.env.step(action), within + 1
            self.replay.add(found.scene, action, float(found.reward), within, bool(found.terminated))
            if found.terminated or found.truncated:
                episode, within = episode + 1, 0
                self.replay.add(self.env.reset(episode), 0.0, 0.0, 0)
        yield total * repeat, self.evaluate()

    def evaluate(self) -> float:
        """The mean return of greedy episodes, one after another."""
        total = 0.0
        for episode in range(self.config.eval.episodes):
            frames, over = [self.eval_env.reset(10_000 + episode)] * self.config.env.frame_stack, False
            while not over:
                obs = np.concatenate(frames, axis=2).transpose(2, 0, 1)[None]
                found = self.eval_env.step(self.agent.act(torch.from_numpy(np.ascontiguousarray(obs))).numpy()[0])
                frames, over = [*frames[1:], found.scene], bool(found.terminated or found.truncated)
                total += float(found.reward)
        return total / self.config.eval.episodes


def main(config: ConfigDict, seed: int, threads: int) -> None:
    """Train, and print a line of JSON for each evaluation."""
    begun = time.perf_counter()
    torch.set_num_threads(threads)
    for frame, value in Seed(config, seed).train():
        print(json.dumps({"frame": frame, "return": value, "seconds": time.perf_counter() - begun}), flush=True)


if __name__ == "__main__":
    main(ConfigDict(json.loads(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3]))
