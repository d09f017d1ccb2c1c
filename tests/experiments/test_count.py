"""The guard by counting: what is counted, and what it says of a difference."""

import jax
import jax.numpy as jnp

from experiments.count import count, differences


def test_what_is_inside_branches_and_loops_is_counted():
    def one(x):
        def body(i, x):
            return jax.lax.cond(x[0] > i, jnp.sort, lambda x: x, x)

        return jax.lax.fori_loop(0, 3, body, x) @ jnp.ones((16, 8))

    found = count(jax.jit(one), jnp.ones(16))
    assert (found["cond"], found["sort"], found["conv_general_dilated"]) == (1, 1, 0)
    assert found["flops"] >= 2 * 16 * 8 and found["bytes accessed"] > 0
    assert found["donated bytes"] == 0
    kept = count(jax.jit(lambda x: x + 1, donate_argnums=0), jnp.ones(16))
    assert kept["donated bytes"] == 16 * 4


def test_a_difference_is_named_and_the_tolerance_is_for_sizes_alone():
    old = {"update": {"sort": 2, "flops": 1_000.0, "donated bytes": 0}}
    assert differences(old, {"update": {"sort": 2, "flops": 1_090.0, "donated bytes": 0}}) == []
    assert differences(old, {"update": {"sort": 3, "flops": 1_200.0, "donated bytes": 8}}) == [
        "update: sort was 2 and is 3 (+50 %)",
        "update: flops was 1,000 and is 1,200 (+20 %)",
        "update: donated bytes was 0 and is 8",
    ]
    assert differences(old, {"chunk": {}}) == [
        "update: in the baseline, and no longer counted",
        "chunk: not in the baseline",
    ]
