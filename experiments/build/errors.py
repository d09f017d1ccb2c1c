"""What a user can cure is told in a sentence; a defect shows its traceback."""

from __future__ import annotations

import dis
import errno
import sysconfig
from types import TracebackType

CURABLE = (ValueError, RuntimeError, MemoryError, OSError)
"""What may be a sentence for the user; `is_told` says whether one of them is."""
_OF_DISKS = (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EFBIG)
_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_OURS = ("agents", "configs", "envs", "examples", "experiments", "ne_jax", "settings")


class UserError(RuntimeError):
    """Something beyond the settings that a user can cure; the message is all that is told."""


def is_told(error: BaseException) -> bool:
    """Whether the message of an error was written for the user, who then needs no traceback.

    It was if it comes from a `raise` of this repository, or of one's own environment, and says what is wrong with a
    setting or a file; also if a file cannot be used, or memory is full. What a library or Python itself found wrong
    with a call is a defect of the caller.
    """
    if isinstance(error, UserError | MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return True
    if isinstance(error, OSError) and (error.filename is not None or error.errno in _OF_DISKS):
        return True
    return isinstance(error, CURABLE) and error.__traceback__ is not None and _was_raised(error.__traceback__)


def _was_raised(found: TracebackType) -> bool:
    """Whether the innermost frame is one of ours that stands at a `raise`."""
    while found.tb_next is not None:
        found = found.tb_next
    code = found.tb_frame.f_code
    package = found.tb_frame.f_globals.get("__name__", "").partition(".")[0]
    ours = package in _OURS or not code.co_filename.startswith(_LIBRARIES)
    return ours and code.co_code[found.tb_lasti] == dis.opmap["RAISE_VARARGS"]
