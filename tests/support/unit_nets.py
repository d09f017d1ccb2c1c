"""What tests of rules that watch units share: small Flax networks by name, inputs for them, and something to learn."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp


class UnitNets(NamedTuple):
    """Networks that sow the activations of their hidden layers as `h0`, `h1`, ... and have the `shape` of a batch."""

    nets: Mapping[str, Any]
    layers: Mapping[str, dict[str, str]]
    """Of each network: {hidden layer: the layer that follows}, in order."""

    def initialise(self, name: str, key: Any) -> Any:
        return self.nets[name].init(key, jnp.zeros(self.nets[name].shape))["params"]

    def activity(self, name: str, params: Any, batch: Any) -> Any:
        net: nn.Module = self.nets[name]
        seen: Any = net.apply({"params": params}, batch, mutable=["intermediates"])[1]
        return {layer: seen["intermediates"][f"h{i}"][0] for i, layer in enumerate(self.layers[name])}

    def batch_at(self, name: str, t: Any) -> Any:
        return jax.random.normal(jax.random.key(1000 + t), self.nets[name].shape)

    def loss(self, name: str, params: Any, batch: Any) -> Any:
        return ((self.nets[name].apply({"params": params}, batch) - jnp.sin(3 * batch).mean()) ** 2).mean()
