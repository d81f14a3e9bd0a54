"""
Tells systemd how the sidecar is: sd_notify(3), one datagram a message, on the standard library.

Tables
    message       sent when                                              the unit then is
    READY=1       the first worker serves, as `/readyz` says, whether    active
                  the controller does yet or not: traffic comes first;
                  and when a reload has ended, whichever way
    RELOADING=1   SIGHUP, or the watched file has changed                reloading
    STOPPING=1    SIGTERM or SIGINT, with the time that draining         deactivating
                  takes, so that no TimeoutStopSec has to know it
    WATCHDOG=1    the supervisor's loop turns, twice per WATCHDOG_USEC   restarted when it is silent
    STATUS=       the number of serving workers changes, or whether a    as `systemctl status` shows it
                  controller does

What can go wrong
    No $NOTIFY_SOCKET: every call does nothing. The receiver's queue is full or it is being replaced: the message is
    dropped and, where it is a state, sent again at the next turn; nothing here ever waits. The watchdog judges the
    supervisor alone: a hung worker or controller is the supervisor's own to end.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Final

SOCKET: Final = "NOTIFY_SOCKET"
WATCHDOG: Final = "WATCHDOG_USEC"
WATCHDOG_PID: Final = "WATCHDOG_PID"
_PER_PERIOD: Final = 2  # sd_watchdog_enabled(3): at half of the time


class Notifier:
    """
    What the service manager knows of this process.

    Args:
        environ: Holds the three variables that systemd sets; they stay there, for a release that takes this one's place.
        pid: Of this process; a watchdog that was meant for another one is not served.
    """

    def __init__(self, environ: Mapping[str, str], pid: int) -> None:
        self._to = _address(environ.get(SOCKET, ""))
        self._every_s = _watchdog_s(environ, pid) / _PER_PERIOD
        self._beat_at = 0.0
        self._owed: list[str] = []
        self._ready = self._stopping = False
        self._status = ""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if self._to else None
        if self._socket is not None:
            self._socket.setblocking(False)

    def __repr__(self) -> str:
        return f"<Notifier {'to ' + repr(self._to) if self._to else 'of nobody'}{' ready' if self._ready else ''}>"

    def turn(self, now: float, serving: int, wanted: int, *, controlled: bool = True) -> None:
        """Say what has changed since the last turn; *serving* of *wanted* workers take requests, a controller is there or starts."""
        if self._socket is None:
            return
        status = f"{serving} of {wanted} workers serve" + ("" if controlled else ", the controller is starting")
        if serving and not self._ready:
            self._ready = True
            self._owed.append("READY=1")
        if status != self._status and not self._stopping:
            self._status = status
            self._owed.append(f"STATUS={status}")
        if self._every_s and now >= self._beat_at:
            self._beat_at = now + self._every_s
            self._send("WATCHDOG=1")
        self._pay()

    def reloading(self, now: float) -> None:
        """Say that the configuration is being read; `now` is on CLOCK_MONOTONIC, as Type=notify-reload compares it."""
        self._owed.append(f"RELOADING=1\nMONOTONIC_USEC={int(now * 1e6)}")
        self._pay()

    def reloaded(self) -> None:
        """Say that it was read, or could not be."""
        if self._ready:
            self._owed.append("READY=1")
        self._pay()

    def stopping(self, longest_s: float) -> None:
        """Say that this process leaves, within *longest_s*."""
        self._stopping = True
        self._owed.append(f"STOPPING=1\nSTATUS=finishing what is in flight\nEXTEND_TIMEOUT_USEC={int(longest_s * 1e6)}")
        self._pay()

    def _pay(self) -> None:
        """Send what is owed, in order, until the receiver takes no more."""
        while self._owed and self._send(self._owed[0]):
            del self._owed[0]

    def _send(self, message: str) -> bool:
        if self._socket is None:
            return True
        try:
            self._socket.sendto(message.encode(), self._to)
        except OSError:
            return False
        return True


def _address(given: str) -> str:
    """Return the socket's address for the kernel: `@` begins an abstract name; other kinds of address are not served."""
    if given.startswith("@") and len(given) > 1:
        return "\0" + given[1:]
    return given if given.startswith("/") else ""


def _watchdog_s(environ: Mapping[str, str], pid: int) -> float:
    """Return the watchdog's period in seconds; 0 without one."""
    period, meant = environ.get(WATCHDOG, ""), environ.get(WATCHDOG_PID, "")
    if not period.isdecimal() or (meant and meant != str(pid)):
        return 0.0
    return int(period) / 1e6
