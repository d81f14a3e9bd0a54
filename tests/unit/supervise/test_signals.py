"""Signals as events, and none after the end."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import selectors, signal, sys
from sidecar.supervise.signals import SignalSocket
signals = SignalSocket(selectors.DefaultSelector(), lambda number: None)
signals.end()
mask = next(int(line.split()[1], 16) for line in open("/proc/self/status") if line.startswith("SigIgn"))
asked = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
sys.exit(7 if all(mask >> (number - 1) & 1 for number in asked) else 1)
"""


def test_a_signal_after_the_end_does_not_change_the_exit_code() -> None:
    """
    Who types Ctrl-C three times sees the code that the draining had: the kernel drops it, whatever the ending interpreter does.
    """
    assert subprocess.run([sys.executable, "-c", PROGRAM], check=False, timeout=60).returncode == 7
