"""Stream `labels`: a network memorises random labels of pictures, again and again new ones. No environment, no agent.

The protocol is that of Kumar et al. 2023 (arXiv:2308.11958, section 4) on small pictures: the first 1,200 of
scikit-learn's 8 x 8 digits, with a random label of ten for each picture and task; a ReLU network 64-100-100-10, Adam at
1e-3, batches of 16 drawn with replacement. Performance is online accuracy: that on a batch before it is learned from.
Chance is 0.1, and labels have nothing in common from task to task, so a fresh network is as good on any of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key
from ml_collections import ConfigDict

import ne_jax
from agents.layers import MLP, Injectable
from agents.types import Clock, Metrics, Params
from agents.updates import Network, TrainState, make_network
from configs.common import base
from experiments.build.optimisers import injected, make_optimisers
from experiments.streams.types import FRESH, RANDOM, Arm, Progress, Stream, TaskRow
from experiments.train.network_metrics import by_layer, last_layers
from ne_jax.probe import capacity
from ne_jax.sparsity import leaves_by_path

TASKS, LATE, UPDATES, BATCH, PICTURES, CLASSES = 10, 6, 6_000, 16, 1_200, 10
HIDDEN, LEARNING_RATE, ROUND = (100, 100), 1e-3, 1_000
CHANCE = 1 / CLASSES
PARTS = 20
"""Pieces of a task whose accuracies make its curve; the last fifth is its end."""
PROBE_STEPS, PROBE_PICTURES = 100, 64


class Parts(NamedTuple):
    """What the functions of a task are bound to."""

    network: Network
    pictures: Float[Array, "pictures 64"]
    updates: int
    """Of a task."""


def labels_stream(
    name: str = "labels",
    tasks: int = TASKS,
    late: int = LATE,
    updates: int = UPDATES,
    hidden: Sequence[int] = HIDDEN,
    seconds: float = 60,
) -> Stream:
    """The stream of random labels; by default in the size that is reported."""
    protocol = partial(protocol_of, tasks, updates, tuple(hidden))
    run = partial(train, name, tasks, updates, tuple(hidden))
    return Stream(name, tasks, late, "online accuracy", run, protocol, seconds, settings="labels")


def protocol_of(tasks: int, updates: int, hidden: tuple[int, ...], arm: Arm) -> dict[str, Any]:
    """All that decides the rows of an arm.

    Raises:
        ValueError: the arm has settings that this stream has not, or they do not go together.
    """
    config = config_of(arm)
    parts = make_parts(config, tasks, updates, hidden, np.zeros((1, 64), np.float32))
    # What an optimiser refuses, it refuses when it is begun.
    jax.eval_shape(partial(new_model, parts), (jax.random.key(0), jnp.zeros((), jnp.int32)))
    size = {"tasks": tasks, "updates": updates, "hidden": list(hidden), "batch": BATCH, "learning_rate": LEARNING_RATE}
    return {"every": config.plasticity.every, **size, **arm.overrides}


def config_of(arm: Arm) -> ConfigDict:
    """`config.plasticity` of an arm, and of `config.agent` what says how the network is built.

    Raises:
        ValueError: a key that this stream does not have.
    """
    config = base("labels")
    config.plasticity.update(method="none", every=ROUND, reset_every=2 * ROUND)
    config.agent = ConfigDict({"layer_norm": False, "activation": "relu"})
    for key, value in arm.overrides.items():
        group, _, name = key.partition(".")
        if group not in ("plasticity", "agent") or (group == "agent" and name not in config.agent):
            raise ValueError(f"{key} is no setting of the stream labels, which has plasticity.*, agent.layer_norm and "
                             "agent.activation")  # fmt: skip
        config.update_from_flattened_dict({key: value})
    return config


def make_parts(
    config: ConfigDict, tasks: int, updates: int, hidden: tuple[int, ...], pictures: Float[np.ndarray, "pictures 64"]
) -> Parts:
    """The network and its optimiser.

    Raises:
        ValueError: the method's settings do not go together, or not with a run of this length.
    """
    kind = Injectable if injected(config.plasticity) else MLP
    module = kind(hidden, CLASSES, "lecun", config.agent.layer_norm, config.agent.activation)
    make = make_optimisers(config, tasks * updates)
    network = make_network("critic", module, (jnp.zeros((1, 64)),), optax.adam(LEARNING_RATE), make, plastic=True)
    return Parts(network, jnp.asarray(pictures), updates)


def train(
    name: str,
    tasks: int,
    updates: int,
    hidden: tuple[int, ...],
    arm: Arm,
    seeds: Sequence[int],
    folder: Path,
    progress: Progress,
) -> list[TaskRow]:
    """All tasks in turn, seeds side by side, one compiled program for all of them."""
    if arm.name == RANDOM:
        return [TaskRow(name, arm.name, seed, task + 1, CHANCE, CHANCE, {}) for task in range(tasks) for seed in seeds]
    parts = make_parts(config_of(arm), tasks, updates, hidden, digits())
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))
    begin = jax.jit(partial(jax.lax.map, partial(new_model, parts)))
    learn = jax.jit(partial(_all_seeds, parts), donate_argnums=2)
    model, rows = begin((keys, jnp.zeros(len(seeds), jnp.int32))), []
    for task in range(tasks):
        if arm.name == FRESH and task:
            model = begin((keys, jnp.full(len(seeds), task)))
        model, curve, measures = learn(keys, np.int32(task), model)
        curve, found = np.asarray(curve), {key: np.asarray(each) for key, each in measures.items()}
        end = curve[:, -PARTS // 5 :].mean(axis=1)
        for i, seed in enumerate(seeds):
            values = {key: float(each[i]) for key, each in found.items()}
            rows.append(TaskRow(name, arm.name, seed, task + 1, float(curve[i].mean()), float(end[i]), values))
        progress((task + 1) / tasks)
    return rows


def digits() -> Float[np.ndarray, "pictures 64"]:
    """Pictures of digits, grey values in [0, 1], flat."""
    from sklearn.datasets import load_digits  # takes a second

    return (load_digits().data[:PICTURES] / 16).astype(np.float32)


def new_model(parts: Parts, key_and_task: tuple[Key[Array, ""], Int[Array, ""]]) -> TrainState:
    """A network that has learned nothing, another one for each task that begins with one."""
    key, task = key_and_task
    key, prepare_key = jax.random.split(jax.random.fold_in(key, task))
    return parts.network.init(key, prepare_key)


def _all_seeds(
    parts: Parts, keys: Key[Array, " seeds"], task: Int[Array, ""], model: TrainState
) -> tuple[TrainState, Float[Array, "seeds parts"], Metrics]:
    model, curve = learn_task(parts, keys, task, model)
    return model, curve, jax.lax.map(lambda each: measure(parts, *each), (keys, model))


def learn_task(
    parts: Parts, keys: Key[Array, " seeds"], task: Int[Array, ""], model: TrainState
) -> tuple[TrainState, Float[Array, "seeds parts"]]:
    """The models after a task, and the accuracies along its way."""
    each_part = parts.updates // PARTS
    draw = partial(jax.random.randint, shape=(len(parts.pictures),), minval=0, maxval=CLASSES)
    targets = jax.vmap(lambda key: draw(_key(key, task, 0)))(keys)

    def one(now: Int[Array, ""], key: Key[Array, ""], model: TrainState, targets: Int[Array, " pictures"]):
        return update(parts, model, targets, _key(key, now, 1), now)

    def body(i: Int[Array, ""], carry: tuple[TrainState, Float[Array, "seeds parts"]]):
        model, curve = carry
        model, right = jax.vmap(partial(one, task * parts.updates + i))(keys, model, targets)
        return model, curve.at[:, i // each_part].add(right / each_part)

    return jax.lax.fori_loop(0, each_part * PARTS, body, (model, jnp.zeros((len(keys), PARTS))))


def _key(key: Key[Array, ""], number: Int[Array, ""], purpose: int) -> Key[Array, ""]:
    return jax.random.fold_in(jax.random.fold_in(key, 2**31 - 1 - purpose), number)


def loss_and_right(
    network: Network, params: Params, pictures: Float[Array, "batch 64"], targets: Int[Array, " batch"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean cross entropy, and the share of a batch that is classified right."""
    logits = network.apply(params, pictures)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()
    return loss, (logits.argmax(axis=-1) == targets).mean()


def update(
    parts: Parts, model: TrainState, targets: Int[Array, " pictures"], key: Key[Array, ""], now: Int[Array, ""]
) -> tuple[TrainState, Float[Array, ""]]:
    """Classify a batch, then learn from it: the model, and the share that was right before."""
    batch_key, update_key = jax.random.split(key)
    chosen = jax.random.randint(batch_key, (BATCH,), 0, len(parts.pictures))
    pictures = parts.pictures[chosen]
    slope = jax.grad(partial(loss_and_right, parts.network), has_aux=True)
    gradients, right = slope(model.params, pictures, targets[chosen])
    return parts.network.learn(model, gradients, (pictures,), update_key, Clock(now, now)), right


def measure(parts: Parts, key: Key[Array, ""], model: TrainState) -> Metrics:
    """Of a network as a task ends: units, features, weights, and how well it would learn something new."""
    batch = parts.pictures[:256]
    activations = ne_jax.flax_activity(parts.network.module.apply)(model.params, (batch,))
    last = last_layers(activations).values()  # several where there is room for an injection
    heads = [leaf for path, leaf in leaves_by_path(model.params).items() if path.endswith("head/kernel")]
    masks = ne_jax.masks(model.opt_state)
    few = batch[:PROBE_PICTURES]
    probe = capacity(parts.network.apply, model.params, few, key, parts.network.draw, steps=PROBE_STEPS, masks=masks)
    return {
        "dormant": ne_jax.dormant_ratio(activations, 0.1),
        "fau": ne_jax.fau(activations),
        "density": ne_jax.density(masks)["all"] if masks else jnp.ones(()),
        "effective_rank": jnp.stack([ne_jax.effective_rank(h) for h in last]).mean(),
        "weight_norm": ne_jax.norm(model.params),
        "capacity": probe.relative,
        "feature_norm": jnp.stack([ne_jax.feature_norm(h) for h in last]).mean(),
        "head_norm": ne_jax.norm(heads),
    } | by_layer("dead", ne_jax.dormant_ratio_by_layer(activations))
