"""Waiting for what other processes do."""

import time


def wait_for(found, seconds):
    """What `found()` gives as soon as that is something; it is asked every twentieth of a second."""
    until = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.05)
    return value
