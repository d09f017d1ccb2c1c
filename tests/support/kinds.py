"""One environment of each kind, checked and made as a run makes it."""

from functools import partial
from typing import Any

from envs.registry import device_env, host_env


def make_host(kind, name, **settings) -> Any:
    return host_env(kind, name, **settings)()


make_dmc, make_gymnasium, make_dm_env = (partial(make_host, kind) for kind in ("dmc", "gymnasium", "dm_env"))
make_gymnax, make_mjx = (partial(device_env, kind) for kind in ("gymnax", "mjx"))
