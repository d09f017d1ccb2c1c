"""Environments behind one contract (`envs.types`). `host_env` makes makers of those that live on the host."""

from __future__ import annotations

import difflib
import importlib
import inspect
from functools import partial
from typing import Any

from envs.types import MakeHostEnv

# kind -> (module, maker, check). A check takes what the maker takes, and raises what it would raise, at little cost.
HOST_KINDS: dict[str, tuple[str, str, str]] = {
    "dmc": ("envs.dmc", "make_dmc", "check_dmc"),
}


def host_env(kind: str, name: str, **settings: Any) -> MakeHostEnv:
    """A picklable maker of one host environment, for `envs.pool.HostPool`; the settings are checked at once.

    Args:
      kind: a family of environments, a key of `HOST_KINDS`.
      name: the task, as that family names it.
      settings: what the family's maker takes; see there (for `dmc`, `envs.dmc.make_dmc`).

    Raises:
      ValueError: an unknown kind, task or setting, or a value that cannot be.
      RuntimeError: pixels are wanted and there is no OpenGL.
    """
    if kind not in HOST_KINDS:
        raise ValueError(f"env.kind={kind!r} is no kind of host environment; choose from {', '.join(HOST_KINDS)}.")
    module_name, maker, check = HOST_KINDS[kind]
    module = importlib.import_module(module_name)
    known = [key for key in inspect.signature(getattr(module, maker)).parameters if key != "name"]
    for key in settings:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=3) or known
            raise ValueError(f"env.{key} is no setting of {kind!r} environments; did you mean {' or '.join(close)}?")
    getattr(module, check)(name, **settings)
    return partial(getattr(module, maker), name, **settings)
