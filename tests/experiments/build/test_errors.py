"""What a user can cure is a sentence; a defect is not taken for one."""

import errno
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.build.checks import seconds_of
from experiments.build.errors import UserError, is_told


def caught(call):
    with pytest.raises(Exception) as found:
        call()
    return found.value


def own_environment_refuses():
    try:
        int("x")
    except ValueError as error:
        raise ValueError("env.name='left' is not to be had") from error


def test_what_was_written_for_the_user_is_told():
    assert is_told(caught(lambda: seconds_of("3")))
    assert is_told(caught(own_environment_refuses))
    assert is_told(UserError("the disk is full")) and is_told(OSError(errno.ENOSPC, "No space left on device"))
    assert is_told(caught(lambda: Path("/no/such/file").read_text()))
    assert is_told(caught(lambda: (_ for _ in ()).throw(MemoryError("replay.capacity=3 needs ..."))))


@pytest.mark.parametrize(
    "defect",
    [
        lambda: int("x"),
        lambda: jnp.zeros(3).reshape(2, 2),
        lambda: np.zeros(3).reshape(2, 2),
        lambda: list(zip([1], [1, 2], strict=True)),
        lambda: {}["key"],
        lambda: OSError(errno.EPIPE, "Broken pipe").missing,  # pyright: ignore
    ],
)
def test_a_defect_is_not(defect):
    assert not is_told(caught(defect))
