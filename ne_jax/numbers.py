"""Numbers that a method is made with: known when its program is made, or traced in it, so that one program serves many.

`jax.vmap(lambda tau: train(ne_jax.redo(activity, initialise, tau=tau)))(taus)` trains with each of several. A traced
number is not looked at, so what a maker checks of it has to be checked before.
"""

from __future__ import annotations

from jax.core import Tracer
from jaxtyping import Array, Float

Number = float | Float[Array, ""]
"""One that does not decide on shapes."""


def is_known(number: Number | int) -> bool:
    """Whether a number can be looked at now, which one that is traced cannot."""
    return not isinstance(number, Tracer)


def is_zero(number: Number | int) -> bool:
    """Whether a number is known to be 0, so that what it multiplies can be left out of the program."""
    return is_known(number) and bool(number == 0)
