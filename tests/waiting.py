"""Waiting for what happens in another process."""

import time


def wait_for(condition, what, seconds=600.0):
    """The first true value of `condition`, which is asked five times a second."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"no {what}"
        time.sleep(0.2)
    return found
