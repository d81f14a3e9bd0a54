"""Ties a child's life to the supervisor's, in the kernel."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from typing import Final

_PR_SET_PDEATHSIG: Final = 1  # prctl(2)


def tether(supervisor: int) -> None:
    """
    Let the kernel kill this process when its parent dies.

    The end of the heartbeat tells a child the same, but only one that still listens: a hung child would outlive a
    killed supervisor, and hold the listening socket against the next one.

    Args:
        supervisor: The parent's pid; when it is gone already, this process ends now.
    """
    with contextlib.suppress(OSError, AttributeError):  # not Linux: the heartbeat alone must do
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != supervisor:
        os._exit(0)
