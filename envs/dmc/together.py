"""All environments of a task stepped at once by `mujoco.batch`: `env.workers=batch`.

dm_control ends a step with `mj_step1` (its "legacy step"). A batch that keeps its simulations does the same with the
stage `VEL`, and goes on from there: states and what is derived of them are those of dm_control, bit for bit. Each
environment starts, replays and draws its episodes itself, in its own simulation, which is copied to the batch and back.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from envs.dmc.rules import DOMAINS, Rules, make_rules
from envs.types import TimeStep

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32

Envs = Sequence[Any]  # of `envs.dmc.env.DmcEnv`, whose file imports this one
OF_A_THREAD = 8
"""Simulations for which a thread is worth waking: where other work has the cores, it comes late."""


class DmcTogether:
    """Steps environments of one task together; see `envs.types.Together`."""

    def __init__(self, envs: Envs) -> None:
        from mujoco.batch import Batch

        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = max(1, min(len(envs) // OF_A_THREAD, cores))
        self._batch = Batch(envs[0]._model(), len(envs), threads, persistent=True)
        self._frames = np.zeros(len(envs))  # of the episode that each is in
        self._rules: Rules | None = None  # once an episode was started

    def step(self, envs: Envs, actions: Float32[np.ndarray, "lanes actions"]) -> list[TimeStep | Exception]:
        """One agent step of each, or how it failed."""
        rules, spec = self._load(envs), envs[0].spec
        self._batch.ctrl = envs[0]._scaled(actions)
        limit, reward = envs[0]._env._step_limit, np.zeros(len(envs))
        failed: dict[int, Exception] = {}
        going = np.ones(len(envs), bool)
        for _ in range(spec.action_repeat):
            failed |= self._advance(envs[0]._env._n_sub_steps, going)
            going[list(failed)] = False
            reward[going] += rules.reward()[going]
            self._frames[going] += 1
            going &= self._frames < limit
            if not going.any():
                break
        scenes = self._scenes(envs, rules, failed)
        rewards, over = reward.astype(np.float32), self._frames >= limit
        return [
            failed.get(lane) or TimeStep(scenes[lane], rewards[lane], np.bool_(False), over[lane])
            for lane in range(len(envs))
        ]

    def _load(self, envs: Envs) -> Rules:
        """Takes over the episodes that were started or replayed since the last step."""
        from mujoco import mj_getState, mjtState

        begun = [lane for lane, env in enumerate(envs) if env.begun]
        for lane in begun:
            env = envs[lane]
            mj_getState(env._model(), env._simulation(), self._batch.state[lane], mjtState.mjSTATE_INTEGRATION.value)
            self._batch.warning[lane] = 0
            self._frames[lane], env.begun = env._env._step_count, False
        if begun:  # tasks set targets and the like in their models
            self._batch.set_models([env._model() for env in envs])
        if self._rules is None:
            self._rules = make_rules(self._batch, envs[0]._env, envs[0].domain)
        return self._rules

    def _advance(self, substeps: int, going: Bool[np.ndarray, " lanes"]) -> dict[int, Exception]:
        """Takes those that go on through a frame, and gives what dm_control would have raised in which of them."""
        from mujoco import FatalError, mjtStage
        from mujoco.batch import SimulationError

        before, failed = self._batch.warning[..., 1].copy(), {}
        try:
            self._batch.step(going, substeps, mjtStage.mjSTAGE_VEL.value)
        except SimulationError as error:
            failed = {int(lane): FatalError(self._batch.error(int(lane))) for lane in error.ids}
        risen = self._batch.warning[..., 1] > before
        return failed | {int(lane): _invalid(risen[lane]) for lane in np.flatnonzero(risen.any(axis=1))}

    def _scenes(self, envs: Envs, rules: Rules, failed: dict[int, Exception]) -> Any:
        """Stacked states, or a list of what is drawn from; of those that failed, nothing that means anything."""
        if not envs[0].spec.pixels:
            entries = [each.reshape(len(envs), -1) for each in rules.observe()]
            return np.concatenate(entries, axis=1).astype(np.float32)
        self.save(envs)
        return [np.zeros(0) if lane in failed else env._scene() for lane, env in enumerate(envs)]

    def save(self, envs: Envs) -> None:
        """Takes each environment's own simulation to where it is in the batch, to draw it."""
        for lane, env in enumerate(envs):
            if not env.begun:
                self._batch.get_data(lane, env._simulation())


def _invalid(warnings: Bool[np.ndarray, " kinds"]) -> Exception:
    """What dm_control raises for these warnings of MuJoCo."""
    from dm_control.rl.control import PhysicsError
    from mujoco import mjtWarning

    names = ", ".join(np.compress(warnings, list(mjtWarning.__members__)))
    return PhysicsError(f"Physics state is invalid. Warning(s) raised: {names}")


def check_together(name: str, domain: str) -> None:
    """ValueError for a task whose rules are not known for many at once."""
    if domain not in DOMAINS:
        raise ValueError(
            f"env.workers='batch' steps the domains {', '.join(DOMAINS)}, not {name}; set --config.env.workers=thread"
        )
