"""What units do: activations and gradients to scores and shares of units, and which weights belong to which unit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from ne_jax.numbers import Number
from ne_jax.sparsity import Leaves, density, leaves_by_path

Activity = Callable[[PyTree, PyTree], Leaves]


def dormancy(activations: Float[Array, "*batch units"]) -> Float[Array, " units"]:
    """Dormancy score of each unit, s_i = E|h_i| / mean_k E|h_k|: 1 on average, 0 for a unit that is never active.

    All axes but the last are averaged over; a convolution's unit is a channel. A layer without any activity scores 0
    throughout (Sokar et al. 2023, definition 3.1).
    """
    return _relative_magnitude(activations)


def gradient_activity(gradient: Float[Array, "*fan units"]) -> Float[Array, " units"]:
    """GraMa score of each unit of a kernel: mean `|dL/dw|` over its incoming weights / the layer's mean of the same.

    1 on average, 0 for a unit that no gradient reaches; a layer without any gradient scores 0 throughout. GraMa (Liu et
    al. 2025, arXiv:2505.24061) takes the mean of `|dL/dh|` over samples where this takes that of `|dL/dw|` over
    weights: an optimiser is handed weight gradients of a whole batch, and sees neither dL/dh nor single samples. A ReLU
    that never fires therefore scores 0 here, whatever its dL/dh. Absent weights count as long as `gradient` is dense.
    """
    return _relative_magnitude(gradient)


def _relative_magnitude(values: Float[Array, "*any units"]) -> Float[Array, " units"]:
    """Mean |value| of each unit over the mean of all; zeros throughout where that is zero."""
    magnitude = jnp.abs(values).mean(axis=range(values.ndim - 1))
    mean = magnitude.mean()
    return jnp.where(mean > 0, magnitude / jnp.where(mean > 0, mean, 1), 0)


def dormant(activations: Float[Array, "*batch units"], tau: Number = 0.0) -> Bool[Array, " units"]:
    """The units whose dormancy score is at most `tau`."""
    return dormancy(activations) <= tau


def dormant_ratio(activations: Leaves, tau: float = 0.0) -> Float[Array, ""]:
    """Share of all layers' units that are `tau`-dormant (Sokar et al. 2023, section 3). It counts units."""
    return dormant_ratio_by_layer(activations, tau)["all"]


def dormant_ratio_by_layer(activations: Leaves, tau: float = 0.0) -> dict[str, Float[Array, ""]]:
    """Share of each layer's units that are `tau`-dormant, and of all layers' units together under the key `all`."""
    # The density of a set of flags is the share of those that are up.
    return density({layer: dormant(h, tau) for layer, h in activations.items()})


def gradient_dormant_ratio(gradients: Leaves, tau: float = 0.0) -> Float[Array, ""]:
    """Share of all units whose GraMa score is at most `tau`, from `{path: gradient of a kernel [*fan, units]}`."""
    return gradient_dormant_ratio_by_layer(gradients, tau)["all"]


def gradient_dormant_ratio_by_layer(gradients: Leaves, tau: float = 0.0) -> dict[str, Float[Array, ""]]:
    """`gradient_dormant_ratio` of each layer, and of all layers together under the key `all`."""
    return density({path: gradient_activity(gradient) <= tau for path, gradient in gradients.items()})


def fau(activations: Leaves) -> Float[Array, ""]:
    """Fraction of active units: the share of (sample, unit) pairs with a positive activation, over all layers.

    Not 1 - dormant ratio: a unit that fires on half of the samples is wholly alive, and counts one half here.
    """
    return fau_by_layer(activations)["all"]


def fau_by_layer(activations: Leaves) -> dict[str, Float[Array, ""]]:
    """Fraction of active units of each layer, and of all layers together under the key `all`, see `fau`."""
    return density({layer: h > 0 for layer, h in activations.items()})


def flax_activity(apply: Callable[..., PyTree], activation: Callable[[Array], Array] | None = None) -> Activity:
    """The activations of a Flax linen network as a function `(params, batch) -> {module path: activations}`.

    With `activation=None` the network sows its activations itself: `self.sow("intermediates", "activation", h)`
    in the module that owns the kernel. Otherwise the output of every module is captured and `activation` applied to it,
    which suits networks that call `nn.relu(nn.Dense(...)(x))`, and with a norm of Flax between the two,
    `nn.relu(nn.LayerNorm()(nn.Dense(...)(x)))`: what a norm makes of a module's output, as it is, stands in that
    module's place. Anything else in between (a scale, a residual, a norm of one's own) is not seen, and the scores
    would be those of the output before it: let such a network sow its activations.

    Args:
        apply: the module's `apply`; it is called as `apply({"params": ...}, *batch)`. A `batch` that is not a tuple is
            the only input.
        activation: the elementwise nonlinearity that follows each captured module, such as `jax.nn.relu`.
    """
    name = "activation" if activation is None else "__call__"

    def activity(params: PyTree, batch: PyTree) -> Leaves:
        variables = params if "params" in params else {"params": params}
        inputs = batch if isinstance(batch, tuple) else (batch,)
        capture = activation is not None
        with _norms_seen() if capture else nullcontext({}) as norms:
            _, captured = apply(variables, *inputs, mutable=["intermediates"], capture_intermediates=capture)
        found = {}
        for path, leaf in leaves_by_path(captured.get("intermediates", {})).items():
            module, _, last = path.removesuffix("/0").rpartition("/")  # sown values come as tuples of one
            if last == name and module:  # the whole network's own output is no layer
                found[module] = leaf if activation is None else activation(leaf)
        for norm, modules in norms.items():
            normed = found.pop(norm)
            found |= dict.fromkeys(modules, normed)
        if not found:
            raise ValueError(
                "the network sows no `activation` into its intermediates; sow it in the modules that own the sparse "
                "kernels, or name the nonlinearity: flax_activity(apply, activation=jax.nn.relu)"
            )
        return found

    return activity


@contextmanager
def _norms_seen() -> Iterator[dict[str, list[str]]]:
    """Notes, while a Flax network is applied, the path of each norm and of the modules whose output it is called on."""
    from flax import linen as nn  # whoever applies a Flax network has it; the library can do without

    norms: dict[str, list[str]] = {}
    outputs: list[tuple[PyTree, str]] = []
    kinds = (nn.LayerNorm, nn.RMSNorm, nn.BatchNorm, nn.GroupNorm, nn.InstanceNorm)

    def note(call: Callable[..., PyTree], args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> PyTree:
        output, path = call(*args, **kwargs), "/".join(context.module.path)
        if context.method_name == "__call__" and path:
            if isinstance(context.module, kinds) and args:
                before = [module for given, module in outputs if given is args[0]]
                if before:
                    norms[path] = [root for module in before for root in norms.get(module, [module])]
            outputs.append((output, path))
        return output

    with nn.intercept_methods(note):
        yield norms


def units_of(path: str, activations: Leaves) -> Array | None:
    """The activations of the layer whose kernel is at `path`: those of the innermost module around it, or None.

    A path may start with the collection `params/`, which module paths lack.
    """
    starts = (f"{path}/", f"{path.removeprefix('params/')}/")
    inside = [module for module in activations if any(start.startswith(f"{module}/") for start in starts)]
    return activations[max(inside, key=len)] if inside else None


def incoming(units: Bool[Array, " units"], kernel_shape: tuple[int, ...]) -> Bool[Array, "..."]:
    """The weights that lead *into* the given units: the kernel's last axis, for dense and convolutional kernels."""
    if kernel_shape[-1] != units.size:
        raise ValueError(f"a kernel of shape {kernel_shape} does not lead into {units.size} units")
    return jnp.broadcast_to(units, kernel_shape)


def outgoing(units: Bool[Array, " units"], kernel_shape: tuple[int, ...]) -> Bool[Array, "..."]:
    """The weights that lead *out of* the given units, in the next layer's kernel: its last axis but one.

    Covers dense to dense, convolution to convolution, and a convolution whose [height, width, channel] output is
    flattened before a dense kernel: there, channels vary fastest, so the flags are tiled.
    """
    repeats, rest = divmod(kernel_shape[-2], units.size)
    if rest:
        raise ValueError(f"a kernel of shape {kernel_shape} does not take the output of {units.size} units")
    return jnp.broadcast_to(jnp.tile(units, repeats)[:, None], kernel_shape)
