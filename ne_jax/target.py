"""The platform that programs are made for, where XLA wants other code on a CPU than on an accelerator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

import jax

_TARGET: ContextVar[str | None] = ContextVar("target", default=None)


def on_cpu() -> bool:
    """Whether programs are made for a CPU: where jax computes here, unless `made_for` says otherwise."""
    return (_TARGET.get() or jax.default_backend()) == "cpu"


@contextmanager
def made_for(platform: Literal["cpu", "cuda", "tpu"]) -> Iterator[None]:
    """What is built and traced inside is made for this platform, also where there is none: to look at its programs.

    A function that jax has traced before is not traced anew, so build and trace afresh inside.
    """
    token = _TARGET.set(platform)
    try:
        yield
    finally:
        _TARGET.reset(token)
